/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/names.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "initramfs/file_layers.h"
#include "initramfs/payload_strings.h"
#include "protocol/msb_exec.h"

/* __NEW_UTS_LEN of the kernel. */
#define HOST_NAME_LENGTH 64u

enum { HOST_NAME, RESOLVER, HOSTS, STRINGS };

/* It comes to stand in files and prompts: none of the characters that mean something there. */
static bool check_host_name(const char* name, struct failure* failure) {
  size_t length = strlen(name);
  if (length > HOST_NAME_LENGTH) {
    return fail(failure, MSB_STAGE_REQUEST, ENAMETOOLONG,
                "SET_NAMES: a host name of %zu bytes; it may have %u", length, HOST_NAME_LENGTH);
  }
  static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._";
  if (strspn(name, allowed) == length) return true;
  return fail(failure, MSB_STAGE_REQUEST, EINVAL,
              "SET_NAMES: a host name with something other than letters, digits, '-', '.', '_'");
}

/* Writes from the start and cuts off the rest, so that readers never find the file empty. */
static bool write_whole(int file, const char* content, size_t length) {
  size_t written = 0;
  while (written < length) {
    ssize_t n = pwrite(file, content + written, length - written, (off_t)written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    written += (size_t)n;
  }
  if (ftruncate(file, (off_t)length) != 0) return false;
  file_layers_wrote(file);
  return true;
}

/* Closes, and tells what went wrong before or in it. */
static int close_with(int file, bool written) {
  int code = written ? 0 : errno;
  if (close(file) != 0 && code == 0) code = errno;
  return code;
}

/* Returns 0 or an errno. */
static int replace(const char* path, const char* content, size_t length) {
  char temporary[PATH_MAX];
  snprintf(temporary, sizeof temporary, "%s.msb-new", path);
  unlink(temporary); /* of an agent that was interrupted, or a trap */
  int file = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (file < 0) return errno;
  int code = close_with(file, write_whole(file, content, length));
  if (code == 0 && rename(temporary, path) != 0) code = errno;
  if (code != 0) unlink(temporary);
  return code;
}

static int open_regular(const char* path) {
  int file = open(path, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC);
  struct stat status;
  if (file < 0 || (fstat(file, &status) == 0 && S_ISREG(status.st_mode))) return file;
  close(file);
  return -1;
}

bool names_write_file(const char* path, const char* content, size_t length,
                      struct failure* failure) {
  int file = open_regular(path);
  int code = file >= 0 ? close_with(file, write_whole(file, content, length))
                       : replace(path, content, length);
  if (code != 0) return fail(failure, MSB_STAGE_FILE, code, "cannot write %s", path);
  return true;
}

static bool set_host_name(const char* name, struct failure* failure) {
  size_t length = strlen(name);
  if (sethostname(name, length) != 0) {
    return fail(failure, MSB_STAGE_REQUEST, errno, "cannot set the host name");
  }
  char line[HOST_NAME_LENGTH + 2];
  snprintf(line, sizeof line, "%s\n", name);
  return names_write_file("/etc/hostname", line, length + 1, failure);
}

bool names_set(const uint8_t* payload, size_t length, struct failure* failure) {
  const char* strings[STRINGS];
  if (!payload_strings(payload, length, "SET_NAMES", STRINGS, strings, failure) ||
      !check_host_name(strings[HOST_NAME], failure)) {
    return false;
  }
  if (mkdir("/etc", 0755) != 0 && errno != EEXIST) {
    return fail(failure, MSB_STAGE_FILE, errno, "cannot make the directory /etc");
  }
  const char* resolver = strings[RESOLVER];
  const char* hosts = strings[HOSTS];
  return (*strings[HOST_NAME] == '\0' || set_host_name(strings[HOST_NAME], failure)) &&
         (*resolver == '\0' ||
          names_write_file("/etc/resolv.conf", resolver, strlen(resolver), failure)) &&
         (*hosts == '\0' || names_write_file("/etc/hosts", hosts, strlen(hosts), failure));
}
