/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process wrote into one of its streams: a ring of the last bytes, which are numbered from 0
 * at the start of the process. Memory is allocated as bytes come.
 */
#ifndef MSB_INITRAMFS_STREAM_H
#define MSB_INITRAMFS_STREAM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * A stream of this capacity, which empties as fast as it fills, has all of its memory or none. Some
 * blocks stay with the agent: getting each anew from the kernel costs ten times what else is done
 * with the bytes.
 */
#define STREAM_BLOCK 65536u

/* Starts as all zeros but for `capacity`. */
struct stream {
  uint8_t* data; /* the byte of offset n is data[n % size] */
  size_t size;
  size_t capacity; /* at most so many bytes are kept; 1 at least */
  uint64_t first;  /* offset of the first byte that is kept */
  uint64_t end;    /* offset behind the last one: how many bytes there were */
};

/*
 * Adds bytes at the end. The oldest ones give way when there are more than `capacity`, or than
 * there is memory for: `first` says so.
 */
void stream_append(struct stream* stream, const uint8_t* bytes, size_t length);

/*
 * The same without a copy: where `length` bytes that have room in it may be read to, and that so
 * many came. Returns how many pieces that is, 0 without memory.
 */
int stream_space(struct stream* stream, size_t length, struct iovec pieces[2]);
void stream_filled(struct stream* stream, size_t length);

/* The `length` bytes from `offset` on, which are kept, as they lie in memory. Returns how many
 * pieces they are. */
int stream_pieces(const struct stream* stream, uint64_t offset, size_t length,
                  struct iovec pieces[2]);

/* Nobody wants the bytes before `offset` any more. Without bytes there is no memory. */
void stream_release(struct stream* stream, uint64_t offset);

/* Frees the memory; the offsets stay, and no byte is kept. */
void stream_free(struct stream* stream);

#endif
