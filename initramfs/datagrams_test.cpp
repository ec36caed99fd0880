// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/datagrams.h"
}

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace {

using Texts = std::vector<std::string>;

std::string framed(const std::string& datagram) {
  const char length[] = {static_cast<char>(datagram.size() & 0xff),
                         static_cast<char>(datagram.size() >> 8)};
  return std::string(length, sizeof length) + datagram;
}

const uint8_t* bytes_of(const std::string& text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

void note(void* context, const uint8_t* bytes, size_t length) {
  static_cast<Texts*>(context)->emplace_back(reinterpret_cast<const char*>(bytes), length);
}

struct Stream {
  datagrams state{};
  Texts taken;

  ~Stream() { datagrams_free(&state); }
  bool take(const std::string& piece) {
    return datagrams_take(&state, bytes_of(piece), piece.size(), note, &taken);
  }
  size_t waiting() const { return buffer_length(&state.unsent); }
  void add(const std::string& datagram) {
    datagrams_add(&state, bytes_of(datagram), datagram.size());
  }
};

}  // namespace

TEST_CASE("datagrams_are_whole_wherever_the_stream_is_cut") {
  const Texts sent = {"a", "", std::string(DATAGRAM_MAX, 'x'), "", "last"};
  std::string bytes;
  for (const std::string& datagram : sent) bytes += framed(datagram);
  for (size_t piece : {size_t{1}, size_t{2}, size_t{3}, size_t{65536}, bytes.size()}) {
    CAPTURE(piece);
    Stream stream;
    for (size_t i = 0; i < bytes.size(); i += piece) REQUIRE(stream.take(bytes.substr(i, piece)));
    CHECK((stream.taken == sent));
    CHECK(stream.state.received.data == nullptr);
  }
}

TEST_CASE("datagrams_that_are_too_long_are_a_protocol_error") {
  Stream stream;
  CHECK_FALSE(stream.take(framed("good") + framed(std::string(DATAGRAM_MAX + 1, 'x'))));
  CHECK(stream.taken == Texts{"good"});
  Stream cut;
  CHECK(cut.take("\xff"));
  CHECK_FALSE(cut.take("\xff"));
}

TEST_CASE("datagrams_wait_for_a_slow_stream_up_to_the_limit_and_are_lost_beyond") {
  Stream stream;
  stream.add(std::string(DATAGRAM_MAX + 1, 'x'));
  CHECK(stream.waiting() == 0);
  stream.add(std::string(DATAGRAM_MAX, 'x'));
  CHECK(stream.waiting() == DATAGRAM_MAX + 2);
  stream.add(std::string(100, 'x'));
  CHECK(stream.waiting() == DATAGRAM_MAX + 2);
  stream.add("fits");
  CHECK(stream.waiting() == DATAGRAM_MAX + 8);
  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  Stream other;
  while (other.taken.size() < 2) {
    REQUIRE(datagrams_flush(&stream.state, pair[0]));
    char piece[5000];
    ssize_t n = recv(pair[1], piece, sizeof piece, 0);
    REQUIRE(n > 0);
    REQUIRE(other.take(std::string(piece, static_cast<size_t>(n))));
  }
  CHECK((other.taken == Texts{std::string(DATAGRAM_MAX, 'x'), "fits"}));
  close(pair[1]);
  stream.add("lost");
  CHECK_FALSE(datagrams_flush(&stream.state, pair[0]));
  close(pair[0]);
}
