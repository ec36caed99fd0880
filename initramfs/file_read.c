/* SPDX-License-Identifier: Apache-2.0 */
/* READ. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "initramfs/file_operations.h"

/*
 * Opens what can be read without waiting for somebody: no pipes and no sockets, and nothing that
 * has no bytes yet (O_NONBLOCK, which regular files ignore, and files of proc do not). The kind is
 * looked at before, as opening a pipe tells a program at its other end that somebody reads.
 */
static int open_to_read(const char* path, int* descriptor) {
  struct stat status;
  if (stat(path, &status) != 0) return errno;
  if (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode)) return EOPNOTSUPP;
  *descriptor = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (*descriptor < 0) return errno;
  if (fstat(*descriptor, &status) == 0 && !S_ISDIR(status.st_mode)) return 0;
  close(*descriptor);
  return EISDIR;
}

bool file_read(struct file_operation* operation) {
  struct file_stream* stream = operation->stream;
  const struct msb_file_request* fields = &operation->request->fields;
  int descriptor = -1;
  int code = open_to_read(operation->request->path, &descriptor);
  if (code != 0) return file_fail(operation, code, "read");
  if (fields->offset > 0 && lseek(descriptor, (off_t)fields->offset, SEEK_SET) < 0) {
    code = errno;
  }
  while (code == 0 && operation->value < fields->length && !stream->broken) {
    size_t room;
    uint8_t* space = file_stream_space(stream, &room);
    uint64_t left = fields->length - operation->value;
    ssize_t n = read(descriptor, space, left < room ? (size_t)left : room);
    if (n == 0) break;
    if (n < 0) {
      code = errno;
    } else {
      file_stream_commit(stream, (size_t)n);
      operation->value += (uint64_t)n;
    }
  }
  close(descriptor);
  return code == 0 || file_fail(operation, code, "read");
}
