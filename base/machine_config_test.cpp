// SPDX-License-Identifier: Apache-2.0
#include "base/machine_config.hpp"

#include <doctest/doctest.h>

namespace msb {
namespace {

MachineConfig example() {
  MachineConfig config;
  config.memory_mib = 256;
  config.vcpus = 2;
  config.kernel = 0;
  config.initramfs = 1;
  config.command_line = "quiet \"x\"";
  config.share_tag = "msb";
  config.shared_files = {{"boot", kNoDescriptor, "line\nline\n"}, {"layers/0.erofs", 2, ""}};
  config.outlive_launcher = true;
  config.disks = {{3, kNoDescriptor, 512, 1 << 20, true}, {4, 5, 4096, 1ULL << 40, false}};
  config.host_ports = {1024};
  return config;
}

TEST_CASE("a configuration survives the way through JSON") {
  const MachineConfig config = example();
  auto read = MachineConfig::from_json(config.to_json());
  REQUIRE(read);
  CHECK(read->memory_mib == 256);
  CHECK(read->vcpus == 2);
  CHECK(read->console == kNoDescriptor);
  CHECK(read->command_line == config.command_line);
  REQUIRE(read->shared_files.size() == 2);
  CHECK(read->shared_files[0].text == "line\nline\n");
  CHECK(read->shared_files[1].descriptor == 2);
  CHECK(read->outlive_launcher);
  REQUIRE(read->disks.size() == 2);
  CHECK(read->disks[0].read_only);
  CHECK(read->disks[0].direct == kNoDescriptor);
  CHECK(read->disks[1].direct == 5);
  CHECK(read->disks[1].alignment == 4096);
  CHECK(read->disks[1].size == 1ULL << 40);
  CHECK(read->host_ports == config.host_ports);
}

TEST_CASE("disks of impossible alignments, and too many, are refused") {
  for (const std::uint32_t alignment : {0U, 1U, 256U, 513U, 3000U, 1U << 17, ~0U}) {
    MachineConfig config = example();
    config.disks[0].alignment = alignment;
    CHECK_FALSE(MachineConfig::from_json(config.to_json()));
  }
  MachineConfig config = example();
  config.disks.resize(kMaxDisks);
  CHECK(MachineConfig::from_json(config.to_json()));
  config.disks.resize(kMaxDisks + 1);
  CHECK_FALSE(MachineConfig::from_json(config.to_json()));
}

TEST_CASE("configurations that are no configurations are refused") {
  for (const char* json :
       {"", "{", "[]", "{}", "{\"machine\":7}", "{\"machine\":{\"version\":\"x\"}}"}) {
    CAPTURE(json);
    CHECK_FALSE(MachineConfig::from_json(json));
  }
}

TEST_CASE("impossible sizes are refused") {
  for (const std::uint64_t memory :
       {std::uint64_t{0}, kMinMemoryMib - 1, kMaxMemoryMib + 1, ~std::uint64_t{0}}) {
    MachineConfig config = example();
    config.memory_mib = memory;
    CHECK_FALSE(MachineConfig::from_json(config.to_json()));
  }
  for (const std::uint32_t vcpus : {0u, kMaxVcpus + 1, ~0u}) {
    MachineConfig config = example();
    config.vcpus = vcpus;
    CHECK_FALSE(MachineConfig::from_json(config.to_json()));
  }
}

}  // namespace
}  // namespace msb
