/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about processes (docs/exec-protocol.md). */
#ifndef MSB_INITRAMFS_REQUESTS_H
#define MSB_INITRAMFS_REQUESTS_H

#include <stdbool.h>
#include <stdint.h>

#include "initramfs/connection.h"

/* Whether `type` is a request, about a process or the machine, that leaves its connection one of
 * requests. */
bool request_is(uint32_t type);

/* Acts on a request and sends the answer. The payload's length has been checked against
 * frame_is_acceptable(). WAIT for a process that runs leaves `connection` waiting. */
void request_answer(struct connection* connection, uint32_t type, const uint8_t* payload,
                    size_t length);

/* Answers WAIT if the process that it is for has ended. */
void request_end_wait(struct connection* connection);

#endif
