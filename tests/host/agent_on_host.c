/* SPDX-License-Identifier: Apache-2.0 */
/* The agent as it is in the init, but as an ordinary program on the host: agent_on_host SOCKET.
 * Ends when its standard input does. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "initramfs/agent.h"

int main(int argc, char** argv) {
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGCHLD);
  sigaddset(&blocked, SIGPIPE);
  sigprocmask(SIG_BLOCK, &blocked, NULL);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path || listener < 0) return 2;
  strcpy(address.sun_path, argv[1]);
  if (bind(listener, (struct sockaddr*)&address, sizeof address) != 0 ||
      listen(listener, SOMAXCONN) != 0) {
    perror(argv[1]);
    return 1;
  }
  struct agent_options options = {
      .control = 0, .listener = listener, .kmsg = -1, .namespace_init = -1};
  struct failure failure = {0};
  return agent_run(&options, &failure) == MSB_BYE_REQUESTED ? 0 : 1;
}
