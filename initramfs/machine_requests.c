/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/machine_requests.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "initramfs/clock.h"
#include "initramfs/failure.h"
#include "initramfs/frames.h"
#include "initramfs/listeners.h"
#include "initramfs/metrics.h"
#include "initramfs/names.h"
#include "initramfs/shares.h"
#include "initramfs/socket_owner.h"

#define NANOSECONDS 1000000000u
#define ENTROPY_MAX 512u

static bool answer_with(struct buffer* answer, uint32_t type, const void* payload, size_t length) {
  uint8_t header[FRAME_HEADER_SIZE];
  frame_write_header(header, type, (uint32_t)length);
  return buffer_append(answer, header, sizeof header) && buffer_append(answer, payload, length);
}

static bool done(struct buffer* answer, uint64_t value) {
  struct msb_done payload = {.value = value};
  return answer_with(answer, MSB_DONE, &payload, sizeof payload);
}

static bool refuse(struct buffer* answer, const struct failure* failure) {
  struct msb_failure fixed = {.stage = failure->stage, .code = failure->code};
  uint8_t payload[sizeof fixed + sizeof failure->text];
  size_t text = strlen(failure->text);
  memcpy(payload, &fixed, sizeof fixed);
  memcpy(payload + sizeof fixed, failure->text, text);
  return answer_with(answer, MSB_REFUSED, payload, sizeof fixed + text);
}

static bool measure(struct buffer* answer) {
  struct msb_metrics metrics;
  metrics_read(&metrics);
  return answer_with(answer, MSB_MEASURED, &metrics, sizeof metrics);
}

static bool list_listeners(struct buffer* answer) {
  struct listeners listeners;
  bool answered = listeners_read(&listeners);
  for (uint32_t i = 0; answered && i < listeners.kept; i++) {
    answered = answer_with(answer, MSB_LISTENER, &listeners.entries[i], sizeof *listeners.entries);
  }
  answered = answered && done(answer, listeners.counted);
  listeners_free(&listeners);
  return answered;
}

static bool find_owner(const uint8_t* payload, struct buffer* answer) {
  struct msb_socket ends;
  memcpy(&ends, payload, sizeof ends);
  bool valid = (ends.family == 4 || ends.family == 6) &&
               (ends.protocol == IPPROTO_TCP || ends.protocol == IPPROTO_UDP) &&
               ends.local_port != 0 && ends.remote_port != 0 && ends.reserved == 0;
  if (!valid) {
    struct failure failure;
    fail(&failure, MSB_STAGE_REQUEST, EINVAL, "SOCKET_OWNER: there are no such sockets");
    return refuse(answer, &failure);
  }
  struct socket_owner owner;
  if (!socket_owner_find(&ends, clock_now_ms() + SOCKET_OWNER_MS, &owner)) return done(answer, 0);
  uint8_t found[sizeof owner.fields + sizeof owner.name];
  size_t name = strlen(owner.name);
  memcpy(found, &owner.fields, sizeof owner.fields);
  memcpy(found + sizeof owner.fields, owner.name, name);
  return answer_with(answer, MSB_OWNER, found, sizeof owner.fields + name);
}

static bool set_clock(const uint8_t* payload, struct failure* failure) {
  struct msb_clock clock;
  memcpy(&clock, payload, sizeof clock);
  struct timespec time = {.tv_sec = (time_t)(clock.realtime_ns / NANOSECONDS),
                          .tv_nsec = (long)(clock.realtime_ns % NANOSECONDS)};
  return clock_settime(CLOCK_REALTIME, &time) == 0 ||
         fail(failure, MSB_STAGE_REQUEST, errno, "cannot set the clock");
}

static bool add_entropy(const uint8_t* payload, size_t length, struct failure* failure) {
  /* struct rand_pool_info ends in an array of no length: it and its bytes as one. */
  struct {
    int bits;
    int size;
    uint8_t bytes[ENTROPY_MAX];
  } pool = {.bits = (int)length * 8, .size = (int)length};
  _Static_assert(sizeof(struct rand_pool_info) == sizeof pool - sizeof pool.bytes, "as the kernel");
  if (length > sizeof pool.bytes) {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL, "ADD_ENTROPY: more than %u bytes", ENTROPY_MAX);
  }
  memcpy(pool.bytes, payload, length);
  int random = open("/dev/urandom", O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC);
  bool added =
      random >= 0 && ioctl(random, RNDADDENTROPY, &pool) == 0 && ioctl(random, RNDRESEEDCRNG) == 0;
  if (!added) fail(failure, MSB_STAGE_REQUEST, errno, "cannot add to /dev/urandom");
  explicit_bzero(pool.bytes, sizeof pool.bytes);
  if (random >= 0) close(random);
  return added;
}

bool machine_request_is(uint32_t type) {
  return type == MSB_PING || (type >= MSB_METRICS && type <= MSB_SOCKET_OWNER);
}

bool machine_request(uint32_t type, const uint8_t* payload, size_t length,
                     struct namespace_beside* programs, struct buffer* answer) {
  struct failure failure;
  bool succeeded;
  switch (type) {
    case MSB_PING:
      return answer_with(answer, MSB_PONG, payload, length);
    case MSB_METRICS:
      return measure(answer);
    case MSB_LISTENERS:
      return list_listeners(answer);
    case MSB_SOCKET_OWNER:
      return find_owner(payload, answer);
    case MSB_SET_CLOCK:
      succeeded = set_clock(payload, &failure);
      break;
    case MSB_ADD_ENTROPY:
      succeeded = add_entropy(payload, length, &failure);
      break;
    case MSB_SET_NAMES:
      succeeded = names_set(payload, length, &failure);
      break;
    case MSB_SHARE:
      succeeded = shares_add(payload, length, programs, &failure);
      break;
    case MSB_UNSHARE:
      succeeded = shares_remove(payload, length, programs, &failure);
      break;
    default:
      succeeded = fail(&failure, MSB_STAGE_REQUEST, EINVAL, "no such request: %u", type);
  }
  return succeeded ? done(answer, 0) : refuse(answer, &failure);
}
