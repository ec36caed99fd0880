/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The boot file: all that the guest's init needs to know. The host puts it into the root of the
 * virtio-fs device, and the init reads it before anything else.
 *
 * It is text of at most MSB_BOOT_MAX bytes. Its first line is MSB_BOOT_MAGIC; every other line is a
 * key, one space and a value that runs to the end of the line:
 *
 *   hostname NAME   at most once
 *   processes N     of the sandbox there are at most so many, and threads, at a time:
 * MSB_BOOT_PROCESSES_MIN to MSB_BOOT_PROCESSES_MAX; at most once
 *   upper DEVICE    the block device, "vda" to "vdz", whose ext4 file system holds the writable
 * layer; at most once. Without it the writable layer is in memory
 *   layer PATH      an EROFS image, relative to the virtio-fs root; one line per layer, lowest
 * first, at least one unless there is a root
 *   root PATH       instead of layers: a directory, relative to the virtio-fs root, that is the
 * sandbox's root below its writable layer
 *   volume PATH     a directory of the sandbox that the image wants to be there, absolute; made
 * when it is missing
 *   share MODE PATH TARGET   a directory or file, relative to the virtio-fs root, and where in the
 * sandbox it is to be seen, absolute; made when it is missing. MODE is "rw" or "ro"; PATH has no
 * spaces
 *   interface MAC MTU   the network card with this MAC address ("52:54:00:12:34:56") is to be up
 * with this MTU, as eth0; at most once. "address" and "gateway" need it
 *
 *   address ADDRESS/PREFIX   of the card; at most one for IPv4 and one for IPv6
 *
 *   gateway ADDRESS [MAC]   the default route; at most one for IPv4 and one for IPv6. With a MAC
 * address nobody has to ask for it
 *
 *   nameserver ADDRESS   for /etc/resolv.conf, which is written anew when there is any; at most 3
 *
 *   search DOMAINS   likewise; at most once
 *
 *   host NAME ADDRESS   a line of /etc/hosts, which is written anew when there are any
 *
 *   forward PROTOCOL ADDRESS PORT VSOCKPORT   what connects to this IPv4 address (in 127.0.0.0/8)
 * and port in the sandbox, by "tcp" or "udp", is connected to this vsock port of the host: a
 * connection for each TCP connection, or for each sender of datagrams, which have the form of
 * CONNECT's (docs/exec-protocol.md)
 *
 * The init refuses keys that it does not know. It sets its clock by the file's time of
 * modification, which is the host's time of day when it was looked up: what the guest's kernel
 * found out by itself is late by as many ticks as were lost while it booted.
 */
#ifndef MSB_PROTOCOL_BOOT_H
#define MSB_PROTOCOL_BOOT_H

#define MSB_BOOT_MAGIC "msb-boot 1"
#define MSB_BOOT_MAX 65536u
/* of "processes" */
#define MSB_BOOT_PROCESSES_MIN 16u
#define MSB_BOOT_PROCESSES_MAX 4194304u
#define MSB_BOOT_HOSTNAME_MAX 64u /* __NEW_UTS_LEN (include/uapi/linux/utsname.h) */
#define MSB_BOOT_FILE "boot"
#define MSB_BOOT_TAG "msb" /* tag of the virtio-fs device */

#endif
