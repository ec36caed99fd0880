/* SPDX-License-Identifier: Apache-2.0 */
#include "initramfs/text_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define PIECE_SIZE 4096

bool text_take(struct text_lines* lines, const char* text, size_t length, line_taker take,
               void* context) {
  while (length > 0) {
    const char* newline = memchr(text, '\n', length);
    size_t piece = newline == NULL ? length : (size_t)(newline - text);
    if (piece > TEXT_LINE_MAX - lines->filled) lines->too_long = true;
    if (!lines->too_long) {
      memcpy(lines->line + lines->filled, text, piece);
      lines->filled += piece;
    }
    if (newline == NULL) return true;
    lines->line[lines->filled] = '\0';
    bool whole = !lines->too_long;
    lines->filled = 0;
    lines->too_long = false;
    if (whole && !take(context, lines->line)) return false;
    text += piece + 1;
    length -= piece + 1;
  }
  return true;
}

void text_read(int directory, const char* path, line_taker take, void* context) {
  /* Not to wait for anybody, should this be a FIFO by now. */
  int file = openat(directory, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file < 0) return;
  struct text_lines lines = {0};
  char piece[PIECE_SIZE];
  bool wanted = true;
  size_t taken = 0;
  while (wanted && taken < TEXT_READ_MAX) {
    ssize_t n = read(file, piece, sizeof piece);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    taken += (size_t)n;
    wanted = text_take(&lines, piece, (size_t)n, take, context);
  }
  close(file);
}

bool text_take_number(const char** text, uint64_t* number) {
  const char* next = *text;
  while (*next == ' ' || *next == '\t') next++;
  if (*next < '0' || *next > '9') return false;
  uint64_t value = 0;
  for (; *next >= '0' && *next <= '9'; next++) {
    uint64_t digit = (uint64_t)(*next - '0');
    if (value > (UINT64_MAX - digit) / 10) return false;
    value = value * 10 + digit;
  }
  *text = next;
  *number = value;
  return true;
}
