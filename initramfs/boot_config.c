/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/boot_config.h"

#include <errno.h>
#include <string.h>

#include "protocol/msb_boot.h"
#include "protocol/msb_exec.h"

/* A layer stays below the virtio-fs root: relative, and without a "..". */
static bool is_inside(const char* path) {
  if (*path == '/' || *path == '\0') return false;
  for (const char* part = path; part != NULL; part = strchr(part, '/')) {
    if (*part == '/') part++;
    if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0')) return false;
  }
  return true;
}

static bool parse_hostname(const char* value, unsigned line, struct boot_config* config,
                           struct failure* failure) {
  size_t length = strlen(value);
  if (config->hostname != NULL) {
    return fail(failure, MSB_STAGE_BOOT, EINVAL, "boot file, line %u: a second hostname", line);
  }
  if (length == 0 || length > MSB_BOOT_HOSTNAME_MAX || strpbrk(value, " \t/") != NULL) {
    return fail(failure, MSB_STAGE_BOOT, EINVAL, "boot file, line %u: not a hostname", line);
  }
  config->hostname = value;
  return true;
}

static bool parse_processes(const char* value, unsigned line, struct boot_config* config,
                            struct failure* failure) {
  if (config->processes != 0) {
    return fail(failure, MSB_STAGE_BOOT, EINVAL, "boot file, line %u: a second \"processes\"",
                line);
  }
  uint32_t count = 0;
  size_t length = strlen(value);
  for (size_t i = 0; i < length && count <= MSB_BOOT_PROCESSES_MAX; i++) {
    bool digit = value[i] >= '0' && value[i] <= '9';
    count = digit ? count * 10 + (uint32_t)(value[i] - '0') : UINT32_MAX;
  }
  if (count < MSB_BOOT_PROCESSES_MIN || count > MSB_BOOT_PROCESSES_MAX) {
    return fail(failure, MSB_STAGE_BOOT, EINVAL,
                "boot file, line %u: the number of processes is not %u to %u", line,
                MSB_BOOT_PROCESSES_MIN, MSB_BOOT_PROCESSES_MAX);
  }
  config->processes = count;
  return true;
}

static bool parse_upper(const char* value, unsigned line, struct boot_config* config,
                        struct failure* failure) {
  bool is_disk = strlen(value) == 3 && value[0] == 'v' && value[1] == 'd' && value[2] >= 'a' &&
                 value[2] <= 'z';
  if (config->upper != NULL || !is_disk) {
    return fail(failure, MSB_STAGE_BOOT, EINVAL,
                "boot file, line %u: there is one writable layer, on \"vda\" to \"vdz\"", line);
  }
  config->upper = value;
  return true;
}

static bool parse_layer(const char* value, unsigned line, struct boot_config* config,
                        struct failure* failure) {
  if (!is_inside(value)) {
    return fail(failure, MSB_STAGE_BOOT, EINVAL,
                "boot file, line %u: a layer's path is relative and has no \"..\"", line);
  }
  if (config->layer_count == BOOT_LAYERS_MAX) {
    return fail(failure, MSB_STAGE_BOOT, E2BIG, "boot file, line %u: more than %u layers", line,
                BOOT_LAYERS_MAX);
  }
  config->layers[config->layer_count++] = value;
  return true;
}

static bool parse_root(const char* value, unsigned line, struct boot_config* config,
                       struct failure* failure) {
  if (config->root != NULL || !is_inside(value)) {
    return fail(failure, MSB_STAGE_BOOT, EINVAL,
                "boot file, line %u: there is one root, whose path is relative and has no \"..\"",
                line);
  }
  config->root = value;
  return true;
}

