/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about the machine (docs/exec-protocol.md): PING, METRICS, LISTENERS, SET_CLOCK,
 * ADD_ENTROPY, SET_NAMES, SHARE, UNSHARE, SOCKET_OWNER. */
#ifndef MSB_INITRAMFS_MACHINE_REQUESTS_H
#define MSB_INITRAMFS_MACHINE_REQUESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "initramfs/buffer.h"
#include "initramfs/namespace.h"

/* Whether `type` is one of them. */
bool machine_request_is(uint32_t type);

/* Does what a request asks for and appends the answer, as whole frames, to `answer`. The payload's
 * length has been checked against frame_is_acceptable(). False when there is no memory for the
 * answer. SHARE and UNSHARE may take two seconds, others do not block. `programs`: as
 * shares_add(). */
bool machine_request(uint32_t type, const uint8_t* payload, size_t length,
                     struct namespace_beside* programs, struct buffer* answer);

#endif
