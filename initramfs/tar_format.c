/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/tar_format.h"

#include <stdio.h>
#include <string.h>

/* A field of a header block. */
struct field {
  uint32_t offset;
  uint32_t length;
};

static const struct field field_name = {0, 100};
static const struct field field_mode = {100, 8};
static const struct field field_user = {108, 8};
static const struct field field_group = {116, 8};
static const struct field field_size = {124, 12};
static const struct field field_mtime = {136, 12};
static const struct field field_checksum = {148, 8};
static const struct field field_type = {156, 1};
static const struct field field_link = {157, 100};
static const struct field field_magic = {257, 8};
static const struct field field_major = {329, 8};
static const struct field field_minor = {337, 8};
static const struct field field_prefix = {345, 155};

#define USTAR_MAGIC "ustar\0"
#define USTAR_MAGIC_AND_VERSION "ustar\00000"
#define GNU_MAGIC "ustar  \0"

#define XATTR_PREFIX "SCHILY.xattr."
#define SPARSE_PREFIX "GNU.sparse."

/* Archivers call it so; nobody unpacks it. */
#define PAX_HEADER_NAME "././@PaxHeader"

static struct tar_text text_of(const uint8_t* block, struct field field) {
  const char* bytes = (const char*)block + field.offset;
  return (struct tar_text){bytes, strnlen(bytes, field.length)};
}

static struct tar_text literal(const char* string) {
  return (struct tar_text){string, strlen(string)};
}

static bool starts_with(struct tar_text text, const char* prefix) {
  size_t length = strlen(prefix);
  return text.length >= length && memcmp(text.bytes, prefix, length) == 0;
}

static bool equals(struct tar_text text, const char* string) {
  return text.length == strlen(string) && memcmp(text.bytes, string, text.length) == 0;
}

/* GNU's base-256: big-endian two's complement, the top bit of the first byte set as a mark. */
static bool parse_base256(const uint8_t* bytes, uint32_t length, int64_t* number) {
  bool negative = (bytes[0] & 0x40u) != 0;
  uint64_t value = negative ? UINT64_MAX : 0;
  for (uint32_t i = 0; i < length; i++) {
    uint64_t byte = bytes[i];
    if (i == 0) byte = negative ? (byte | 0x80u) : (byte & 0x7fu);
    /* What is shifted out must only repeat the sign. */
    if (value >> 55 != (negative ? 0x1ffu : 0u)) return false;
    value = value << 8 | byte;
  }
  memcpy(number, &value, sizeof *number);
  return true;
}

static bool is_padding(uint8_t byte) {
  return byte == ' ' || byte == '\0';
}

static bool parse_number(const uint8_t* block, struct field field, int64_t* number) {
  const uint8_t* bytes = block + field.offset;
  if ((bytes[0] & 0x80u) != 0) return parse_base256(bytes, field.length, number);
  uint32_t at = 0;
  while (at < field.length && is_padding(bytes[at])) at++;
  int64_t value = 0; /* at most 12 digits of 3 bits: no overflow */
  for (; at < field.length && bytes[at] >= '0' && bytes[at] <= '7'; at++) {
    value = value * 8 + (bytes[at] - '0');
  }
  /* Behind a 0 byte there may be anything. */
  while (at < field.length && bytes[at] == ' ') at++;
  *number = value;
  return at == field.length || bytes[at] == '\0';
}

bool tar_block_is_zero(const uint8_t block[TAR_BLOCK_SIZE]) {
  return block[0] == 0 && memcmp(block, block + 1, TAR_BLOCK_SIZE - 1) == 0;
}

/* Old archivers summed signed bytes. */
static bool checksum_matches(const uint8_t* block) {
  int64_t expected = 0;
  if (!parse_number(block, field_checksum, &expected)) return false;
  int64_t unsigned_sum = 0;
  int64_t signed_sum = 0;
  for (uint32_t i = 0; i < TAR_BLOCK_SIZE; i++) {
    uint8_t byte = i - field_checksum.offset < field_checksum.length ? (uint8_t)' ' : block[i];
    unsigned_sum += byte;
    signed_sum += (int8_t)byte;
  }
  return expected == unsigned_sum || expected == signed_sum;
}

