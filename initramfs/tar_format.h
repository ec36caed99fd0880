/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pieces of tar's format (POSIX pax, "ustar Interchange Format" and "pax Interchange Format";
 * GNU tar manual, "Basic Tar Format"), taken apart and put together. No I/O. Where archivers
 * disagree this reads what Go's archive/tar reads, as images are made and unpacked with it.
 */
#ifndef MSB_INITRAMFS_TAR_FORMAT_H
#define MSB_INITRAMFS_TAR_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TAR_BLOCK_SIZE 512u

/* tar_header.type */
#define TAR_REGULAR '0'
#define TAR_HARD_LINK '1'
#define TAR_SYMLINK '2'
#define TAR_CHARACTER_DEVICE '3'
#define TAR_BLOCK_DEVICE '4'
#define TAR_DIRECTORY '5'
#define TAR_FIFO '6'
#define TAR_CONTIGUOUS '7'
#define TAR_PAX 'x'
#define TAR_PAX_GLOBAL 'g'
#define TAR_GNU_LONG_NAME 'L'
#define TAR_GNU_LONG_LINK 'K'

/* Bytes without an end mark. */
struct tar_text {
  const char* bytes;
  size_t length;
};

struct tar_header {
  char type;
  struct tar_text name; /* as in the stream: nothing about it is checked */
  struct tar_text link; /* target of a hard or symbolic link */
  int64_t mode;
  int64_t user;
  int64_t group;
  int64_t size;    /* of the content that follows, in bytes; never negative */
  int64_t seconds; /* of the time of modification, since 1970 */
  uint32_t nanoseconds;
  int64_t major; /* of a device node */
  int64_t minor;
};

/* What a header block's name is put together in: prefix, slash, name. */
#define TAR_SHORT_NAME_MAX 256u

bool tar_block_is_zero(const uint8_t block[TAR_BLOCK_SIZE]);

/*
 * Takes a header block apart. `header` points into `block` and `short_name` afterwards. The old
 * type '\0' comes out as a directory or regular file. Returns NULL, or what is wrong as the rest of
 * a sentence about "the stream".
 */
const char* tar_parse_header(const uint8_t block[TAR_BLOCK_SIZE],
                             char short_name[TAR_SHORT_NAME_MAX], struct tar_header* header);

/* Whether entries of this type are followed by `size` bytes, whatever a header says there. */
bool tar_has_content(char type);

/* A record of a pax extended header. */
struct tar_record {
  struct tar_text key; /* never empty */
  struct tar_text value;
};

/* Takes the next record off the front of `rest`. Returns NULL, or what is wrong. */
const char* tar_next_record(struct tar_text* rest, struct tar_record* record);

/*
 * Applies a pax extended header to the entry behind it, which then points into it. Attributes stay
 * for the caller (tar_xattr_name). Returns NULL, or what is wrong.
 */
const char* tar_apply_pax(struct tar_text records, struct tar_header* header);

/* The extended attribute that a record holds: its name; empty for any other record. */
struct tar_text tar_xattr_name(const struct tar_record* record);

/*
 * Writes the components of `name`, without empty ones and ".", into `path`, joined by slashes and
 * ended by a 0 byte; "" is the directory itself. Refuses what leads out: absolute names and "..".
 * Returns NULL, or what is wrong as the rest of a sentence about the name.
 */
const char* tar_normalise_name(struct tar_text name, char* path, size_t capacity);

/* Records that are being put together. */
struct tar_records {
  char* bytes;
  size_t used;
  size_t capacity;
};

/* False when there is no room. */
bool tar_append_record(struct tar_records* records, struct tar_text key, struct tar_text value);
bool tar_append_xattr(struct tar_records* records, const char* name, struct tar_text value);

/* Appends a record for everything in `header` that its block cannot say. False when there is no
 * room. */
bool tar_append_needed(struct tar_records* records, const struct tar_header* header);

/* Writes the block; what does not fit is cut or 0 there. */
void tar_write_header(uint8_t block[TAR_BLOCK_SIZE], const struct tar_header* header);

/* Writes the block in front of `size` bytes of records. */
void tar_write_pax_header(uint8_t block[TAR_BLOCK_SIZE], size_t size);

/* How many bytes follow `size` bytes up to the next block. */
uint32_t tar_padding(uint64_t size);

#endif
