// SPDX-License-Identifier: Apache-2.0
// What the operator settled about the server, in server.json beside images.json:
//
//   {
//     "hosts": ["sandbox.example"],           names of this server, beside localhost: host names
//                                             or addresses, without a port
//     "origins": ["https://app.example"],     browser clients that may use it
//     "allow": {
//       "images": ["python", "ghcr.io/me/*"],     references; policy.hpp says what they match
//       "volumes": ["/srv/data:ro", "/srv/work"], directories of this host, and what is below them
//       "ports": ["127.0.0.1:8000-8999"],         of this host, that sandboxes may publish
//       "scope": "public"                         the widest: none, local, public, any
//     },
//     "limits": {
//       "sandboxes": 64, "memory": "32G",     of all that run; the others of each
//       "cpus": 8, "sandbox_memory": "8G", "disk": "20G", "processes": 4096, "lifetime": "1d"
//     }
//   }
//
// Without the file: any image of a registry, no volumes, ports of 127.0.0.1 from 1024 on, scope
// public.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "sandbox/spec.hpp"

namespace msb::server {

// None that may be written has one in it that may only be read.
struct AllowedVolume {
  std::string path;  // absolute, resolved
  bool read_only = false;
};

// Whether `path`, which is resolved, is the volume's own or below it.
bool is_in(const std::string& path, const AllowedVolume& volume);

struct AllowedPorts {
  std::string address;  // 127.0.0.1, ::1, 0.0.0.0, ...: as SocketAddress::text() writes it
  std::uint16_t first = 0;
  std::uint16_t last = 0;
};

struct Settings {
  std::vector<std::string> hosts;    // lower case; IPv6 addresses in brackets
  std::vector<std::string> origins;  // as browsers send them (RFC 6454, section 6.2)
  std::vector<std::string> images = {"*"};
  std::vector<AllowedVolume> volumes;
  std::vector<AllowedPorts> ports = {{"127.0.0.1", 1024, 65535}};
  sandbox::Scope scope = sandbox::Scope::kPublic;
  std::uint32_t max_sandboxes = 64;
  std::optional<std::uint32_t> max_memory_mib;  // of all that run
  std::uint32_t max_cpus = 8;                   // of each, as are the next
  std::uint32_t max_sandbox_memory_mib = 8192;
  std::uint64_t max_disk_mib = 20 * 1024;
  std::optional<std::uint32_t> max_processes;
  std::optional<std::uint32_t> max_lifetime_s;
};

// Fails with a sentence that names the key: unknown, of a wrong type, or what it cannot be.
Result<Settings> parse_server_settings(std::string_view json);
// "server.json" where images.json is.
Result<std::string> server_settings_path();
// The file at `path`; the default settings when there is none.
Result<Settings> load_server_settings(const std::string& path);

}  // namespace msb::server
