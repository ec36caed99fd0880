// SPDX-License-Identifier: Apache-2.0
#include "server/request_log.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "oci/test_support.hpp"
#include "server/presence.hpp"

namespace msb::server {
namespace {

constexpr std::uintmax_t kMiB = 1U << 20;

TEST_CASE("a log that has grown is begun anew, and the one before is kept") {
  const oci::testing::TemporaryDirectory home;
  const std::string path = server_folder(home.path()) + "/log";
  const auto file = open_server_log(home.path());
  REQUIRE(file);
  boost::asio::io_context io;
  RequestLog log(io, file->get(), home.path());
  const std::string text(kMiB, 'x');
  for (int round = 0; round < 40; ++round) {
    log.write("info", text);
    log.flush();
  }
  const auto now = std::filesystem::file_size(path);
  const auto before = std::filesystem::file_size(path + ".1");
  CHECK(now < 16 * kMiB);
  CHECK(before > 16 * kMiB);
  CHECK(before < 18 * kMiB);
}

TEST_CASE("a log that is not the server's own goes on as it is") {
  const oci::testing::TemporaryDirectory home;
  const Fd file = oci::testing::temporary_file();
  const auto own = open_server_log(home.path());
  REQUIRE(own);
  boost::asio::io_context io;
  RequestLog log(io, file.get(), home.path());
  for (int round = 0; round < 18; ++round) {
    log.write("info", std::string(kMiB, 'x'));
    log.flush();
  }
  CHECK_FALSE(std::filesystem::exists(server_folder(home.path()) + "/log.1"));
}

}  // namespace
}  // namespace msb::server
