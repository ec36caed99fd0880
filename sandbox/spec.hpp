// SPDX-License-Identifier: Apache-2.0
// What a sandbox is to be: the fields of a Sandboxfile's entry, of `msb exe` and of `msb install`.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace msb::sandbox {

// What it may reach on the network: a preset of base/network_policy.hpp.
enum class Scope : std::uint8_t { kNone, kGroup, kPublic, kAny };

// A directory or file of this host in the sandbox.
struct Volume {
  std::string host;   // as it was written; relative to the directory that the words belong to
  std::string guest;  // absolute
  bool read_only = false;
  bool operator==(const Volume&) const = default;
};

// Empty and absent members leave what the image says, or the default.
struct SandboxSpec {
  std::string image;  // a reference, an OCI layout (LAYOUT[:TAG]), or a directory (./ or /)
  std::optional<std::uint32_t> cpus;
  std::optional<std::uint32_t> memory_mib;
  std::optional<std::uint64_t> disk_mib;   // of the writable layer
  std::optional<std::uint32_t> processes;  // at most so many at a time, threads among them
  std::vector<Volume> volumes;
  std::vector<std::string> ports;      // words of base/publish.hpp
  std::vector<std::string> envs;       // NAME=VALUE
  std::vector<std::string> env_files;  // relative to the directory that the words belong to
  std::vector<std::string> depends_on;
  std::string workdir;
  std::string user;
  std::string shell;
  std::map<std::string, std::string, std::less<>> scripts;  // name to body; "start" is special
  std::vector<std::string> command;
  std::optional<Scope> scope;
  std::vector<std::string> network;             // rules of base/network_policy.hpp, before scope
  std::optional<std::uint32_t> timeout_s;       // it is stopped after so long
  std::optional<std::uint32_t> idle_timeout_s;  // it is stopped when nothing happened for so long
  bool operator==(const SandboxSpec&) const = default;
};

}  // namespace msb::sandbox
