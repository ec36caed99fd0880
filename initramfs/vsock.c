/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/vsock.h"

#include <errno.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "initramfs/clock.h"
#include "initramfs/frames.h"

/* Connections that came in and were not taken yet. */
#define BACKLOG 1024

/* How long the host may take to accept. The kernel's own 2 s are short on a machine that emulates
 * another. */
#define CONNECT_TIMEOUT_S 30

static int open_socket(void) {
  return socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* Closes a socket that turned out useless. */
static int give_up(int descriptor) {
  int code = errno;
  close(descriptor);
  errno = code;
  return -1;
}

int vsock_listen(void) {
  struct sockaddr_vm address = {
      .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = MSB_PORT_AGENT};
  int listener = open_socket();
  if (listener < 0) return -1;
  if (bind(listener, (struct sockaddr*)&address, sizeof address) != 0 ||
      listen(listener, BACKLOG) != 0) {
    return give_up(listener);
  }
  return listener;
}

int vsock_connect(uint32_t port) {
  struct sockaddr_vm address = {
      .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port};
  int connection = open_socket();
  if (connection < 0) return -1;
  struct timeval timeout = {.tv_sec = CONNECT_TIMEOUT_S};
  setsockopt(connection, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &timeout, sizeof timeout);
  if (connect(connection, (struct sockaddr*)&address, sizeof address) != 0 &&
      errno != EINPROGRESS) {
    return give_up(connection);
  }
  return connection;
}

bool vsock_wait_connected(int control) {
  struct pollfd wait = {.fd = control, .events = POLLOUT};
  while (poll(&wait, 1, -1) < 0) {
    if (errno != EINTR) return false;
  }
  int code = 0;
  socklen_t length = sizeof code;
  if (getsockopt(control, SOL_SOCKET, SO_ERROR, &code, &length) != 0) return false;
  errno = code;
  return code == 0;
}

bool vsock_is_host(const struct sockaddr* peer, socklen_t length) {
  struct sockaddr_vm address;
  if (length < sizeof address) return false;
  memcpy(&address, peer, sizeof address);
  return address.svm_family == AF_VSOCK && address.svm_cid == VMADDR_CID_HOST;
}

/* A fresh connection has room for any small frame. */
static void send_small(int control, uint32_t type, const void* payload, size_t length) {
  uint8_t frame[FRAME_HEADER_SIZE + MSB_MAX_SMALL];
  size_t size = frame_write(frame, type, payload, (uint32_t)length);
  send(control, frame, size, MSG_NOSIGNAL);
}

void control_send_hello(int control) {
  struct timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  struct msb_hello hello = {
      .version = MSB_EXEC_VERSION,
      .guest_time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec};
  send_small(control, MSB_HELLO, &hello, sizeof hello);
}

void control_send_failed(int control, const struct failure* failure) {
  uint8_t payload[MSB_MAX_SMALL];
  send_small(control, MSB_FAILED, payload, frame_failure(failure, payload));
}

void control_end(int control, enum msb_bye_reason reason, int timeout_ms) {
  struct msb_bye bye = {.reason = reason};
  send_small(control, MSB_BYE, &bye, sizeof bye);
  struct pollfd wait = {.fd = control, .events = POLLIN};
  uint8_t ignored[MSB_MAX_SMALL];
  long deadline = clock_now_ms() + timeout_ms;
  long left = timeout_ms;
  while (left > 0 && poll(&wait, 1, (int)left) > 0) {
    if (recv(control, ignored, sizeof ignored, MSG_DONTWAIT) <= 0) return;
    left = deadline - clock_now_ms();
  }
}
