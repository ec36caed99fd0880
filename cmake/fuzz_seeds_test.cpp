// SPDX-License-Identifier: Apache-2.0
// The seeds of one fuzz target (msb_fuzz_target() in msb.cmake), and small changes to them, in
// every run of the tests.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern const char* const msb_seeds;  // their directory
extern const int msb_seed_rounds;    // how often each is changed

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

TEST_CASE("the fuzz target stands every seed, and every seed with some bytes changed") {
  std::mt19937 random(1);
  std::size_t seeds = 0;
  for (const auto& file : std::filesystem::directory_iterator(msb_seeds)) {
    std::ifstream stream(file.path(), std::ios::binary);
    const std::vector<std::uint8_t> seed{std::istreambuf_iterator<char>(stream), {}};
    REQUIRE_FALSE(seed.empty());
    CHECK(LLVMFuzzerTestOneInput(seed.data(), seed.size()) == 0);
    for (int round = 0; round < msb_seed_rounds; ++round) {
      auto changed = seed;
      for (std::uint32_t i = random() % 4 + 1; i > 0; --i) {
        changed[random() % changed.size()] = static_cast<std::uint8_t>(random());
      }
      changed.resize(changed.size() - std::min<std::size_t>(changed.size(), random() % 3));
      LLVMFuzzerTestOneInput(changed.data(), changed.size());
    }
    ++seeds;
  }
  CHECK(seeds > 0);
}
