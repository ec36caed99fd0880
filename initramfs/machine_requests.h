/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about the machine (docs/exec-protocol.md): PING, METRICS, LISTENERS, SET_CLOCK,
 * ADD_ENTROPY, SET_NAMES. */
#ifndef MSB_INITRAMFS_MACHINE_REQUESTS_H
#define MSB_INITRAMFS_MACHINE_REQUESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "initramfs/buffer.h"

/* Whether `type` is one of them. */
bool machine_request_is(uint32_t type);

/* Does what a request asks for and appends the answer, as whole frames, to `answer`. The payload's
 * length has been checked against frame_is_acceptable(). False when there is no memory for the
 * answer. Never blocks. */
bool machine_request(uint32_t type, const uint8_t* payload, size_t length, struct buffer* answer);

#endif
