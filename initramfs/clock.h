/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MSB_INITRAMFS_CLOCK_H
#define MSB_INITRAMFS_CLOCK_H

/* CLOCK_MONOTONIC in milliseconds, for deadlines. */
long clock_now_ms(void);

#endif
