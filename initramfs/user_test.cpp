// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/user.h"
}

#include <doctest/doctest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace {

struct Found {
  int code = 0;
  unsigned part = 0;
  std::unique_ptr<user> who = std::make_unique<user>();
  std::vector<gid_t> groups() const { return {who->groups, who->groups + who->group_count}; }
};

class Files {
 public:
  Files(const std::string& passwd, const std::string& group) {
    char name[] = "/tmp/msb-user-test-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    directory_ = name;
    std::ofstream(directory_ + "/passwd") << passwd;
    std::ofstream(directory_ + "/group") << group;
  }
  ~Files() { std::filesystem::remove_all(directory_); }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;

  void remove() const {
    std::filesystem::remove(directory_ + "/passwd");
    std::filesystem::remove(directory_ + "/group");
  }

  Found find(const std::string& name, std::vector<std::string> groups = {}) const {
    std::string passwd = directory_ + "/passwd";
    std::string group = directory_ + "/group";
    user_files files{.passwd = passwd.c_str(), .group = group.c_str()};
    std::vector<char*> pointers;
    for (std::string& each : groups) pointers.push_back(each.data());
    pointers.push_back(nullptr);
    Found found;
    found.code = user_find(&files, name.c_str(), pointers.data(), found.who.get(), &found.part);
    return found;
  }

 private:
  std::string directory_;
};

const char* const kPasswd =
    "root:x:0:0:root:/root:/bin/sh\n"
    "# a comment\n"
    "\n"
    "short:x:5\n"
    "strange:x:abc:1::/:/bin/sh\n"
    "many:x:-1:4294967295::/:/bin/sh\n"
    "anna:x:1000:100:Anna:/home/anna:/bin/sh\n"
    "noshell:x:1001:101::/srv\n"
    "nohome:x:1002:102:::/bin/sh\n"
    "anna:x:2000:200:second:/home/second:/bin/sh\n"
    "last:x:1003:103::/last:/bin/sh";  // no newline

const char* const kGroup =
    "root:x:0:\n"
    "wheel:x:10:root,anna\n"
    "short:x\n"
    "users:x:100:\n"
    "docker:x:999:bob,anna,carl\n"
    "annas:x:998:annas\n"
    "twice:x:999:anna\n"
    "end:x:77:last";

}  // namespace

TEST_CASE("user_by_name_has_its_numbers_home_and_groups") {
  Files files(kPasswd, kGroup);
  Found found = files.find("anna");
  REQUIRE(found.code == 0);
  CHECK(found.who->id == 1000);
  CHECK(found.who->group == 100);
  CHECK(std::string(found.who->home) == "/home/anna");
  CHECK(found.groups() == std::vector<gid_t>{100, 10, 999});
  found = files.find("last");
  CHECK(found.who->id == 1003);
  CHECK(found.groups() == std::vector<gid_t>{103, 77});
  CHECK(std::string(files.find("noshell").who->home) == "/srv");
  CHECK(std::string(files.find("nohome").who->home) == "/");
}

TEST_CASE("user_by_number_uses_its_entry_if_there_is_one") {
  Files files(kPasswd, kGroup);
  Found found = files.find("1000");
  REQUIRE(found.code == 0);
  CHECK(found.who->group == 100);
  CHECK(found.groups() == std::vector<gid_t>{100, 10, 999});
  found = files.find("4000");
  REQUIRE(found.code == 0);
  CHECK(found.who->id == 4000);
  CHECK(found.who->group == 0);
  CHECK(std::string(found.who->home) == "/");
  CHECK(found.groups() == std::vector<gid_t>{0});
}

TEST_CASE("user_that_is_empty_is_root") {
  Files files(kPasswd, kGroup);
  Found found = files.find("");
  REQUIRE(found.code == 0);
  CHECK(found.who->id == 0);
  CHECK(std::string(found.who->home) == "/root");
  CHECK(found.groups() == std::vector<gid_t>{0, 10});
}

TEST_CASE("user_with_a_group_has_that_one_alone") {
  Files files(kPasswd, kGroup);
  for (const char* name : {"anna:docker", "anna:999", "1000:docker", "1000:999"}) {
    CAPTURE(name);
    Found found = files.find(name);
    REQUIRE(found.code == 0);
    CHECK(found.who->id == 1000);
    CHECK(found.who->group == 999);
    CHECK(found.groups() == std::vector<gid_t>{999});
    CHECK(std::string(found.who->home) == "/home/anna");
  }
}

TEST_CASE("groups_that_are_asked_for_replace_those_of_the_file") {
  Files files(kPasswd, kGroup);
  CHECK(files.find("anna", {"wheel", "5", "5", "100"}).groups() == std::vector<gid_t>{100, 10, 5});
}

TEST_CASE("user_or_group_that_is_not_there_is_named") {
  Files files(kPasswd, kGroup);
  for (const char* name : {"bob", "short", "strange", "many", "# a comment", "x", "anna\n"}) {
    CAPTURE(name);
    Found found = files.find(name);
    CHECK(found.code == ENOENT);
    CHECK(found.part == USER_PART_USER);
  }
  CHECK(files.find(std::string(5000, 'x')).code == ENOENT);
  for (const char* name : {"4294967295", "99999999999999999999999"}) {
    CHECK(files.find(name).code == EINVAL);
    CHECK(files.find("anna:" + std::string(name)).code == EINVAL);
  }
  for (const char* name : {"anna:nobody", "anna:", "anna:docker:x", "1000:short"}) {
    CAPTURE(name);
    Found found = files.find(name);
    CHECK(found.code == ENOENT);
    CHECK(found.part == USER_PART_GROUP);
  }
  Found found = files.find("anna", {"wheel", "nobody"});
  CHECK(found.code == ENOENT);
  CHECK(found.part == USER_PART_GROUPS + 1);
}

TEST_CASE("user_without_the_files_is_a_number") {
  Files files("", "");
  files.remove();
  CHECK(files.find("").code == 0);
  CHECK(files.find("12:13", {"14"}).groups() == std::vector<gid_t>{13, 14});
  CHECK(files.find("root").code == ENOENT);
  CHECK(files.find("0:root").code == ENOENT);
}

TEST_CASE("user_behind_a_line_without_end_is_found") {
  std::string monster(300000, 'x');
  Files files(monster + ":x:1:1::/:/bin/sh\nanna:x:5:6::/:/bin/sh\n",
              "g:x:1:" + monster + "\nusers:x:7:anna\n");
  Found found = files.find("anna");
  REQUIRE(found.code == 0);
  CHECK(found.who->id == 5);
  CHECK(found.groups() == std::vector<gid_t>{6, 7});
}

TEST_CASE("user_in_more_groups_than_may_be_is_refused") {
  std::string group;
  for (int i = 0; i < 2000; i++) group += "g:x:" + std::to_string(i + 5000) + ":anna\n";
  Files files(kPasswd, group);
  CHECK(files.find("anna").code == E2BIG);
}

TEST_CASE("user_files_of_random_bytes_do_no_harm") {
  std::mt19937 random(5);
  for (int round = 0; round < 200; round++) {
    std::string passwd = kPasswd;
    std::string group = kGroup;
    for (int change = 0; change < 5; change++) {
      passwd[random() % passwd.size()] = ":\n\0,9"[random() % 5];
      group[random() % group.size()] = ":\n\0,9"[random() % 5];
    }
    Files files(passwd, group);
    for (const char* name : {"anna", "", "1000:docker"}) {
      Found found = files.find(name);
      CHECK((found.code == 0 || found.code == ENOENT));
    }
  }
}
