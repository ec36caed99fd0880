/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file service (docs/exec-protocol.md): file requests on one connection, one after another.
 * Blocking, and in a process of its own, so that a slow file system or a gigabyte holds up nothing
 * else.
 */
#ifndef MSB_INITRAMFS_FILE_SERVICE_H
#define MSB_INITRAMFS_FILE_SERVICE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Serves `connection`, a stream socket in blocking mode, whose FILES has been taken: answers it by
 * DONE, then file requests until the host closes it or breaks the protocol. Ends the process.
 * `received`: what came behind FILES already, less than FILE_STREAM_BUFFER.
 */
__attribute__((noreturn)) void file_service_run(int connection, const uint8_t* received,
                                                size_t received_length);

#endif
