/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/user.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* A longer line of the files is passed over: a group of some thousand members. */
#define LINE_MAX_BYTES 65536

#define NAME_MAX_BYTES 256

/* Fields of a line in passwd(5) and group(5). */
enum { PASSWD_NAME = 0, PASSWD_USER = 2, PASSWD_GROUP = 3, PASSWD_HOME = 5, PASSWD_FIELDS = 7 };
enum { GROUP_NAME = 0, GROUP_NUMBER = 2, GROUP_MEMBERS = 3, GROUP_FIELDS = 4 };

struct entry {
  char* fields[PASSWD_FIELDS];
};

static char line[LINE_MAX_BYTES];

/* All of `text` as a number; no sign, no space. The largest one means "leave it" to setresuid(2),
 * and is nobody's. */
static bool parse_number(const char* text, uint32_t* number) {
  uint64_t value = 0;
  if (*text == '\0') return false;
  for (; *text != '\0'; text++) {
    if (*text < '0' || *text > '9') return false;
    value = value * 10 + (uint64_t)(*text - '0');
    if (value >= UINT32_MAX) return false;
  }
  *number = (uint32_t)value;
  return true;
}

static bool is_number(const char* text) {
  return *text != '\0' && text[strspn(text, "0123456789")] == '\0';
}

/* The next line that has `count` fields at least. False at the end of the file. */
static bool next_entry(FILE* file, size_t count, struct entry* entry) {
  bool whole = true; /* the last piece ended a line */
  while (fgets(line, sizeof line, file) != NULL) {
    bool begins = whole;
    char* end = strchr(line, '\n');
    whole = end != NULL || feof(file);
    if (!begins || !whole) continue;
    if (end != NULL) *end = '\0';
    size_t found = 0;
    char* next = line;
    while (next != NULL && found < count) entry->fields[found++] = strsep(&next, ":");
    if (found == count) return true;
  }
  return false;
}

/* A missing file has no entries. */
static int open_file(const char* path, FILE** file) {
  *file = fopen(path, "re");
  return *file != NULL || errno == ENOENT ? 0 : errno;
}

/*
 * Looks for a user by name, or by number when `name` is NULL. Fills in what the entry says, and its
 * name into `found`, which is empty without one.
 */
static int find_entry(const char* path, const char* name, uint32_t number, struct user* user,
                      char found[NAME_MAX_BYTES]) {
  found[0] = '\0';
  FILE* file;
  int code = open_file(path, &file);
  if (file == NULL) return code;
  struct entry entry;
  while (next_entry(file, PASSWD_FIELDS - 1, &entry)) {
    uint32_t id;
    uint32_t group;
    if (!parse_number(entry.fields[PASSWD_USER], &id) ||
        !parse_number(entry.fields[PASSWD_GROUP], &group) ||
        (name != NULL ? strcmp(entry.fields[PASSWD_NAME], name) != 0 : id != number)) {
      continue;
    }
    user->id = id;
    user->group = group;
    snprintf(found, NAME_MAX_BYTES, "%s", entry.fields[PASSWD_NAME]);
    if (*entry.fields[PASSWD_HOME] != '\0') {
      snprintf(user->home, sizeof user->home, "%s", entry.fields[PASSWD_HOME]);
    }
    break;
  }
  fclose(file);
  return 0;
}

static int find_group(const char* path, const char* name, gid_t* group) {
  uint32_t number;
  if (is_number(name)) {
    if (!parse_number(name, &number)) return EINVAL;
    *group = number;
    return 0;
  }
  FILE* file;
  int code = open_file(path, &file);
  if (file == NULL) return code == 0 ? ENOENT : code;
  code = ENOENT;
  struct entry entry;
  while (code != 0 && next_entry(file, GROUP_FIELDS - 1, &entry)) {
    if (strcmp(entry.fields[GROUP_NAME], name) == 0 &&
        parse_number(entry.fields[GROUP_NUMBER], &number)) {
      *group = number;
      code = 0;
    }
  }
  fclose(file);
  return code;
}

static int add_group(struct user* user, gid_t group) {
  for (size_t i = 0; i < user->group_count; i++) {
    if (user->groups[i] == group) return 0;
  }
  if (user->group_count == USER_GROUPS_MAX) return E2BIG;
  user->groups[user->group_count++] = group;
  return 0;
}

static bool is_member(char* members, const char* name) {
  while (members != NULL) {
    if (strcmp(strsep(&members, ","), name) == 0) return true;
  }
  return false;
}

/* The groups that name this user as a member, as initgroups(3) finds them. */
static int add_groups_of(const char* path, const char* name, struct user* user) {
  FILE* file;
  int code = open_file(path, &file);
  if (file == NULL) return code;
  struct entry entry;
  while (code == 0 && next_entry(file, GROUP_FIELDS, &entry)) {
    uint32_t number;
    if (parse_number(entry.fields[GROUP_NUMBER], &number) &&
        is_member(entry.fields[GROUP_MEMBERS], name)) {
      code = add_group(user, number);
    }
  }
  fclose(file);
  return code;
}

static int find_user(const char* path, const char* name, struct user* user,
                     char found[NAME_MAX_BYTES]) {
  uint32_t number = 0;
  if (*name == '\0' || is_number(name)) {
    if (*name != '\0' && !parse_number(name, &number)) return EINVAL;
    user->id = number;
    return find_entry(path, NULL, number, user, found);
  }
  int code = find_entry(path, name, 0, user, found);
  if (code == 0 && found[0] == '\0') return ENOENT;
  return code;
}

int user_find(const struct user_files* files, const char* name, char* const* groups,
              struct user* user, unsigned* part) {
  memset(user, 0, sizeof *user);
  strcpy(user->home, "/");
  const char* group = strchr(name, ':');
  size_t length = group == NULL ? strlen(name) : (size_t)(group - name);
  char user_name[NAME_MAX_BYTES];
  char found[NAME_MAX_BYTES];
  *part = USER_PART_USER;
  if (length >= sizeof user_name) return ENOENT;
  memcpy(user_name, name, length);
  user_name[length] = '\0';
  int code = find_user(files->passwd, user_name, user, found);
  if (code != 0) return code;

  *part = USER_PART_GROUP;
  if (group != NULL) code = find_group(files->group, group + 1, &user->group);
  if (code != 0) return code;
  /* The kernel looks for the group of a file among these too: a group that a file's mode shuts out
   * must not be shed by leaving it out here (CVE-2022-2995). */
  add_group(user, user->group);
  if (*groups == NULL && group == NULL && found[0] != '\0') {
    return add_groups_of(files->group, found, user);
  }
  for (unsigned i = 0; groups[i] != NULL; i++) {
    gid_t number;
    *part = USER_PART_GROUPS + i;
    code = find_group(files->group, groups[i], &number);
    if (code == 0) code = add_group(user, number);
    if (code != 0) return code;
  }
  return 0;
}
