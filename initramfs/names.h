/* SPDX-License-Identifier: Apache-2.0 */
/* What the machine is called, and where it looks up names: SET_NAMES (docs/exec-protocol.md). */
#ifndef MSB_INITRAMFS_NAMES_H
#define MSB_INITRAMFS_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "initramfs/failure.h"

/*
 * Does what SET_NAMES asks for: nothing before its payload was found well-formed. A host name is
 * written to /etc/hostname too, as at boot. False with `failure` filled in: by
 * MSB_STAGE_REQUEST for the request or the host name, by MSB_STAGE_FILE for a file.
 */
bool names_set(const uint8_t* payload, size_t length, struct failure* failure);

/*
 * Gives a file that content. A regular file is written in place, since it may be a mount point, and
 * keeps its owner and mode; whatever else has the name, also a symbolic link, is replaced. Never
 * waits for the other end of a FIFO or a device.
 */
bool names_write_file(const char* path, const char* content, size_t length,
                      struct failure* failure);

#endif
