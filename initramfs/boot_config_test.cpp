// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/boot_config.h"
}

#include <doctest/doctest.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "protocol/msb_boot.h"
#include "protocol/msb_exec.h"

namespace {

struct Parsed {
  bool ok = false;
  boot_config config{};
  failure why{};
  std::vector<char> text;  // of exactly the size that the parser may touch

  explicit Parsed(const std::string& file) : text(file.begin(), file.end()) {
    text.push_back('x');
    text.shrink_to_fit();
    ok = boot_config_parse(text.data(), file.size(), &config, &why);
  }
};

const std::string kMagic = "msb-boot 1\n";

}  // namespace

TEST_CASE("boot_config_with_layers_and_hostname_keeps_their_order") {
  Parsed parsed(kMagic + "layer layers/a.erofs\nhostname box-1\nlayer layers/b c.erofs\n");
  REQUIRE(parsed.ok);
  REQUIRE(parsed.config.layer_count == 2);
  CHECK(std::string(parsed.config.layers[0]) == "layers/a.erofs");
  CHECK(std::string(parsed.config.layers[1]) == "layers/b c.erofs");
  CHECK(std::string(parsed.config.hostname) == "box-1");
}

TEST_CASE("boot_config_with_volumes_keeps_them_and_takes_no_more_than_the_limit") {
  std::string file = kMagic + "layer a\nvolume /data\nvolume /var/my lib\n";
  Parsed parsed(file);
  REQUIRE(parsed.ok);
  REQUIRE(parsed.config.volume_count == 2);
  CHECK(std::string(parsed.config.volumes[1]) == "/var/my lib");
  for (unsigned i = 2; i < BOOT_VOLUMES_MAX; i++) file += "volume /v\n";
  CHECK(Parsed(file).ok);
  CHECK(Parsed(file + "volume /v\n").why.code == E2BIG);
}

TEST_CASE("boot_config_with_shares_splits_mode_path_and_target_and_takes_no_more_than_the_limit") {
  std::string file = kMagic + "layer a\nshare rw shares/0 /work\nshare ro shares/1 /my data/x\n";
  Parsed parsed(file);
  REQUIRE(parsed.ok);
  REQUIRE(parsed.config.share_count == 2);
  CHECK_FALSE(parsed.config.shares[0].read_only);
  CHECK(std::string(parsed.config.shares[0].path) == "shares/0");
  CHECK(std::string(parsed.config.shares[0].target) == "/work");
  CHECK(parsed.config.shares[1].read_only);
  CHECK(std::string(parsed.config.shares[1].target) == "/my data/x");
  for (unsigned i = 2; i < BOOT_SHARES_MAX; i++) file += "share rw a /b\n";
  CHECK(Parsed(file).ok);
  CHECK(Parsed(file + "share rw a /b\n").why.code == E2BIG);
}

TEST_CASE("boot_config_with_a_writable_layer_and_a_limit_of_processes_keeps_both") {
  Parsed parsed(kMagic + "layer a\nupper vdc\nprocesses 100\n");
  REQUIRE(parsed.ok);
  CHECK(std::string(parsed.config.upper) == "vdc");
  CHECK(parsed.config.processes == 100);
  CHECK(Parsed(kMagic + "layer a\nprocesses 16\n").ok);
  CHECK(Parsed(kMagic + "layer a\nprocesses 4194304\n").ok);
  Parsed without(kMagic + "layer a\n");
  REQUIRE(without.ok);
  CHECK(without.config.upper == nullptr);
  CHECK(without.config.processes == 0);
}

TEST_CASE("boot_config_has_a_root_or_layers") {
  Parsed parsed(kMagic + "root the root\n");
  REQUIRE(parsed.ok);
  CHECK(std::string(parsed.config.root) == "the root");
  CHECK(parsed.config.layer_count == 0);
  CHECK_FALSE(Parsed(kMagic + "root a\nlayer b\n").ok);
  CHECK_FALSE(Parsed(kMagic + "root a\nroot b\n").ok);
}

