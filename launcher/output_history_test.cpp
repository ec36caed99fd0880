// SPDX-License-Identifier: Apache-2.0
#include "launcher/output_history.hpp"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

namespace msb::launcher {
namespace {

std::string text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST_CASE("the last bytes of a stream are kept, however they came") {
  for (std::size_t piece = 1; piece <= 30; ++piece) {
    CAPTURE(piece);
    OutputHistory history(8);
    std::string all;
    while (all.size() < 100) {
      const std::string next(piece, static_cast<char>('a' + all.size() % 26));
      history.append(std::as_bytes(std::span(next)));
      all += next;
      CHECK(history.end() == all.size());
      CHECK(history.oldest() == all.size() - std::min<std::size_t>(all.size(), 8));
      for (std::uint64_t offset = history.oldest(); offset <= history.end(); ++offset) {
        CHECK(text(history.from(offset)) == all.substr(offset));
      }
    }
  }
}

}  // namespace
}  // namespace msb::launcher