const char* tar_parse_header(const uint8_t block[TAR_BLOCK_SIZE],
                             char short_name[TAR_SHORT_NAME_MAX], struct tar_header* header) {
  memset(header, 0, sizeof *header);
  if (!checksum_matches(block)) return "has a header whose checksum is wrong";
  header->type = (char)block[field_type.offset];
  header->name = text_of(block, field_name);
  header->link = text_of(block, field_link);
  bool is_gnu = memcmp(block + field_magic.offset, GNU_MAGIC, field_magic.length) == 0;
  bool is_ustar = memcmp(block + field_magic.offset, USTAR_MAGIC, sizeof USTAR_MAGIC - 1) == 0;
  struct tar_text prefix = text_of(block, field_prefix);
  if (is_ustar && prefix.length > 0) {
    memcpy(short_name, prefix.bytes, prefix.length);
    short_name[prefix.length] = '/';
    memcpy(short_name + prefix.length + 1, header->name.bytes, header->name.length);
    header->name = (struct tar_text){short_name, prefix.length + 1 + header->name.length};
  }
  if (!parse_number(block, field_mode, &header->mode) ||
      !parse_number(block, field_user, &header->user) ||
      !parse_number(block, field_group, &header->group) ||
      !parse_number(block, field_size, &header->size) ||
      !parse_number(block, field_mtime, &header->seconds)) {
    return "has a header with a field that is not a number";
  }
  bool is_device = header->type == TAR_CHARACTER_DEVICE || header->type == TAR_BLOCK_DEVICE;
  if (is_device && (is_gnu || is_ustar) &&
      (!parse_number(block, field_major, &header->major) ||
       !parse_number(block, field_minor, &header->minor))) {
    return "has a header with a device number that is not a number";
  }
  if (header->size < 0) return "has a header with a negative size";
  if (header->type == '\0') {
    /* Before POSIX a directory had nothing but this slash. */
    size_t length = header->name.length;
    bool is_directory = length > 0 && header->name.bytes[length - 1] == '/';
    header->type = is_directory ? TAR_DIRECTORY : TAR_REGULAR;
  }
  return NULL;
}

bool tar_has_content(char type) {
  return type < TAR_HARD_LINK || type > TAR_FIFO;
}

/* Digits alone, with a minus where `number` may be negative. */
static bool parse_decimal(struct tar_text text, int64_t* number) {
  bool negative = text.length > 0 && text.bytes[0] == '-';
  size_t at = negative ? 1 : 0;
  if (at == text.length) return false;
  int64_t value = 0;
  for (; at < text.length; at++) {
    int digit = text.bytes[at] - '0';
    if (digit < 0 || digit > 9) return false;
    if (__builtin_mul_overflow(value, 10, &value)) return false;
    if (__builtin_sub_overflow(value, digit, &value)) return false;
  }
  /* Counted downwards, for there is one more negative number. */
  if (!negative && __builtin_sub_overflow((int64_t)0, value, &value)) return false;
  *number = value;
  return true;
}

/* Seconds and a fraction, of which nine digits count. */
static bool parse_time(struct tar_text text, int64_t* seconds, uint32_t* nanoseconds) {
  const char* point = text.length == 0 ? NULL : memchr(text.bytes, '.', text.length);
  struct tar_text whole = {text.bytes, point == NULL ? text.length : (size_t)(point - text.bytes)};
  if (!parse_decimal(whole, seconds)) return false;
  *nanoseconds = 0;
  if (point == NULL) return true;
  uint32_t fraction = 0;
  uint32_t digits = 0;
  for (size_t at = whole.length + 1; at < text.length; at++) {
    int digit = text.bytes[at] - '0';
    if (digit < 0 || digit > 9) return false;
    if (digits < 9) fraction = fraction * 10 + (uint32_t)digit;
    if (digits < 9) digits++;
  }
  for (; digits < 9; digits++) fraction *= 10;
  if (text.bytes[0] == '-' && fraction > 0) {
    if (__builtin_sub_overflow(*seconds, 1, seconds)) return false;
    fraction = 1000000000u - fraction;
  }
  *nanoseconds = fraction;
  return true;
}

