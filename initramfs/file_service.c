/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/file_service.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "initramfs/file_layers.h"
#include "initramfs/file_operations.h"
#include "initramfs/file_tree.h"

typedef bool (*file_function)(struct file_operation*);

static const file_function functions[] = {
    [MSB_FILE_STAT - MSB_FILE_STAT] = file_stat,
    [MSB_FILE_LIST - MSB_FILE_STAT] = file_list,
    [MSB_FILE_WALK - MSB_FILE_STAT] = file_walk,
    [MSB_FILE_READ - MSB_FILE_STAT] = file_read,
    [MSB_FILE_WRITE - MSB_FILE_STAT] = file_write,
    [MSB_FILE_MKDIR - MSB_FILE_STAT] = file_mkdir,
    [MSB_FILE_REMOVE - MSB_FILE_STAT] = file_remove,
    [MSB_FILE_RENAME - MSB_FILE_STAT] = file_rename,
    [MSB_FILE_CHMOD - MSB_FILE_STAT] = file_chmod,
    [MSB_FILE_CHOWN - MSB_FILE_STAT] = file_chown,
    [MSB_FILE_SYMLINK - MSB_FILE_STAT] = file_symlink,
    [MSB_FILE_READLINK - MSB_FILE_STAT] = file_readlink,
    [MSB_FILE_PACK - MSB_FILE_STAT] = file_pack,
    [MSB_FILE_UNPACK - MSB_FILE_STAT] = file_unpack,
    [MSB_FILE_DIFF - MSB_FILE_STAT] = file_diff,
};

static struct file_stream stream;
static struct file_tree tree;

struct file_tree* file_shared_tree(void) {
  return &tree;
}

bool file_fail(struct file_operation* operation, int code, const char* verb) {
  return fail(operation->failure, MSB_STAGE_FILE, code, "cannot %s %.400s", verb,
              operation->request->path);
}

static void send_done(uint64_t value) {
  struct msb_done done = {.value = value};
  struct iovec piece = {&done, sizeof done};
  file_stream_send(&stream, MSB_DONE, &piece, 1);
  file_stream_flush(&stream);
}

static void send_refused(struct failure* failure) {
  struct msb_failure fixed = {.stage = failure->stage, .code = failure->code};
  struct iovec pieces[2] = {{&fixed, sizeof fixed}, {failure->text, strlen(failure->text)}};
  file_stream_send(&stream, MSB_REFUSED, pieces, 2);
  file_stream_flush(&stream);
}

static void serve(uint32_t type, const uint8_t* payload, uint32_t length) {
  struct failure failure = {0};
  struct file_request request;
  struct file_operation operation = {.stream = &stream, .request = &request, .failure = &failure};
  bool done = file_request_parse(type, payload, length, &request, &failure) &&
              functions[type - MSB_FILE_STAT](&operation);
  if (file_request_has_data(type)) file_stream_drain(&stream);
  if (done) {
    send_done(operation.value);
  } else {
    send_refused(&failure);
  }
}

/*
 * Other connections and pipes of the agent end when the agent closes them, whatever goes on here.
 * Modes are taken as requested.
 */
static int leave_agent(int connection) {
  const int own = 3;
  /* Out of the way first, so that neither lands on the other's place. */
  int moved = fcntl(connection, F_DUPFD_CLOEXEC, own + 1 + FILE_LAYERS_DESCRIPTORS);
  unsigned behind = file_layers_move((unsigned)own + 1);
  if (moved < 0 || dup3(moved, own, O_CLOEXEC) < 0) _exit(1);
  syscall(SYS_close_range, behind, ~0u, 0u);
  umask(0);
  file_tree_raise_limit();
  return own;
}

void file_service_run(int connection, const uint8_t* received, size_t received_length) {
  static uint8_t payload[MSB_MAX_REQUEST];
  uint32_t type;
  uint32_t length;
  file_stream_open(&stream, leave_agent(connection), received, received_length);
  send_done(0);
  /* Looking for names in a directory changes to it; it must be possible to unmount it later. */
  while (chdir("/") == 0 && file_stream_receive_request(&stream, &type, payload, &length)) {
    serve(type, payload, length);
  }
  _exit(0);
}