TEST_CASE("boot_config_without_hostname_or_last_newline_is_accepted") {
  Parsed parsed(kMagic + "layer a..b/..c");
  REQUIRE(parsed.ok);
  CHECK(parsed.config.hostname == nullptr);
  CHECK(std::string(parsed.config.layers[0]) == "a..b/..c");
}

TEST_CASE("boot_config_that_is_wrong_is_refused") {
  const std::string nul("msb-boot 1\nlayer a\0b\n", 20);
  for (const std::string& file : {std::string(),
                                  std::string("\n"),
                                  std::string("msb-boot 2\nlayer a\n"),
                                  std::string("msb-boot 1"),
                                  kMagic,
                                  kMagic + "layer\n",
                                  kMagic + "layer \n",
                                  kMagic + "layer /a\n",
                                  kMagic + "layer ..\n",
                                  kMagic + "layer a/../b\n",
                                  kMagic + "layer a/..\n",
                                  kMagic + "layer ../a\n",
                                  kMagic + "\nlayer a\n",
                                  kMagic + "layer a\nbogus 1\n",
                                  kMagic + " layer a\n",
                                  kMagic + "layer a\nhostname a\nhostname b\n",
                                  kMagic + "layer a\nhostname \n",
                                  kMagic + "layer a\nhostname a b\n",
                                  kMagic + "layer a\nhostname a/b\n",
                                  kMagic + "layer a\nshare rw b\n",
                                  kMagic + "layer a\nshare\n",
                                  kMagic + "layer a\nshare r b /c\n",
                                  kMagic + "layer a\nshare rw /b /c\n",
                                  kMagic + "layer a\nshare rw ../b /c\n",
                                  kMagic + "layer a\nshare rw  /c\n",
                                  kMagic + "layer a\nshare rw b c\n",
                                  kMagic + "layer a\nprocesses 15\n",
                                  kMagic + "layer a\nprocesses 4194305\n",
                                  kMagic + "layer a\nprocesses 4294967396\n",
                                  kMagic + "layer a\nprocesses 100 \n",
                                  kMagic + "layer a\nprocesses -1\n",
                                  kMagic + "layer a\nprocesses \n",
                                  kMagic + "layer a\nprocesses 20\nprocesses 20\n",
                                  kMagic + "layer a\nupper vda\nupper vdb\n",
                                  kMagic + "layer a\nupper sda\n",
                                  kMagic + "layer a\nupper vd\n",
                                  kMagic + "layer a\nupper vdaa\n",
                                  kMagic + "layer a\nupper ../vda\n",
                                  kMagic + "root /a\n",
                                  kMagic + "root ../a\n",
                                  kMagic + "root \n",
                                  kMagic + "layer a\nvolume data\n",
                                  kMagic + "layer a\nvolume \n",
                                  kMagic + "layer a\nhostname " + std::string(65, 'h') + "\n",
                                  nul}) {
    CAPTURE(file);
    Parsed parsed(file);
    CHECK_FALSE(parsed.ok);
    CHECK(parsed.why.stage == MSB_STAGE_BOOT);
    CHECK(parsed.why.code == EINVAL);
    CHECK(std::strlen(parsed.why.text) > 0);
  }
}

TEST_CASE("boot_config_names_the_offending_line") {
  Parsed parsed(kMagic + "layer a\nbogus 1\n");
  CHECK(std::string(parsed.why.text).find("line 3: unknown key \"bogus\"") != std::string::npos);
}

TEST_CASE("boot_config_takes_as_many_layers_as_overlayfs_and_no_more") {
  std::string file = kMagic;
  for (unsigned i = 0; i < BOOT_LAYERS_MAX; i++) file += "layer l\n";
  CHECK(Parsed(file).ok);
  Parsed parsed(file + "layer l\n");
  CHECK_FALSE(parsed.ok);
  CHECK(parsed.why.code == E2BIG);
}

TEST_CASE("boot_config_takes_files_up_to_the_limit") {
  std::string file = kMagic + "layer ";
  file.append(MSB_BOOT_MAX - file.size(), 'a');
  CHECK(Parsed(file).ok);
  Parsed parsed(file + "a");
  CHECK_FALSE(parsed.ok);
  CHECK(parsed.why.code == E2BIG);
}
