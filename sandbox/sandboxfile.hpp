// SPDX-License-Identifier: Apache-2.0
// The Sandboxfile: which sandboxes a project has. YAML, documented in docs/sandboxes.md. Pure.
// It may come with a cloned repository: nothing in it is trusted.
//
//   meta: {...}                  # no effect
//   sandboxes:
//     NAME:
//       image: python:3.12      # the only field that has to be there
//       cpus: 2                 # 1 to 64
//       memory: 1G              # or 1024, in MiB
//       disk: 10G               # at most so much is written
//       processes: 500
//       volumes: ["HOST:GUEST[:ro]", "/PATH"]
//       ports: ["HOST:GUEST", "PORT", "ADDRESS:HOST:GUEST/udp"]
//       envs: ["NAME=VALUE"]
//       env_files: [.env]       # or one
//       depends_on: [OTHER]
//       workdir: /PATH
//       user: USER[:GROUP]
//       shell: /bin/bash
//       scripts: {start: TEXT, OTHER: TEXT}
//       command: [WORD, ...]
//       scope: none             # local, public, any
//       network: [deny any]     # rules that decide before it
//       timeout: 1h
//       idle_timeout: 10m
//       version, meta, imports, exports      # no effect
//
// A scalar is taken as it is written, also where YAML has a type for it (1.0, yes). A field that is
// null is as if it were not there. A text for `command` is refused: it could be split into words,
// or be given to a shell, and each surprises somebody.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "sandbox/spec.hpp"
#include "sandbox/yaml_tree.hpp"

namespace msb::sandbox {

inline constexpr std::size_t kMaxSandboxes = 256;
inline constexpr std::size_t kMaxDependencyDepth = 32;

struct Sandboxfile {
  // Where things are written that others may complain about. The vectors go with the spec's.
  struct Places {
    Position name;
    Position image;
    std::vector<Position> volumes;
    std::vector<Position> ports;
    std::vector<Position> env_files;
    std::vector<Position> depends_on;
  };
  struct Entry {
    std::string name;
    SandboxSpec spec;
    Places places;
  };
  std::vector<Entry> sandboxes;  // in the file's order
};

// `name`: the file's, for errors, which are "NAME:LINE:COLUMN: sentence".
Result<Sandboxfile> parse_sandboxfile(std::string_view text, std::string_view name);

// The same from the text's tree.
std::expected<Sandboxfile, YamlFlaw> read_sandboxfile(const YamlNode& root);

}  // namespace msb::sandbox
