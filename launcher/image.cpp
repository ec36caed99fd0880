// SPDX-License-Identifier: Apache-2.0
#include "launcher/image.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <utility>

#include "launcher/paths.hpp"
#include "oci/layer_cache.hpp"
#include "oci/layout.hpp"

namespace msb::launcher {

namespace {

// What container engines give a process when its image says nothing.
constexpr std::string_view kDefaultPath =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

std::string_view name_of(std::string_view variable) {
  return variable.substr(0, variable.find('='));
}

// Sets NAME=VALUE, in place of an earlier value of the name.
void set_variable(std::vector<std::string>& environment, std::string variable) {
  const auto found = std::ranges::find(environment, name_of(variable), name_of);
  if (found != environment.end()) {
    *found = std::move(variable);
  } else {
    environment.push_back(std::move(variable));
  }
}

void set_default(std::vector<std::string>& environment, std::string variable) {
  if (std::ranges::find(environment, name_of(variable), name_of) == environment.end()) {
    environment.push_back(std::move(variable));
  }
}

std::optional<std::uint32_t> parse_id(std::string_view text) {
  std::uint32_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  // The last value means "no change" to the kernel.
  if (error != std::errc() || end != text.data() + text.size() || id == ~std::uint32_t{0}) {
    return std::nullopt;
  }
  return id;
}

}  // namespace

Result<protocol::ProcessSpec> make_process(const oci::ImageConfig& image,
                                           const ProcessOptions& options) {
  protocol::ProcessSpec process;
  process.arguments = image.entrypoint;
  const auto& rest = options.command.empty() ? image.cmd : options.command;
  process.arguments.insert(process.arguments.end(), rest.begin(), rest.end());
  if (process.arguments.empty()) {
    return fail("the image names no command; give one after `--`");
  }

  const std::string& user = options.user.empty() ? image.user : options.user;
  if (!user.empty()) {
    const std::size_t colon = user.find(':');
    const auto id = parse_id(std::string_view(user).substr(0, colon));
    const auto group = colon == std::string::npos
                           ? std::optional<std::uint32_t>(0)
                           : parse_id(std::string_view(user).substr(colon + 1));
    if (!id || !group) {
      return fail("user \"{}\" is not numeric; give UID or UID:GID with --user", user);
    }
    process.user = *id;
    process.group = *group;
  }

  for (const std::string& variable : image.env) {
    set_variable(process.environment, variable);
  }
  for (const std::string& variable : options.environment) {
    if (variable.empty() || variable.starts_with('=')) {
      return fail("environment variable \"{}\" has no name; give NAME=VALUE or NAME", variable);
    }
    if (variable.find('=') != std::string::npos) {
      set_variable(process.environment, variable);
    } else if (const char* value = std::getenv(variable.c_str())) {
      set_variable(process.environment, fmt::format("{}={}", variable, value));
    }
  }
  set_default(process.environment, fmt::format("PATH={}", kDefaultPath));
  set_default(process.environment, process.user == 0 ? "HOME=/root" : "HOME=/");

  process.directory = !options.directory.empty()   ? options.directory
                      : !image.working_dir.empty() ? image.working_dir
                                                   : "/";
  return process;
}

Result<OpenImage> open_image(const std::string& argument) {
  const auto reference = oci::parse_layout_reference(argument);
  if (!reference) {
    return std::unexpected(reference.error());
  }
  const auto layout = oci::Layout::open(reference->path);
  if (!layout) {
    return std::unexpected(layout.error());
  }
  auto image = layout->image(reference->tag);
  if (!image) {
    return std::unexpected(image.error());
  }
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  const auto cache = oci::LayerCache::open(*home + "/layers");
  if (!cache) {
    return std::unexpected(cache.error());
  }
  auto layers = cache->open_layers(*layout, *image);
  if (!layers) {
    return std::unexpected(layers.error());
  }
  return OpenImage{std::move(image->config), std::move(*layers)};
}

}  // namespace msb::launcher
