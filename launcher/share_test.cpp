// SPDX-License-Identifier: Apache-2.0
#include "launcher/share.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace msb::launcher {
namespace {

TEST_CASE("only directories and regular files are shared") {
  std::string directory = "/tmp/msb-share-test-XXXXXX";
  REQUIRE(::mkdtemp(directory.data()) != nullptr);
  std::ofstream(directory + "/file") << "text";
  std::filesystem::create_symlink("file", directory + "/link");
  REQUIRE(::mkfifo((directory + "/fifo").c_str(), 0600) == 0);
  CHECK(open_share(directory));
  CHECK(open_share(directory + "/file"));
  CHECK(open_share(directory + "/link"));
  CHECK_FALSE(open_share(directory + "/fifo"));
  CHECK_FALSE(open_share(directory + "/none"));
  CHECK_FALSE(open_share("/dev/null"));
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace msb::launcher
