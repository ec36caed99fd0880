/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/file_request.h"

#include <errno.h>
#include <string.h>

/* Which fields a type knows. */
#define HAS_MODE 1u
#define HAS_OWNER 2u
#define HAS_OFFSET 4u
#define HAS_LENGTH 8u

struct request_kind {
  const char* name;
  uint32_t flags;
  uint32_t fields;
  uint32_t paths;
};

static const struct request_kind kinds[] = {
    [MSB_FILE_STAT - MSB_FILE_STAT] = {"STAT", MSB_FILE_FOLLOW, 0, 1},
    [MSB_FILE_LIST - MSB_FILE_STAT] = {"LIST", 0, 0, 1},
    [MSB_FILE_WALK - MSB_FILE_STAT] = {"WALK", 0, HAS_LENGTH, 1},
    [MSB_FILE_READ - MSB_FILE_STAT] = {"READ", 0, HAS_OFFSET | HAS_LENGTH, 1},
    [MSB_FILE_WRITE - MSB_FILE_STAT] = {"WRITE",
                                        MSB_FILE_PARENTS | MSB_FILE_ATOMIC | MSB_FILE_APPEND |
                                            MSB_FILE_EXCLUSIVE | MSB_FILE_UPDATE | MSB_FILE_SYNC,
                                        HAS_MODE | HAS_OWNER | HAS_OFFSET, 1},
    [MSB_FILE_MKDIR - MSB_FILE_STAT] = {"MKDIR", MSB_FILE_PARENTS, HAS_MODE | HAS_OWNER, 1},
    [MSB_FILE_REMOVE - MSB_FILE_STAT] = {"REMOVE", MSB_FILE_RECURSIVE | MSB_FILE_MISSING_OK, 0, 1},
    [MSB_FILE_RENAME - MSB_FILE_STAT] = {"RENAME", MSB_FILE_EXCLUSIVE, 0, 2},
    /* chmod(2) follows, as no mode of a symbolic link can be changed: with FOLLOW or without. */
    [MSB_FILE_CHMOD - MSB_FILE_STAT] = {"CHMOD", MSB_FILE_FOLLOW | MSB_FILE_RECURSIVE, HAS_MODE, 1},
    [MSB_FILE_CHOWN -
        MSB_FILE_STAT] = {"CHOWN", MSB_FILE_FOLLOW | MSB_FILE_RECURSIVE, HAS_OWNER, 1},
    [MSB_FILE_SYMLINK - MSB_FILE_STAT] = {"SYMLINK", 0, HAS_OWNER, 2},
    [MSB_FILE_READLINK - MSB_FILE_STAT] = {"READLINK", 0, 0, 1},
    [MSB_FILE_PACK - MSB_FILE_STAT] = {"PACK", 0, 0, 1},
    [MSB_FILE_UNPACK - MSB_FILE_STAT] = {"UNPACK", MSB_FILE_PARENTS | MSB_FILE_SYNC, HAS_OWNER, 1},
    [MSB_FILE_DIFF - MSB_FILE_STAT] = {"DIFF", 0, 0, 1},
};

bool file_request_is_type(uint32_t type) {
  return type >= MSB_FILE_STAT && type - MSB_FILE_STAT < sizeof kinds / sizeof *kinds &&
         kinds[type - MSB_FILE_STAT].name != NULL;
}

static bool is_unnamed_owner(uint32_t owner) {
  return owner == 0 || owner == UINT32_MAX;
}

static bool check_fields(const struct request_kind* kind, const struct msb_file_request* fields,
                         struct failure* failure) {
  const uint32_t stage = MSB_STAGE_REQUEST;
  if ((fields->flags & ~kind->flags) != 0) {
    return fail(failure, stage, EINVAL, "%s: unknown flags 0x%x", kind->name,
                fields->flags & ~kind->flags);
  }
  if (fields->mode > ((kind->fields & HAS_MODE) != 0 ? 07777u : 0u)) {
    return fail(failure, stage, EINVAL, "%s: mode 0%o", kind->name, fields->mode);
  }
  if ((kind->fields & HAS_OWNER) == 0 &&
      !(is_unnamed_owner(fields->user) && is_unnamed_owner(fields->group))) {
    return fail(failure, stage, EINVAL, "%s: takes no owner", kind->name);
  }
  if (fields->offset != 0 &&
      ((kind->fields & HAS_OFFSET) == 0 || fields->offset > (uint64_t)INT64_MAX)) {
    return fail(failure, stage, EINVAL, "%s: offset %llu", kind->name,
                (unsigned long long)fields->offset);
  }
  if (fields->length != 0 && (kind->fields & HAS_LENGTH) == 0) {
    return fail(failure, stage, EINVAL, "%s: length %llu", kind->name,
                (unsigned long long)fields->length);
  }
  return true;
}

static bool check_write(const struct msb_file_request* fields, struct failure* failure) {
  /* Whether the file is replaced, added to or changed in place: each excludes the others. */
  uint32_t how = fields->flags & (MSB_FILE_ATOMIC | MSB_FILE_APPEND | MSB_FILE_UPDATE);
  if ((how & (how - 1)) != 0) {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL,
                "WRITE: ATOMIC, APPEND and UPDATE exclude each other");
  }
  if (fields->offset != 0 && (fields->flags & MSB_FILE_UPDATE) == 0) {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL, "WRITE: an offset without UPDATE");
  }
  return true;
}

bool file_request_parse(uint32_t type, const uint8_t* payload, size_t length,
                        struct file_request* request, struct failure* failure) {
  memset(request, 0, sizeof *request);
  request->type = type;
  memcpy(&request->fields, payload, sizeof request->fields);
  const struct request_kind* kind = &kinds[type - MSB_FILE_STAT];
  if (!check_fields(kind, &request->fields, failure)) return false;
  if (type == MSB_FILE_WRITE && !check_write(&request->fields, failure)) return false;

  const char* next = (const char*)payload + sizeof request->fields;
  const char* end = (const char*)payload + length;
  const char* paths[2] = {NULL, NULL};
  for (uint32_t i = 0; i < kind->paths; i++) {
    const char* terminator = memchr(next, '\0', (size_t)(end - next));
    if (terminator == NULL) {
      return fail(failure, MSB_STAGE_REQUEST, EINVAL, "%s: a path is missing", kind->name);
    }
    bool is_target = type == MSB_FILE_SYMLINK && i == 0;
    if (*next != '/' && !is_target) {
      return fail(failure, MSB_STAGE_REQUEST, EINVAL, "%s: the path \"%.200s\" is not absolute",
                  kind->name, next);
    }
    paths[i] = next;
    next = terminator + 1;
  }
  if (next != end) {
    return fail(failure, MSB_STAGE_REQUEST, EINVAL, "%s: bytes after the last path", kind->name);
  }
  request->path = paths[0];
  request->new_path = paths[1];
  return true;
}

bool file_request_has_data(uint32_t type) {
  return type == MSB_FILE_WRITE || type == MSB_FILE_UNPACK;
}