/* "LENGTH KEY=VALUE\n", where the length counts the whole record. */
const char* tar_next_record(struct tar_text* rest, struct tar_record* record) {
  static const char malformed[] = "has an extended header with a malformed record";
  const char* blank = memchr(rest->bytes, ' ', rest->length);
  int64_t length = 0;
  if (blank == NULL) return malformed;
  size_t digits = (size_t)(blank - rest->bytes);
  if (!parse_decimal((struct tar_text){rest->bytes, digits}, &length) || length < 0) {
    return malformed;
  }
  size_t size = (size_t)length;
  if (size > rest->length || size < digits + 2 || rest->bytes[size - 1] != '\n') return malformed;
  const char* key = blank + 1;
  const char* end = rest->bytes + size - 1;
  const char* sign = memchr(key, '=', (size_t)(end - key));
  if (sign == NULL || sign == key) return malformed;
  record->key = (struct tar_text){key, (size_t)(sign - key)};
  record->value = (struct tar_text){sign + 1, (size_t)(end - sign) - 1};
  rest->bytes += size;
  rest->length -= size;
  return NULL;
}

struct tar_text tar_xattr_name(const struct tar_record* record) {
  size_t prefix = sizeof XATTR_PREFIX - 1;
  if (!starts_with(record->key, XATTR_PREFIX)) return (struct tar_text){record->key.bytes, 0};
  return (struct tar_text){record->key.bytes + prefix, record->key.length - prefix};
}

static const char* apply_record(const struct tar_record* record, struct tar_header* header) {
  struct tar_text key = record->key;
  struct tar_text value = record->value;
  if (starts_with(key, SPARSE_PREFIX)) return "has a sparse file, which is not supported";
  /* "A zero-length value deletes": the header's own field counts. */
  if (value.length == 0) return NULL;
  bool parsed = true;
  if (equals(key, "path")) {
    header->name = value;
  } else if (equals(key, "linkpath")) {
    header->link = value;
  } else if (equals(key, "uid")) {
    parsed = parse_decimal(value, &header->user);
  } else if (equals(key, "gid")) {
    parsed = parse_decimal(value, &header->group);
  } else if (equals(key, "size")) {
    parsed = parse_decimal(value, &header->size) && header->size >= 0;
  } else if (equals(key, "mtime")) {
    parsed = parse_time(value, &header->seconds, &header->nanoseconds);
  }
  return parsed ? NULL : "has an extended header with a number that is none";
}

const char* tar_apply_pax(struct tar_text records, struct tar_header* header) {
  while (records.length > 0) {
    struct tar_record record;
    const char* wrong = tar_next_record(&records, &record);
    if (wrong == NULL) wrong = apply_record(&record, header);
    if (wrong != NULL) return wrong;
  }
  return NULL;
}

const char* tar_normalise_name(struct tar_text name, char* path, size_t capacity) {
  if (name.length == 0) return "is empty";
  if (name.bytes[0] == '/') return "is absolute";
  if (memchr(name.bytes, '\0', name.length) != NULL) return "contains a zero byte";
  size_t used = 0;
  size_t at = 0;
  while (at < name.length) {
    const char* part = name.bytes + at;
    const char* slash = memchr(part, '/', name.length - at);
    size_t length = slash == NULL ? name.length - at : (size_t)(slash - part);
    at += length + 1;
    if (length == 0 || (length == 1 && part[0] == '.')) continue;
    if (length == 2 && part[0] == '.' && part[1] == '.') return "contains \"..\"";
    /* A slash in front and a 0 byte behind. */
    if (length + 2 > capacity - used) return "is too long";
    if (used > 0) path[used++] = '/';
    memcpy(path + used, part, length);
    used += length;
  }
  path[used] = '\0';
  return NULL;
}

static uint32_t count_digits(size_t number) {
  uint32_t digits = 1;
  for (; number >= 10; number /= 10) digits++;
  return digits;
}

bool tar_append_record(struct tar_records* records, struct tar_text key, struct tar_text value) {
  size_t without_length = key.length + value.length + 3; /* blank, equals sign, newline */
  /* The number counts its own digits, which can make it one longer. */
  size_t size = without_length + count_digits(without_length);
  size = without_length + count_digits(size);
  if (size >= records->capacity - records->used) return false;
  char* to = records->bytes + records->used;
  to += sprintf(to, "%zu ", size);
  memcpy(to, key.bytes, key.length);
  to += key.length;
  *to++ = '=';
  if (value.length > 0) memcpy(to, value.bytes, value.length);
  to += value.length;
  *to = '\n';
  records->used += size;
  return true;
}

