/* SPDX-License-Identifier: Apache-2.0 */
/* UNPACK: a tar stream becomes files below a directory. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "initramfs/file_operations.h"
#include "initramfs/file_path.h"
#include "initramfs/unpack_entry.h"

/* One extended header, or one long name. */
#define RECORDS_MAX (256u * 1024u)

/* What stands in front of the entry that it is about. */
struct extensions {
  size_t records;
  size_t long_name;
  size_t long_link;
};

struct unpack {
  struct file_operation* operation;
  struct extensions lengths;
  uint8_t block[TAR_BLOCK_SIZE];
  char short_name[TAR_SHORT_NAME_MAX];
};

static struct unpack_directory directory;
static char records[RECORDS_MAX];
static char long_name[UNPACK_PATH_MAX];
static char long_link[UNPACK_PATH_MAX];

/* What is wrong with the stream. */
static bool stream_fail(struct unpack* unpack, const char* wrong) {
  return fail(unpack->operation->failure, MSB_STAGE_FILE, EINVAL, "the tar stream %s", wrong);
}

/* `done`: how many bytes there were before the stream ended. */
static bool read_exactly(struct unpack* unpack, void* to, size_t length, size_t* done) {
  *done = 0;
  while (*done < length) {
    const uint8_t* bytes;
    size_t n = file_stream_receive_data(unpack->operation->stream, length - *done, &bytes);
    if (n == 0) return false;
    memcpy((uint8_t*)to + *done, bytes, n);
    *done += n;
  }
  return true;
}

static bool cut_off(struct unpack* unpack) {
  return stream_fail(unpack, "ends in the middle of an entry");
}

static bool skip(struct unpack* unpack, uint64_t length) {
  while (length > 0) {
    const uint8_t* bytes;
    size_t limit = length < FILE_STREAM_BUFFER ? (size_t)length : FILE_STREAM_BUFFER;
    size_t n = file_stream_receive_data(unpack->operation->stream, limit, &bytes);
    if (n == 0) return cut_off(unpack);
    length -= n;
  }
  return true;
}

/* Reads what an extension says. */
static bool read_extension(struct unpack* unpack, const struct tar_header* header, char* to,
                           size_t capacity, size_t* length) {
  uint64_t size = (uint64_t)header->size;
  if (size > capacity) return stream_fail(unpack, "has an extended header that is too long");
  size_t done;
  if (!read_exactly(unpack, to, (size_t)size, &done)) return cut_off(unpack);
  *length = (size_t)size;
  return skip(unpack, tar_padding(size));
}

/* Reads the header that comes next. Sets `ended` at the end of the archive, which is two blocks of
 * zeros, or where the stream ends between entries. */
static bool read_header(struct unpack* unpack, struct tar_header* header, bool* ended) {
  bool had_zeros = false;
  *ended = false;
  while (true) {
    size_t done;
    if (!read_exactly(unpack, unpack->block, sizeof unpack->block, &done)) {
      *ended = done == 0;
      return *ended || cut_off(unpack);
    }
    if (!tar_block_is_zero(unpack->block)) break;
    *ended = had_zeros;
    if (had_zeros) return true;
    had_zeros = true;
  }
  /* Archivers disagree on what that means. */
  if (had_zeros) return stream_fail(unpack, "has a block of zeros between entries");
  const char* wrong = tar_parse_header(unpack->block, unpack->short_name, header);
  return wrong == NULL || stream_fail(unpack, wrong);
}

/* Reads up to the header of the next entry, and applies what stands in front of it. */
static bool read_entry(struct unpack* unpack, struct tar_header* header, bool* ended) {
  struct extensions* lengths = &unpack->lengths;
  memset(lengths, 0, sizeof *lengths);
  bool is_entry = false;
  while (!is_entry) {
    if (!read_header(unpack, header, ended)) return false;
    if (*ended) return true;
    bool read = true;
    switch (header->type) {
      case TAR_PAX:
        read = read_extension(unpack, header, records, sizeof records, &lengths->records);
        break;
      case TAR_PAX_GLOBAL:
        /* For comments; engines apply none of its records. */
        read = skip(unpack, (uint64_t)header->size) &&
               skip(unpack, tar_padding((uint64_t)header->size));
        break;
      case TAR_GNU_LONG_NAME:
        read = read_extension(unpack, header, long_name, sizeof long_name, &lengths->long_name);
        break;
      case TAR_GNU_LONG_LINK:
        read = read_extension(unpack, header, long_link, sizeof long_link, &lengths->long_link);
        break;
      default:
        is_entry = true;
    }
    if (!read) return false;
  }
  const char* wrong = tar_apply_pax((struct tar_text){records, lengths->records}, header);
  if (wrong != NULL) return stream_fail(unpack, wrong);
  if (lengths->long_name > 0) {
    header->name = (struct tar_text){long_name, strnlen(long_name, lengths->long_name)};
  }
  if (lengths->long_link > 0) {
    header->link = (struct tar_text){long_link, strnlen(long_link, lengths->long_link)};
  }
  return true;
}

