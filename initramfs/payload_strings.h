/* SPDX-License-Identifier: Apache-2.0 */
/* Payloads that are strings, each ended by a 0 byte. */
#ifndef MSB_INITRAMFS_PAYLOAD_STRINGS_H
#define MSB_INITRAMFS_PAYLOAD_STRINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "initramfs/failure.h"

/* Finds the `count` strings that the payload of the request `name` is, without copying. False with
 * `failure` filled in when it is fewer or more. */
bool payload_strings(const uint8_t* payload, size_t length, const char* name, size_t count,
                     const char** strings, struct failure* failure);

#endif
