// SPDX-License-Identifier: Apache-2.0
#include "sandbox/compose.hpp"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <utility>

#include "oci/printable.hpp"
#include "sandbox/consent.hpp"
#include "sandbox/env_file.hpp"
#include "sandbox/files.hpp"

namespace msb::sandbox {

Result<std::vector<std::string>> read_variables(const SandboxSpec& spec,
                                                const std::string& directory) {
  std::vector<std::string> variables;
  for (const std::string& file : spec.env_files) {
    const std::string path = (std::filesystem::path(directory) / file).string();
    const auto text = read_file(path, kMaxEnvFile);
    if (!text) {
      return std::unexpected(text.error());
    }
    if (!*text) {
      return fail("there is no file of variables '{}'", oci::printable(path));
    }
    auto parsed = parse_env_file(**text, file);
    if (!parsed) {
      return std::unexpected(parsed.error());
    }
    std::ranges::move(*parsed, std::back_inserter(variables));
  }
  variables.insert(variables.end(), spec.envs.begin(), spec.envs.end());
  return variables;
}

Result<LaunchOptions> compose(const Identity& who, const SandboxSpec& spec,
                              const std::string& directory, const ImageChoice& image,
                              const std::string& home) {
  LaunchOptions options;
  options.who = who;
  options.spec = spec;
  options.image = image.image;
  options.rootfs = image.rootfs;
  options.home = home;
  for (const Volume& volume : spec.volumes) {
    auto opened = open_volume(volume, directory);
    if (!opened) {
      return std::unexpected(opened.error());
    }
    options.volumes.push_back(std::move(*opened));
  }
  auto variables = read_variables(spec, directory);
  if (!variables) {
    return std::unexpected(variables.error());
  }
  options.environment = std::move(*variables);
  return options;
}

}  // namespace msb::sandbox
