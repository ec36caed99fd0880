// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/stream.h"
}

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace {

struct Stream {
  stream ring{};
  explicit Stream(size_t capacity) { ring.capacity = capacity; }
  ~Stream() { stream_free(&ring); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void append(const std::string& bytes) {
    stream_append(&ring, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
  std::string read(uint64_t offset, size_t length) const {
    iovec pieces[2];
    std::string bytes;
    int count = stream_pieces(&ring, offset, length, pieces);
    for (int i = 0; i < count; i++) {
      bytes.append(static_cast<const char*>(pieces[i].iov_base), pieces[i].iov_len);
    }
    return bytes;
  }
};

}  // namespace

TEST_CASE("stream_keeps_exactly_the_last_bytes_of_any_capacity") {
  std::mt19937 random(11);
  for (size_t capacity : {1u, 2u, 100u, 4095u, 4096u, 4097u, 10000u, 65536u}) {
    CAPTURE(capacity);
    Stream stream(capacity);
    std::string all;
    for (int round = 0; round < 300; round++) {
      std::string piece(random() % (capacity / 4 + 3), '\0');
      if (round % 50 == 49) piece.resize(capacity + random() % (2 * capacity));
      for (char& byte : piece) byte = static_cast<char>(random());
      stream.append(piece);
      all += piece;
      REQUIRE(stream.ring.end == all.size());
      size_t kept = std::min(all.size(), capacity);
      REQUIRE(stream.ring.first == all.size() - kept);
      REQUIRE(stream.read(stream.ring.first, kept) == all.substr(all.size() - kept));
      if (kept > 0) {
        size_t skip = random() % kept;
        REQUIRE(stream.read(stream.ring.first + skip, kept - skip) ==
                all.substr(all.size() - kept + skip));
      }
    }
  }
}

TEST_CASE("stream_allocates_no_more_than_it_needs_and_nothing_when_empty") {
  Stream stream(64 * 1024 * 1024);
  CHECK(stream.ring.data == nullptr);
  stream.append("x");
  CHECK(stream.ring.size <= 4096);
  stream.append(std::string(100000, 'x'));
  CHECK(stream.ring.size <= 262144);
  stream_release(&stream.ring, 50000);
  CHECK(stream.ring.first == 50000);
  stream_release(&stream.ring, 40000);
  CHECK(stream.ring.first == 50000);
  stream_release(&stream.ring, 100001);
  CHECK(stream.ring.data == nullptr);
  CHECK(stream.ring.end == 100001);
  stream.append("abc");
  CHECK(stream.read(100001, 3) == "abc");
}

TEST_CASE("what_is_read_in_place_is_the_same_as_what_is_appended") {
  std::mt19937 random(12);
  Stream stream(STREAM_BLOCK);
  std::string all;
  for (int round = 0; round < 300; round++) {
    size_t kept = static_cast<size_t>(stream.ring.end - stream.ring.first);
    std::string piece(random() % (STREAM_BLOCK - kept + 1), '\0');
    for (char& byte : piece) byte = static_cast<char>(random());
    iovec pieces[2];
    size_t at = 0;
    int count = stream_space(&stream.ring, piece.size(), pieces);
    REQUIRE((count > 0 || piece.empty()));
    for (int i = 0; i < count; i++) {
      piece.copy(static_cast<char*>(pieces[i].iov_base), pieces[i].iov_len, at);
      at += pieces[i].iov_len;
    }
    REQUIRE(at == piece.size());
    size_t filled = random() % (piece.size() + 1);  // fewer may come than there was room for
    stream_filled(&stream.ring, filled);
    all += piece.substr(0, filled);
    REQUIRE(stream.ring.end == all.size());
    kept = static_cast<size_t>(stream.ring.end - stream.ring.first);
    REQUIRE(stream.read(stream.ring.first, kept) == all.substr(all.size() - kept));
    stream_release(&stream.ring, stream.ring.first + random() % (kept + 1));
  }
}

TEST_CASE("streams_of_one_block_never_share_it") {
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < 20; i++) streams.push_back(std::make_unique<Stream>(STREAM_BLOCK));
  for (int round = 0; round < 3; round++) {
    for (size_t i = 0; i < streams.size(); i++) {
      streams[i]->append(std::string(100 + i, static_cast<char>('a' + i)));
    }
    for (size_t i = 0; i < streams.size(); i++) {
      Stream& each = *streams[i];
      CHECK(each.read(each.ring.first, 100 + i) ==
            std::string(100 + i, static_cast<char>('a' + i)));
      stream_release(&each.ring, each.ring.end);
      CHECK(each.ring.data == nullptr);
    }
  }
}
