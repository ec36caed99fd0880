// SPDX-License-Identifier: Apache-2.0
// A directory for a test.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace msb::sandbox {

// Empty at first; it goes with the test.
struct Place {
  Place() {
    std::string name = std::filesystem::temp_directory_path() / "msb-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place() { std::filesystem::remove_all(path); }
  std::string path;
};

}  // namespace msb::sandbox
