/* SPDX-License-Identifier: Apache-2.0 */
/* Text of /proc, line by line with bounded memory: a table there can be larger than the agent. */
#ifndef MSB_INITRAMFS_TEXT_LINES_H
#define MSB_INITRAMFS_TEXT_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longer lines are skipped whole. The longest that anybody here wants is one of /proc/net/dev. */
#define TEXT_LINE_MAX 511u

/* What is read of a file at most: whoever is root in the machine can put an endless one there. */
#define TEXT_READ_MAX (16u * 1024 * 1024)

/* Is given each line, ended by a 0 byte instead of its newline. False when it wants no more. */
typedef bool (*line_taker)(void* context, const char* line);

/* Where a text stands. Starts as all zeros. */
struct text_lines {
  char line[TEXT_LINE_MAX + 1];
  size_t filled;
  bool too_long; /* the line that is coming */
};

/*
 * Takes the next piece of a text, wherever it was cut. A line counts once its newline has come, so
 * that a number that was cut off is never taken for a smaller one. False when `take` wants no more.
 */
bool text_take(struct text_lines* lines, const char* text, size_t length, line_taker take,
               void* context);

/* The lines of a file of /proc, up to TEXT_READ_MAX bytes. A file that is not there has none. As of
 * openat(2), a relative path leads from `directory`. */
void text_read(int directory, const char* path, line_taker take, void* context);

/* Takes a decimal number, and blanks before it, from *text, which moves past it. False, and nothing
 * is taken, when there is none or it does not fit. */
bool text_take_number(const char** text, uint64_t* number);

#endif
