// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: whatever stands in a tar stream's headers, long names and extended headers. The
// input is a stream; its checksums are put right, or nothing would ever get past them.
extern "C" {
#include "initramfs/tar_format.h"
}

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr size_t kPathSize = 256;

void put_checksum_right(uint8_t* block) {
  std::memset(block + 148, ' ', 8);
  unsigned sum = 0;
  for (size_t i = 0; i < TAR_BLOCK_SIZE; i++) sum += block[i];
  std::snprintf(reinterpret_cast<char*>(block + 148), 8, "%06o", sum);
}

/// Reads all of it, so that a sanitizer sees every byte that a text claims to have.
void touch(tar_text text) {
  const std::vector<char> copy(text.bytes, text.bytes + text.length);
  volatile size_t size = copy.size();
  (void)size;
}

/// What a name must be once it was let through.
void check_normalised(tar_text name) {
  char path[kPathSize];
  if (tar_normalise_name(name, path, sizeof path) != nullptr) return;
  const size_t length = strnlen(path, sizeof path);
  if (length == sizeof path || path[0] == '/') std::abort();
  for (const char* part = path; part != nullptr; part = std::strchr(part, '/')) {
    if (*part == '/') part++;
    const size_t size = std::strcspn(part, "/");
    if (size == 0 && length > 0) std::abort();
    if (size == 2 && part[0] == '.' && part[1] == '.') std::abort();
  }
}

void check_header(tar_text records, tar_header header) {
  if (tar_apply_pax(records, &header) != nullptr) return;
  if (header.size < 0 || header.nanoseconds >= 1'000'000'000) std::abort();
  touch(header.name);
  touch(header.link);
  check_normalised(header.name);
  check_normalised(header.link);
  // What was read can be written, and is the same when it is read again.
  std::vector<char> buffer(header.name.length + header.link.length + 512);
  tar_records needed{buffer.data(), 0, buffer.size()};
  if (!tar_append_needed(&needed, &header)) std::abort();
  uint8_t block[TAR_BLOCK_SIZE];
  char short_name[TAR_SHORT_NAME_MAX];
  tar_header again{};
  tar_write_header(block, &header);
  if (tar_parse_header(block, short_name, &again) != nullptr) std::abort();
  if (tar_apply_pax({buffer.data(), needed.used}, &again) != nullptr) std::abort();
  if (again.size != header.size || again.user != header.user || again.group != header.group ||
      again.seconds != header.seconds || again.nanoseconds != header.nanoseconds) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<char> records;
  while (size >= TAR_BLOCK_SIZE) {
    // In memory of exactly its size.
    std::vector<uint8_t> block(data, data + TAR_BLOCK_SIZE);
    data += TAR_BLOCK_SIZE;
    size -= TAR_BLOCK_SIZE;
    if (tar_block_is_zero(block.data())) continue;
    put_checksum_right(block.data());
    char short_name[TAR_SHORT_NAME_MAX];
    tar_header header{};
    if (tar_parse_header(block.data(), short_name, &header) != nullptr) continue;
    if (header.type == TAR_PAX) {
      const size_t length = std::min(size, static_cast<size_t>(header.size));
      records.assign(reinterpret_cast<const char*>(data),
                     reinterpret_cast<const char*>(data) + length);
      data += length;
      size -= length;
      const size_t padding = std::min<size_t>(size, tar_padding(length));
      data += padding;
      size -= padding;
      continue;
    }
    check_header({records.data(), records.size()}, header);
    records.clear();
  }
  // What is left is records alone.
  const std::vector<char> rest(reinterpret_cast<const char*>(data),
                               reinterpret_cast<const char*>(data) + size);
  tar_text text{rest.data(), rest.size()};
  tar_record record{};
  while (text.length > 0 && tar_next_record(&text, &record) == nullptr) {
    touch(record.key);
    touch(record.value);
    touch(tar_xattr_name(&record));
  }
  return 0;
}
