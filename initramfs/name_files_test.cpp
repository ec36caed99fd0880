// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/name_files.h"

#include "initramfs/file_layers.h"
}

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <sstream>
#include <string>

namespace {

std::string text_of(buffer* text) {
  std::string made(reinterpret_cast<const char*>(buffer_bytes(text)), buffer_length(text));
  buffer_free(text);
  return made;
}

boot_config full_config() {
  boot_config config{};
  config.hostname = "box";
  config.network.nameserver_count = 2;
  config.network.nameservers[0] = "127.0.0.53";
  config.network.nameservers[1] = "2001:db8::53";
  config.network.search = "example.com a.b";
  config.network.host_count = 1;
  config.network.hosts[0] = {.name = "db", .address = "192.0.2.7"};
  return config;
}

const std::string kResolver =
    "search example.com a.b\nnameserver 127.0.0.53\nnameserver 2001:db8::53\n";
const std::string kHosts =
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tbox\n"
    "192.0.2.7\tdb\n";

std::string content(const char* path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

/// The exit status of `act` in a process whose root is an empty directory, and whose host name is
/// its own.
int in_empty_root(const std::function<int()>& act) {
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(20);
    if (unshare(CLONE_NEWNS | CLONE_NEWUTS) != 0 ||
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", "/mnt", "tmpfs", 0, nullptr) != 0 || chroot("/mnt") != 0 ||
        chdir("/") != 0) {
      _exit(90);
    }
    _exit(act());
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool is_root() {
  if (geteuid() == 0) return true;
  MESSAGE("skipped: only root can have a root of its own");
  return false;
}

}  // namespace

TEST_CASE("name_files_have_a_line_for_each_that_the_boot_file_has") {
  boot_config config = full_config();
  buffer text{};
  REQUIRE(name_files_resolver(&config.network, &text));
  CHECK(text_of(&text) == kResolver);
  REQUIRE(name_files_hosts(&config, &text));
  CHECK(text_of(&text) == kHosts);
}

TEST_CASE("name_files_are_written_anew_and_etc_is_made") {
  if (!is_root()) return;
  CHECK(in_empty_root([] {
          boot_config config = full_config();
          failure why{};
          if (!name_files_write(&config, &why)) return 1;
          if (content("/etc/resolv.conf") != kResolver || content("/etc/hosts") != kHosts) return 2;
          char name[65] = {};
          gethostname(name, sizeof name);
          if (std::string(name) != "box" || content("/etc/hostname") != "box\n") return 3;
          std::ofstream("/etc/hosts") << "the image's\n";
          unlink("/etc/resolv.conf");
          if (symlink("/elsewhere", "/etc/resolv.conf") != 0) return 4;
          if (!name_files_write(&config, &why) || content("/etc/hosts") != kHosts) return 5;
          return access("/elsewhere", F_OK) != 0 && content("/etc/resolv.conf") == kResolver ? 0
                                                                                             : 6;
        }) == 0);
}

TEST_CASE("name_files_of_an_image_stay_when_the_boot_file_says_nothing_of_them") {
  if (!is_root()) return;
  CHECK(in_empty_root([] {
          boot_config config{};
          failure why{};
          if (!name_files_write(&config, &why) || access("/etc", F_OK) == 0) return 1;
          mkdir("/etc", 0755);
          std::ofstream("/etc/hosts") << "the image's\n";
          config.network.search = "example.com";
          if (!name_files_write(&config, &why)) return 2;
          if (content("/etc/hosts") != "the image's\n") return 3;
          return access("/etc/resolv.conf", F_OK) == 0 ? 4 : 0;
        }) == 0);
}

TEST_CASE("name_files_of_an_earlier_boot_are_the_inits_until_somebody_changes_them") {
  if (!is_root()) return;
  CHECK(in_empty_root([] {
          boot_config config = full_config();
          failure why{};
          if (file_layers_is_as_written("etc/hosts") || !name_files_write(&config, &why)) return 1;
          if (!file_layers_is_as_written("etc/hosts")) return 2;
          if (!file_layers_is_as_written("/etc/resolv.conf")) return 3;
          config.network.host_count = 0;
          if (!name_files_write(&config, &why)) return 4;
          if (content("/etc/hosts").find("db") != std::string::npos) return 5;
          std::ofstream("/etc/hosts") << "somebody's\n";
          if (file_layers_is_as_written("etc/hosts") || !name_files_write(&config, &why)) return 6;
          if (content("/etc/hosts") != "somebody's\n") return 7;
          // Nobody hides a file of another name so.
          std::ofstream("/etc/other") << "x";
          int file = open("/etc/other", O_RDWR);
          file_layers_wrote(file);
          close(file);
          return file_layers_is_as_written("etc/other") ? 8 : 0;
        }) == 0);
}

TEST_CASE("name_files_after_one_that_cannot_be_written_are_written") {
  if (!is_root()) return;
  CHECK(in_empty_root([] {
          boot_config config = full_config();
          failure why{};
          mkdir("/etc", 0755);
          mkdir("/etc/hosts", 0755);
          if (name_files_write(&config, &why)) return 1;
          if (std::string(why.text).find("/etc/hosts") == std::string::npos) return 2;
          return content("/etc/resolv.conf") == kResolver ? 0 : 3;
        }) == 0);
}