static bool is_zero(const uint8_t* bytes, size_t length) {
  return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

/* Pieces of zeros that are worth it become holes again. */
#define HOLE_MIN 4096u

static bool write_content(struct unpack* unpack, const struct unpack_entry* entry, int descriptor) {
  uint64_t left = (uint64_t)entry->header->size;
  while (left > 0) {
    const uint8_t* bytes;
    size_t limit = left < FILE_STREAM_BUFFER ? (size_t)left : FILE_STREAM_BUFFER;
    size_t length = file_stream_receive_data(unpack->operation->stream, limit, &bytes);
    if (length == 0) return cut_off(unpack);
    left -= length;
    if (length >= HOLE_MIN && is_zero(bytes, length)) {
      if (lseek(descriptor, (off_t)length, SEEK_CUR) < 0) {
        return unpack_entry_fail(entry, errno, "write");
      }
      continue;
    }
    while (length > 0) {
      ssize_t n = write(descriptor, bytes, length);
      if (n <= 0) return unpack_entry_fail(entry, n < 0 ? errno : EIO, "write");
      bytes += n;
      length -= (size_t)n;
    }
  }
  if (ftruncate(descriptor, (off_t)entry->header->size) != 0) {
    return unpack_entry_fail(entry, errno, "write");
  }
  return skip(unpack, tar_padding((uint64_t)entry->header->size));
}

static bool unpack_regular(struct unpack* unpack, struct unpack_entry* entry) {
  int descriptor = unpack_entry_create(entry);
  if (descriptor < 0) return false;
  entry->node.descriptor = descriptor;
  bool done = write_content(unpack, entry, descriptor) && unpack_entry_finish(entry);
  if (close(descriptor) != 0 && done) done = unpack_entry_fail(entry, errno, "write");
  /* Half a file is none. */
  if (!done) unlinkat(entry->node.directory, entry->node.name, 0);
  return done;
}

static bool unpack_one(struct unpack* unpack, struct tar_header* header) {
  const struct msb_file_request* fields = &unpack->operation->request->fields;
  if (fields->user != UINT32_MAX) header->user = fields->user;
  if (fields->group != UINT32_MAX) header->group = fields->group;
  struct unpack_entry entry = {.directory = &directory,
                               .header = header,
                               .records = {records, unpack->lengths.records},
                               .failure = unpack->operation->failure};
  if (!unpack_entry_place(&entry)) return false;
  switch (header->type) {
    case TAR_REGULAR:
    case TAR_CONTIGUOUS:
      return unpack_regular(unpack, &entry);
    case TAR_DIRECTORY:
      return unpack_entry_directory(&entry);
    case TAR_HARD_LINK:
      return unpack_entry_hard_link(&entry);
    case TAR_SYMLINK:
      return unpack_entry_symlink(&entry);
    case TAR_CHARACTER_DEVICE:
    case TAR_BLOCK_DEVICE:
    case TAR_FIFO:
      return unpack_entry_device(&entry);
    default:
      return fail(entry.failure, MSB_STAGE_FILE, EOPNOTSUPP,
                  "the tar stream has an entry of the type '%c' (0x%02x)",
                  header->type > ' ' && header->type < 127 ? header->type : '?',
                  (unsigned)(unsigned char)header->type);
  }
}

static bool unpack_all(struct unpack* unpack) {
  while (true) {
    struct tar_header header;
    bool ended;
    if (!read_entry(unpack, &header, &ended)) return false;
    if (ended) return true;
    if (!unpack_one(unpack, &header)) return false;
    unpack->operation->value++;
  }
}

bool file_unpack(struct file_operation* operation) {
  const struct msb_file_request* fields = &operation->request->fields;
  const char* path = operation->request->path;
  if ((fields->flags & MSB_FILE_PARENTS) != 0 &&
      !file_make_parents(path, true, fields->user, fields->group, operation->failure)) {
    return false;
  }
  int root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return file_fail(operation, errno, "open the directory");
  /* The tree closes its own. */
  int synced = fcntl(root, F_DUPFD_CLOEXEC, 0);
  struct unpack unpack = {.operation = operation};
  unpack_directory_open(&directory, root, fields->user, fields->group);
  bool done = synced >= 0 || file_fail(operation, errno, "open the directory");
  done = done && unpack_all(&unpack);
  int code = unpack_directory_close(&directory);
  if (done && code != 0) done = file_fail(operation, code, "set the times of directories in");
  if (done && (fields->flags & MSB_FILE_SYNC) != 0 && syncfs(synced) != 0) {
    done = file_fail(operation, errno, "sync");
  }
  if (synced >= 0) close(synced);
  return done;
}
