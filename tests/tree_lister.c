/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints every file below a directory, a line each, with all that an image can say about it:
 * tree_lister DIRECTORY. Static, so that it runs as a file of an image that has nothing else.
 *
 *   PATH TYPE MODE UID GID SECONDS.NANOSECONDS SIZE MAJOR:MINOR LINKS DEVICE:INODE CONTENT
 *   [NAME VALUE]...
 *
 * PATH (relative; empty for the directory itself), a symbolic link's target, NAME and VALUE of
 * extended attributes are hexadecimal behind an "=". CONTENT is a hash of a regular file's bytes, a
 * link's target, or "-". Where another file system is mounted the line is "PATH mount".
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ATTRIBUTES_MAX 65536 /* bytes, of a value or of all names */

static dev_t root_device;
static unsigned char buffer[1 << 20];
static char* path;
static size_t path_length;

static void fail(const char* what, const char* name) {
  fprintf(stderr, "tree_lister: cannot %s %s: %s\n", what, name, strerror(errno));
  exit(1);
}

static void print_hex(const void* bytes, size_t length) {
  static const char digits[] = "0123456789abcdef";
  putchar('=');
  for (size_t i = 0; i < length; i++) {
    unsigned char byte = ((const unsigned char*)bytes)[i];
    putchar(digits[byte >> 4]);
    putchar(digits[byte & 15]);
  }
}

/* FNV-1a over words of 8 bytes, the last one filled up with zeros: nobody forges it here. */
static uint64_t hash_content(const char* name) {
  uint64_t hash = 0xcbf29ce484222325u;
  int file = open(name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (file < 0) fail("open", name);
  size_t filled = 0;
  for (bool more = true; more;) {
    ssize_t n = read(file, buffer + filled, sizeof buffer - filled);
    if (n < 0) fail("read", name);
    more = n > 0;
    filled += (size_t)n;
    if (more && filled < sizeof buffer) continue;
    memset(buffer + filled, 0, (8 - filled % 8) % 8);
    for (size_t i = 0; i < filled; i += 8) {
      uint64_t word;
      memcpy(&word, buffer + i, sizeof word);
      hash = (hash ^ word) * 0x100000001b3u;
    }
    filled = 0;
  }
  close(file);
  return hash;
}

static int compare(const void* left, const void* right) {
  return strcmp(*(char* const*)left, *(char* const*)right);
}

static void print_attributes(const char* name) {
  static char names[ATTRIBUTES_MAX];
  static char value[ATTRIBUTES_MAX];
  static char* sorted[ATTRIBUTES_MAX / 2];
  ssize_t length = llistxattr(name, names, sizeof names);
  if (length < 0 && errno != ENOTSUP) fail("list the attributes of", name);
  size_t count = 0;
  for (char* at = names; at < names + length; at += strlen(at) + 1) sorted[count++] = at;
  qsort(sorted, count, sizeof *sorted, compare);
  for (size_t i = 0; i < count; i++) {
    ssize_t size = lgetxattr(name, sorted[i], value, sizeof value);
    if (size < 0) fail("read an attribute of", name);
    putchar(' ');
    print_hex(sorted[i], strlen(sorted[i]));
    putchar(' ');
    print_hex(value, (size_t)size);
  }
}

static char letter_of(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return 'f';
    case S_IFDIR:
      return 'd';
    case S_IFLNK:
      return 'l';
    case S_IFCHR:
      return 'c';
    case S_IFBLK:
      return 'b';
    case S_IFIFO:
      return 'p';
    default:
      return '?';
  }
}

/* `name` is the last component of `path`, in the current directory. True for a directory to be
 * entered. */
static bool print_file(const char* name) {
  struct stat info;
  if (lstat(name, &info) != 0) fail("inspect", path);
  print_hex(path, path_length);
  bool is_directory = S_ISDIR(info.st_mode);
  if (is_directory && info.st_dev != root_device) {
    puts(" mount");
    return false;
  }
  bool has_size = S_ISREG(info.st_mode) || S_ISLNK(info.st_mode);
  printf(" %c %o %u %u %lld.%09ld %lld %u:%u %lu %lx:%llx ", letter_of(info.st_mode),
         info.st_mode & 07777u, info.st_uid, info.st_gid, (long long)info.st_mtim.tv_sec,
         info.st_mtim.tv_nsec, has_size ? (long long)info.st_size : 0LL, major(info.st_rdev),
         minor(info.st_rdev), (unsigned long)info.st_nlink, (unsigned long)info.st_dev,
         (unsigned long long)info.st_ino);
  if (S_ISREG(info.st_mode)) {
    printf("%016llx", (unsigned long long)hash_content(name));
  } else if (S_ISLNK(info.st_mode)) {
    ssize_t length = readlink(name, (char*)buffer, sizeof buffer);
    if (length < 0) fail("read the link", path);
    print_hex(buffer, (size_t)length);
  } else {
    putchar('-');
  }
  print_attributes(name);
  putchar('\n');
  return is_directory;
}

static size_t read_names(char*** names) {
  DIR* directory = opendir(".");
  if (directory == NULL) fail("read the directory", path);
  size_t count = 0;
  size_t room = 0;
  *names = NULL;
  struct dirent* entry;
  while ((errno = 0, entry = readdir(directory)) != NULL) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (count == room) {
      room = room * 2 + 16;
      *names = realloc(*names, room * sizeof **names);
    }
    if (*names == NULL || ((*names)[count++] = strdup(entry->d_name)) == NULL) abort();
  }
  if (errno != 0) fail("read the directory", path);
  closedir(directory);
  qsort(*names, count, sizeof **names, compare);
  return count;
}

/* By changing into each directory, since a path may be longer than the kernel takes. */
static void print_directory(void) {
  char** names;
  size_t count = read_names(&names);
  for (size_t i = 0; i < count; i++) {
    size_t length_before = path_length;
    size_t length = strlen(names[i]);
    path = realloc(path, path_length + length + 2);
    if (path == NULL) abort();
    if (path_length > 0) path[path_length++] = '/';
    memcpy(path + path_length, names[i], length + 1);
    path_length += length;
    if (print_file(names[i])) {
      if (chdir(names[i]) != 0) fail("enter", path);
      print_directory();
      if (chdir("..") != 0) fail("leave", path);
    }
    path_length = length_before;
    path[path_length] = '\0';
    free(names[i]);
  }
  free(names);
}

int main(int argc, char** argv) {
  struct stat info;
  path = strdup("");
  if (argc != 2 || path == NULL) return 2;
  if (chdir(argv[1]) != 0 || lstat(".", &info) != 0) fail("enter", argv[1]);
  root_device = info.st_dev;
  print_file(".");
  print_directory();
  free(path);
  if (fflush(stdout) != 0) fail("write", "the list");
  return 0;
}
