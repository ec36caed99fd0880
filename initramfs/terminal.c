/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* asm-generic/ioctls.h; C libraries leave it out. */
#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

bool terminal_open(uint16_t rows, uint16_t columns, int* master, int* slave) {
  *slave = -1;
  *master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (*master < 0) return false;
  int unlock = 0;
  /* Not by its name: a program may have put something else there. */
  if (ioctl(*master, TIOCSPTLCK, &unlock) == 0) {
    *slave = ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  }
  if (*slave >= 0 && terminal_resize(*master, rows, columns)) {
    struct termios settings;
    if (tcgetattr(*slave, &settings) == 0) {
      settings.c_iflag |= IUTF8; /* erasing takes a whole character */
      tcsetattr(*slave, TCSANOW, &settings);
    }
    return true;
  }
  int code = errno;
  close(*master);
  if (*slave >= 0) close(*slave);
  errno = code;
  return false;
}

bool terminal_resize(int master, uint16_t rows, uint16_t columns) {
  struct winsize size = {.ws_row = rows, .ws_col = columns};
  return ioctl(master, TIOCSWINSZ, &size) == 0;
}

int terminal_end_of_file(int slave) {
  struct termios settings;
  if (tcgetattr(slave, &settings) != 0 || settings.c_cc[VEOF] == _POSIX_VDISABLE) return -1;
  return settings.c_cc[VEOF];
}

bool terminal_is_drained(int master) {
  /* n_tty_poll() waits for the bytes that are on their way between the two ends. */
  struct pollfd wait = {.fd = master, .events = POLLIN};
  return poll(&wait, 1, 0) <= 0 || (wait.revents & POLLIN) == 0;
}
