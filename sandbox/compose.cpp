// SPDX-License-Identifier: Apache-2.0
#include "sandbox/compose.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <iterator>
#include <utility>

#include "oci/printable.hpp"
#include "sandbox/consent.hpp"
#include "sandbox/env_file.hpp"
#include "sandbox/files.hpp"

namespace msb::sandbox {

Result<Variables> read_variables(const SandboxSpec& spec, const std::string& directory) {
  Variables result;
  for (const std::string& name : spec.env_files) {
    const std::string path = (std::filesystem::path(directory) / name).string();
    // O_NONBLOCK: a FIFO that somebody put there is not waited for.
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!file) {
      return fail_errno(errno, "cannot open the file of variables '{}'", oci::printable(path));
    }
    auto place = real_path(file);
    const auto text =
        place ? read_open_file(file, path, kMaxEnvFile) : std::unexpected(place.error());
    if (!text) {
      return std::unexpected(text.error());
    }
    auto parsed = parse_env_file(*text, name);
    if (!parsed) {
      return std::unexpected(parsed.error());
    }
    result.files.push_back(std::move(*place));
    std::ranges::move(*parsed, std::back_inserter(result.variables));
  }
  result.variables.insert(result.variables.end(), spec.envs.begin(), spec.envs.end());
  return result;
}

Result<LaunchOptions> compose(const Identity& who, const SandboxSpec& spec,
                              const std::string& directory, const ImageChoice& image,
                              const std::string& home) {
  LaunchOptions options;
  options.who = who;
  options.spec = spec;
  options.image = image.image;
  options.home = home;
  if (!image.rootfs.empty()) {
    auto opened = open_volume({image.rootfs, "/", true}, directory);
    if (!opened) {
      return std::unexpected(opened.error());
    }
    options.rootfs = std::move(*opened);
  }
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
  options.environment = std::move(variables->variables);
  options.variable_files = std::move(variables->files);
  return options;
}

}  // namespace msb::sandbox
