/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/name_files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "initramfs/file_layers.h"
#include "initramfs/names.h"
#include "protocol/msb_exec.h"

/* A line, from strings that a NULL ends. False without memory. */
static bool add_line(struct buffer* text, const char* const* parts) {
  for (; *parts != NULL; parts++) {
    if (!buffer_append(text, *parts, strlen(*parts))) return false;
  }
  return buffer_append(text, "\n", 1);
}

#define ADD_LINE(text, ...) add_line(text, (const char* const[]){__VA_ARGS__, NULL})

bool name_files_resolver(const struct boot_network* network, struct buffer* text) {
  if (network->search != NULL && !ADD_LINE(text, "search ", network->search)) return false;
  for (size_t i = 0; i < network->nameserver_count; i++) {
    if (!ADD_LINE(text, "nameserver ", network->nameservers[i])) return false;
  }
  return true;
}

bool name_files_hosts(const struct boot_config* config, struct buffer* text) {
  if (!ADD_LINE(text, "127.0.0.1\tlocalhost") ||
      !ADD_LINE(text, "::1\tlocalhost ip6-localhost ip6-loopback") ||
      (config->hostname != NULL && !ADD_LINE(text, "127.0.1.1\t", config->hostname))) {
    return false;
  }
  for (size_t i = 0; i < config->network.host_count; i++) {
    const struct boot_host* host = &config->network.hosts[i];
    if (!ADD_LINE(text, host->address, "\t", host->name)) return false;
  }
  return true;
}

static bool write_file(const char* path, const struct buffer* text, bool made,
                       struct failure* failure) {
  if (!made) return fail(failure, MSB_STAGE_RESOURCES, ENOMEM, "no memory for %s", path);
  return names_write_file(path, (const char*)buffer_bytes(text), buffer_length(text), failure);
}

static bool write_hostname(const char* hostname, struct failure* failure) {
  struct buffer text = {0};
  bool made = ADD_LINE(&text, hostname);
  bool written = write_file("/etc/hostname", &text, made, failure);
  buffer_free(&text);
  return written;
}

static bool write_hosts(const struct boot_config* config, struct failure* failure) {
  struct stat attributes;
  /* One of an earlier boot may have names that there are no more. */
  if (config->network.host_count == 0 && lstat("/etc/hosts", &attributes) == 0 &&
      !file_layers_is_as_written("/etc/hosts")) {
    return true;
  }
  struct buffer text = {0};
  bool made = name_files_hosts(config, &text);
  bool written = write_file("/etc/hosts", &text, made, failure);
  buffer_free(&text);
  return written;
}

static bool write_resolver(const struct boot_network* network, struct failure* failure) {
  if (network->nameserver_count == 0) return true;
  struct buffer text = {0};
  bool made = name_files_resolver(network, &text);
  bool written = write_file("/etc/resolv.conf", &text, made, failure);
  buffer_free(&text);
  return written;
}

bool name_files_write(const struct boot_config* config, struct failure* failure) {
  if (config->hostname != NULL) sethostname(config->hostname, strlen(config->hostname));
  /* Only what is to be reached by name is worth an /etc in an image without one. */
  bool needed = config->network.host_count + config->network.nameserver_count > 0;
  if (needed) {
    mkdir("/etc", 0755);
  } else if (access("/etc", F_OK) != 0) {
    return true;
  }
  struct failure ignored;
  bool written = config->hostname == NULL || write_hostname(config->hostname, failure);
  written = write_hosts(config, written ? failure : &ignored) && written;
  written = write_resolver(&config->network, written ? failure : &ignored) && written;
  return written;
}
