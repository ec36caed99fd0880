// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

extern "C" {
#include "initramfs/file_links.h"
}

#include <string>

namespace {

struct stat file(dev_t device, ino_t inode) {
  struct stat status{};
  status.st_dev = device;
  status.st_ino = inode;
  return status;
}

}  // namespace

TEST_CASE("links_tell_files_by_device_and_inode") {
  file_links links{};
  const struct stat one = file(1, 7);
  const struct stat other = file(2, 7);
  CHECK(file_links_find(&links, &one, nullptr) == nullptr);
  CHECK(file_links_find(&links, &one, "a") == nullptr);
  CHECK(std::string(file_links_find(&links, &one, "b")) == "a");
  CHECK(std::string(file_links_find(&links, &one, nullptr)) == "a");
  CHECK(file_links_find(&links, &other, "b") == nullptr);
  CHECK(std::string(file_links_find(&links, &other, nullptr)) == "b");
  file_links_free(&links);
  CHECK(file_links_find(&links, &one, nullptr) == nullptr);
  file_links_free(&links);
}

TEST_CASE("links_remember_so_many_files_and_no_more") {
  file_links links{};
  for (uint32_t i = 0; i < FILE_LINKS_MAX; i++) {
    const struct stat status = file(i % 3, 1000 + i);
    REQUIRE(file_links_find(&links, &status, std::to_string(i).c_str()) == nullptr);
  }
  const struct stat further = file(9, 9);
  CHECK(file_links_find(&links, &further, "further") == nullptr);
  CHECK(file_links_find(&links, &further, "further") == nullptr);
  for (uint32_t i = 0; i < FILE_LINKS_MAX; i++) {
    const struct stat status = file(i % 3, 1000 + i);
    REQUIRE(file_links_find(&links, &status, nullptr) == std::to_string(i));
  }
  file_links_free(&links);
}

TEST_CASE("links_remember_so_many_bytes_of_names_and_no_more") {
  file_links links{};
  const std::string name(16'383, 'n');
  uint32_t remembered = 0;
  for (uint32_t i = 0; i < 600; i++) {
    const struct stat status = file(1, i);
    file_links_find(&links, &status, name.c_str());
    if (file_links_find(&links, &status, nullptr) != nullptr) remembered++;
  }
  CHECK(remembered == FILE_LINKS_NAMES / 16'384);
  file_links_free(&links);
}
