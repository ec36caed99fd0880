/* SPDX-License-Identifier: Apache-2.0 */
/* PACK: a tree as a tar stream. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "initramfs/file_links.h"
#include "initramfs/file_operations.h"
#include "initramfs/file_path.h"
#include "initramfs/file_tree.h"
#include "initramfs/file_xattrs.h"
#include "initramfs/tar_format.h"

/* Of all extended attributes of one file, and its names. */
#define RECORDS_MAX (256u * 1024u)

/* One entry that is being packed. */
struct packed {
  struct file_node node;
  const char* path; /* of the entry, in the stream */
  struct stat status;
};

struct pack {
  struct file_operation* operation;
  struct file_links links;
  bool changed; /* a file changed while it was packed: REFUSED at the end */
};

static char records_buffer[RECORDS_MAX];
static char entry_path[FILE_TREE_PATH_MAX + 4]; /* "./" in front, perhaps a slash behind */
static const uint8_t zeros[2 * TAR_BLOCK_SIZE];

static bool pack_fail(struct pack* pack, const struct packed* entry, int code, const char* verb) {
  return fail(pack->operation->failure, MSB_STAGE_FILE, code, "cannot %s %.200s of %.200s", verb,
              entry->path, pack->operation->request->path);
}

/* The header, with an extended one in front where it is needed. */
static bool send_header(struct pack* pack, const struct packed* entry,
                        const struct tar_header* header) {
  struct file_stream* stream = pack->operation->stream;
  struct tar_records records = {records_buffer, 0, sizeof records_buffer};
  bool fits = tar_append_needed(&records, header);
  int code = fits ? 0 : E2BIG;
  /* Of a hard link they are those of the file, which came before. */
  if (fits && header->type != TAR_HARD_LINK) code = file_xattrs_read(&entry->node, &records);
  if (code == ENOENT) return true; /* removed since, and nothing of it was sent */
  if (code != 0) return pack_fail(pack, entry, code, "read the extended attributes of");
  uint8_t block[TAR_BLOCK_SIZE];
  if (records.used > 0) {
    tar_write_pax_header(block, records.used);
    file_stream_send_data(stream, block, sizeof block);
    file_stream_send_data(stream, records.bytes, records.used);
    file_stream_send_data(stream, zeros, tar_padding(records.used));
  }
  tar_write_header(block, header);
  file_stream_send_data(stream, block, sizeof block);
  pack->operation->value++;
  return true;
}

static struct tar_header header_of(const struct packed* entry, char type) {
  const struct stat* status = &entry->status;
  return (struct tar_header){.type = type,
                             .name = {entry->path, strlen(entry->path)},
                             .link = {"", 0},
                             .mode = status->st_mode & 07777,
                             .user = status->st_uid,
                             .group = status->st_gid,
                             .seconds = status->st_mtim.tv_sec,
                             .nanoseconds = (uint32_t)status->st_mtim.tv_nsec};
}

static void note_change(struct pack* pack, const struct packed* entry) {
  if (pack->changed) return;
  pack->changed = true;
  fail(pack->operation->failure, MSB_STAGE_FILE, 0, "%.200s of %.200s changed while it was packed",
       entry->path, pack->operation->request->path);
}

/* Exactly as many bytes as the header says: what is missing is zeros, what is too much is cut. */
static bool send_content(struct pack* pack, const struct packed* entry) {
  struct file_stream* stream = pack->operation->stream;
  uint64_t left = (uint64_t)entry->status.st_size;
  bool ended = false;
  while (left > 0 && !stream->broken) {
    size_t room;
    uint8_t* space = file_stream_space(stream, &room);
    size_t wanted = left < room ? (size_t)left : room;
    ssize_t n = ended ? 0 : read(entry->node.descriptor, space, wanted);
    if (n < 0) return pack_fail(pack, entry, errno, "read");
    if (n == 0) {
      ended = true;
      memset(space, 0, wanted);
      n = (ssize_t)wanted;
    }
    file_stream_commit(stream, (size_t)n);
    left -= (uint64_t)n;
  }
  file_stream_send_data(stream, zeros, tar_padding((uint64_t)entry->status.st_size));
  struct stat now;
  bool same =
      fstat(entry->node.descriptor, &now) == 0 && now.st_size == entry->status.st_size && !ended;
  if (!same) note_change(pack, entry);
  return true;
}

