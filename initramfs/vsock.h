/* SPDX-License-Identifier: Apache-2.0 */
/* The two ways to the host, and what is said on the control connection by this side. */
#ifndef MSB_INITRAMFS_VSOCK_H
#define MSB_INITRAMFS_VSOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "initramfs/failure.h"
#include "protocol/msb_exec.h"

/* Listens for agent connections: a non-blocking descriptor, or -1 and errno. */
int vsock_listen(void);

/* Begins to connect to a port of the host: a non-blocking descriptor, or -1 and errno. */
int vsock_connect(uint32_t port);

/* Waits until the connection stands. False, and errno, if it never will. */
bool vsock_wait_connected(int control);

/* Whether a peer is the host, rather than a program in this machine. */
bool vsock_is_host(const struct sockaddr* peer, socklen_t length);

void control_send_hello(int control);
void control_send_failed(int control, const struct failure* failure);

/* Says BYE and gives the host `timeout_ms` to close the connection. */
void control_end(int control, enum msb_bye_reason reason, int timeout_ms);

#endif
