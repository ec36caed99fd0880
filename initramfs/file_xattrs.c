/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/file_xattrs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/types.h>
#include <sys/xattr.h>
#include <unistd.h>

static char names[XATTR_LIST_MAX];
static char value[XATTR_SIZE_MAX];

static ssize_t list_names(const struct file_node* node) {
  return node->descriptor >= 0 ? flistxattr(node->descriptor, names, sizeof names)
                               : llistxattr(node->name, names, sizeof names);
}

static ssize_t get_value(const struct file_node* node, const char* name) {
  return node->descriptor >= 0 ? fgetxattr(node->descriptor, name, value, sizeof value)
                               : lgetxattr(node->name, name, value, sizeof value);
}

static int set_value(const struct file_node* node, const char* name, struct tar_text text) {
  return node->descriptor >= 0 ? fsetxattr(node->descriptor, name, text.bytes, text.length, 0)
                               : lsetxattr(node->name, name, text.bytes, text.length, 0);
}

static bool enter_directory(const struct file_node* node) {
  return node->descriptor >= 0 || node->directory == AT_FDCWD || fchdir(node->directory) == 0;
}

int file_xattrs_read(const struct file_node* node, struct tar_records* records) {
  if (!enter_directory(node)) return errno;
  ssize_t length = list_names(node);
  if (length < 0) return errno == EOPNOTSUPP ? 0 : errno;
  for (const char* name = names; name < names + length; name += strlen(name) + 1) {
    ssize_t size = get_value(node, name);
    /* Removed since. */
    if (size < 0 && errno == ENODATA) continue;
    if (size < 0) return errno;
    if (!tar_append_xattr(records, name, (struct tar_text){value, (size_t)size})) return E2BIG;
  }
  return 0;
}

static bool is_of_linux(const char* name) {
  static const char* const namespaces[] = {"user.", "trusted.", "security.", "system."};
  for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++) {
    if (strncmp(name, namespaces[i], strlen(namespaces[i])) == 0) return true;
  }
  return false;
}

int file_xattrs_write(const struct file_node* node, struct tar_text records) {
  bool entered = false;
  while (records.length > 0) {
    struct tar_record record;
    if (tar_next_record(&records, &record) != NULL) return EINVAL;
    struct tar_text key = tar_xattr_name(&record);
    if (key.length == 0) continue;
    char name[XATTR_NAME_MAX + 1];
    if (key.length > XATTR_NAME_MAX) return ERANGE;
    memcpy(name, key.bytes, key.length);
    name[key.length] = '\0';
    if (!is_of_linux(name)) continue;
    if (!entered && !enter_directory(node)) return errno;
    entered = true;
    if (set_value(node, name, record.value) != 0) return errno;
  }
  return 0;
}