static bool pack_regular(struct pack* pack, struct packed* entry) {
  bool is_linked = entry->status.st_nlink > 1;
  const char* first = is_linked ? file_links_find(&pack->links, &entry->status, NULL) : NULL;
  if (first != NULL) {
    struct tar_header header = header_of(entry, TAR_HARD_LINK);
    header.link = (struct tar_text){first, strlen(first)};
    return send_header(pack, entry, &header);
  }
  /* Should it be something else by now, opening it must not wait. */
  int descriptor = openat(entry->node.directory, entry->node.name,
                          O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (descriptor < 0) {
    if (errno == ENOENT || errno == ELOOP) return true;
    return pack_fail(pack, entry, errno, "open");
  }
  entry->node.descriptor = descriptor;
  bool done = true;
  if (fstat(descriptor, &entry->status) == 0 && S_ISREG(entry->status.st_mode)) {
    struct tar_header header = header_of(entry, TAR_REGULAR);
    header.size = entry->status.st_size;
    done = send_header(pack, entry, &header) && send_content(pack, entry);
    if (is_linked) file_links_find(&pack->links, &entry->status, entry->path);
  }
  close(descriptor);
  return done;
}

static bool pack_symlink(struct pack* pack, const struct packed* entry) {
  char target[PATH_MAX];
  ssize_t length = readlinkat(entry->node.directory, entry->node.name, target, sizeof target);
  if (length < 0) {
    if (errno == ENOENT || errno == EINVAL) return true;
    return pack_fail(pack, entry, errno, "read the symbolic link");
  }
  struct tar_header header = header_of(entry, TAR_SYMLINK);
  header.link = (struct tar_text){target, (size_t)length};
  return send_header(pack, entry, &header);
}

static bool pack_other(struct pack* pack, const struct packed* entry, char type) {
  struct tar_header header = header_of(entry, type);
  if (type == TAR_CHARACTER_DEVICE || type == TAR_BLOCK_DEVICE) {
    header.major = major(entry->status.st_rdev);
    header.minor = minor(entry->status.st_rdev);
  }
  return send_header(pack, entry, &header);
}

static bool pack_entry(struct pack* pack, struct packed* entry) {
  switch (entry->status.st_mode & S_IFMT) {
    case S_IFREG:
      return pack_regular(pack, entry);
    case S_IFDIR:
      return pack_other(pack, entry, TAR_DIRECTORY);
    case S_IFLNK:
      return pack_symlink(pack, entry);
    case S_IFCHR:
      return pack_other(pack, entry, TAR_CHARACTER_DEVICE);
    case S_IFBLK:
      return pack_other(pack, entry, TAR_BLOCK_DEVICE);
    case S_IFIFO:
      return pack_other(pack, entry, TAR_FIFO);
    default:
      /* A socket is of use only to the program that made it, and tar has no type for it. */
      return true;
  }
}

static bool pack_tree(struct pack* pack, int directory) {
  struct file_tree* tree = file_shared_tree();
  struct failure* failure = pack->operation->failure;
  const char* path = pack->operation->request->path;
  if (!file_tree_open(tree, directory, path, 0, false, failure)) return false;
  enum file_tree_step step;
  while ((step = file_tree_next(tree, failure)) != FILE_TREE_END) {
    if (step == FILE_TREE_FAILED || file_stream_is_broken(pack->operation->stream)) break;
    if (step == FILE_TREE_LEAVE) continue;
    bool is_directory = S_ISDIR(tree->status.st_mode);
    snprintf(entry_path, sizeof entry_path, "./%s%s", tree->path, is_directory ? "/" : "");
    struct packed entry = {{tree->directory, tree->name, -1}, entry_path, tree->status};
    if (!pack_entry(pack, &entry)) break;
  }
  file_tree_close(tree);
  return step == FILE_TREE_END;
}

/* Anything but a directory. */
static bool pack_one(struct pack* pack, const struct stat* status) {
  struct file_place place;
  const char* path = pack->operation->request->path;
  if (!file_place_open(&place, path, false, pack->operation->failure)) return false;
  struct packed entry = {{place.directory, place.name, -1}, place.name, *status};
  bool done = pack_entry(pack, &entry);
  file_place_close(&place);
  return done;
}

bool file_pack(struct file_operation* operation) {
  struct pack pack = {.operation = operation};
  const char* path = operation->request->path;
  struct stat status;
  if (lstat(path, &status) != 0) return file_fail(operation, errno, "look at");
  bool done;
  if (S_ISDIR(status.st_mode)) {
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return file_fail(operation, errno, "open the directory");
    done = pack_tree(&pack, directory);
  } else {
    done = pack_one(&pack, &status);
  }
  file_links_free(&pack.links);
  if (!done) return false;
  /* The end of the archive: two blocks of zeros. */
  file_stream_send_data(operation->stream, zeros, sizeof zeros);
  return !pack.changed;
}