/* "rw PATH TARGET" */
static bool parse_share(char* value, unsigned line, struct boot_config* config,
                        struct failure* failure) {
  char* path = strchr(value, ' ');
  char* target = path == NULL ? NULL : strchr(path + 1, ' ');
  if (target == NULL) {
    return fail(failure, MSB_STAGE_BOOT, EINVAL,
                "boot file, line %u: a share has a mode, a path and a target", line);
  }
  *path++ = '\0';
  *target++ = '\0';
  bool read_only = strcmp(value, "ro") == 0;
  if (!read_only && strcmp(value, "rw") != 0) {
    return fail(failure, MSB_STAGE_BOOT, EINVAL, "boot file, line %u: a share is \"rw\" or \"ro\"",
                line);
  }
  if (!is_inside(path) || *target != '/') {
    return fail(failure, MSB_STAGE_BOOT, EINVAL,
                "boot file, line %u: a share's path is relative and has no \"..\", and its target "
                "is absolute",
                line);
  }
  if (config->share_count == BOOT_SHARES_MAX) {
    return fail(failure, MSB_STAGE_BOOT, E2BIG, "boot file, line %u: more than %u shares", line,
                BOOT_SHARES_MAX);
  }
  config->shares[config->share_count++] =
      (struct boot_share){.read_only = read_only, .path = path, .target = target};
  return true;
}

static bool parse_volume(const char* value, unsigned line, struct boot_config* config,
                         struct failure* failure) {
  if (*value != '/') {
    return fail(failure, MSB_STAGE_BOOT, EINVAL, "boot file, line %u: a volume's path is absolute",
                line);
  }
  if (config->volume_count == BOOT_VOLUMES_MAX) {
    return fail(failure, MSB_STAGE_BOOT, E2BIG, "boot file, line %u: more than %u volumes", line,
                BOOT_VOLUMES_MAX);
  }
  config->volumes[config->volume_count++] = value;
  return true;
}

static bool parse_line(char* text, unsigned line, struct boot_config* config,
                       struct failure* failure) {
  if (line == 1) {
    if (strcmp(text, MSB_BOOT_MAGIC) == 0) return true;
    return fail(failure, MSB_STAGE_BOOT, EINVAL, "boot file: its first line is not \"%s\"",
                MSB_BOOT_MAGIC);
  }
  char* space = strchr(text, ' ');
  if (space == NULL) {
    return fail(failure, MSB_STAGE_BOOT, EINVAL, "boot file, line %u: no value", line);
  }
  *space = '\0';
  char* value = space + 1;
  if (strcmp(text, "hostname") == 0) return parse_hostname(value, line, config, failure);
  if (strcmp(text, "processes") == 0) return parse_processes(value, line, config, failure);
  if (strcmp(text, "upper") == 0) return parse_upper(value, line, config, failure);
  if (strcmp(text, "layer") == 0) return parse_layer(value, line, config, failure);
  if (strcmp(text, "root") == 0) return parse_root(value, line, config, failure);
  if (strcmp(text, "share") == 0) return parse_share(value, line, config, failure);
  if (strcmp(text, "volume") == 0) return parse_volume(value, line, config, failure);
  boot_network_parser parse = boot_network_parser_of(text);
  if (parse != NULL) return parse(value, line, &config->network, failure);
  return fail(failure, MSB_STAGE_BOOT, EINVAL, "boot file, line %u: unknown key \"%.32s\"", line,
              text);
}

bool boot_config_parse(char* text, size_t length, struct boot_config* config,
                       struct failure* failure) {
  config->hostname = NULL;
  config->processes = 0;
  config->upper = NULL;
  config->layer_count = 0;
  config->root = NULL;
  config->share_count = 0;
  config->volume_count = 0;
  memset(&config->network, 0, sizeof config->network);
  if (length > MSB_BOOT_MAX) {
    return fail(failure, MSB_STAGE_BOOT, E2BIG, "boot file: larger than %u bytes", MSB_BOOT_MAX);
  }
  if (memchr(text, '\0', length) != NULL) {
    return fail(failure, MSB_STAGE_BOOT, EINVAL, "boot file: contains a NUL byte");
  }
  text[length] = '\0';
  unsigned line = 0;
  char* next = text;
  while (*next != '\0' || line == 0) {
    char* end = next + strcspn(next, "\n");
    bool last = *end == '\0';
    *end = '\0';
    if (!parse_line(next, ++line, config, failure)) return false;
    next = last ? end : end + 1;
  }
  if ((config->layer_count == 0) == (config->root == NULL)) {
    return fail(
        failure, MSB_STAGE_BOOT, EINVAL,
        config->root == NULL ? "boot file: names no layer" : "boot file: names a root and layers");
  }
  return boot_network_check(&config->network, failure);
}