bool tar_append_xattr(struct tar_records* records, const char* name, struct tar_text value) {
  char key[sizeof XATTR_PREFIX + 256]; /* XATTR_NAME_MAX is 255 */
  int length = snprintf(key, sizeof key, XATTR_PREFIX "%s", name);
  if (length >= (int)sizeof key) return false;
  return tar_append_record(records, (struct tar_text){key, (size_t)length}, value);
}

/* Octal digits and a 0 byte have to fit. */
static bool fits(int64_t number, struct field field) {
  return number >= 0 && number >> (3 * (field.length - 1)) == 0;
}

static bool append_number(struct tar_records* records, const char* key, int64_t number) {
  char digits[24];
  snprintf(digits, sizeof digits, "%lld", (long long)number);
  return tar_append_record(records, literal(key), literal(digits));
}

static bool append_time(struct tar_records* records, const struct tar_header* header) {
  int64_t seconds = header->seconds;
  uint32_t fraction = header->nanoseconds;
  if (fraction == 0) return append_number(records, "mtime", seconds);
  const char* sign = seconds < 0 ? "-" : "";
  if (seconds < 0) {
    /* -2 seconds and 0.75 are written as -1.25. */
    seconds = -(seconds + 1);
    fraction = 1000000000u - fraction;
  }
  char text[40];
  snprintf(text, sizeof text, "%s%lld.%09u", sign, (long long)seconds, fraction);
  return tar_append_record(records, literal("mtime"), literal(text));
}

bool tar_append_needed(struct tar_records* records, const struct tar_header* header) {
  bool done = true;
  if (header->name.length > field_name.length) {
    done = tar_append_record(records, literal("path"), header->name);
  }
  if (header->link.length > field_link.length) {
    done = done && tar_append_record(records, literal("linkpath"), header->link);
  }
  if (!fits(header->size, field_size)) {
    done = done && append_number(records, "size", header->size);
  }
  if (!fits(header->user, field_user)) {
    done = done && append_number(records, "uid", header->user);
  }
  if (!fits(header->group, field_group)) {
    done = done && append_number(records, "gid", header->group);
  }
  if (header->nanoseconds != 0 || !fits(header->seconds, field_mtime)) {
    done = done && append_time(records, header);
  }
  return done;
}

static void write_text(uint8_t* block, struct field field, struct tar_text text) {
  size_t length = text.length < field.length ? text.length : field.length;
  if (length > 0) memcpy(block + field.offset, text.bytes, length);
}

static void write_number(uint8_t* block, struct field field, int64_t number) {
  if (!fits(number, field)) number = 0; /* a record says it */
  char digits[24];
  snprintf(digits, sizeof digits, "%0*llo", (int)field.length - 1, (unsigned long long)number);
  memcpy(block + field.offset, digits, field.length);
}

void tar_write_header(uint8_t block[TAR_BLOCK_SIZE], const struct tar_header* header) {
  memset(block, 0, TAR_BLOCK_SIZE);
  write_text(block, field_name, header->name);
  write_number(block, field_mode, header->mode);
  write_number(block, field_user, header->user);
  write_number(block, field_group, header->group);
  write_number(block, field_size, header->size);
  write_number(block, field_mtime, header->seconds);
  block[field_type.offset] = (uint8_t)header->type;
  write_text(block, field_link, header->link);
  memcpy(block + field_magic.offset, USTAR_MAGIC_AND_VERSION, field_magic.length);
  write_number(block, field_major, header->major);
  write_number(block, field_minor, header->minor);
  memset(block + field_checksum.offset, ' ', field_checksum.length);
  uint32_t sum = 0;
  for (uint32_t i = 0; i < TAR_BLOCK_SIZE; i++) sum += block[i];
  /* Six digits, a 0 byte, and the blank that is there. */
  write_number(block, (struct field){field_checksum.offset, 7}, sum);
}

void tar_write_pax_header(uint8_t block[TAR_BLOCK_SIZE], size_t size) {
  struct tar_header header = {.type = TAR_PAX,
                              .name = literal(PAX_HEADER_NAME),
                              .link = literal(""),
                              .mode = 0644,
                              .size = (int64_t)size};
  tar_write_header(block, &header);
}

uint32_t tar_padding(uint64_t size) {
  return (uint32_t)(-size % TAR_BLOCK_SIZE);
}
