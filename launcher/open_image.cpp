// SPDX-License-Identifier: Apache-2.0
#include "launcher/open_image.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <utility>

#include "base/home.hpp"
#include "launcher/paths.hpp"
#include "oci/layout.hpp"
#include "oci/settings.hpp"
#include "oci/store/layer_cache.hpp"
#include "oci/store/lookup.hpp"
#include "oci/store/store.hpp"
#include "oci/store/store_lock.hpp"

namespace msb::launcher {
namespace {

Result<OpenImage> open_layout(const oci::LayoutReference& reference, const std::string& home) {
  auto layout = oci::Layout::open(reference.path);
  if (!layout) {
    return std::unexpected(layout.error());
  }
  auto image = layout->image(reference.tag);
  if (!image) {
    return std::unexpected(image.error());
  }
  const auto cache = oci::LayerCache::open(home + "/layers");
  if (!cache) {
    return std::unexpected(cache.error());
  }
  const auto lock = oci::StoreLock::acquire(home, oci::StoreLock::Kind::kShared);
  if (!lock) {
    return std::unexpected(lock.error());
  }
  auto layers = cache->open_layers(layout->blobs(), *image);
  if (!layers) {
    return std::unexpected(layers.error().within(fmt::format("image layout '{}'", reference.path)));
  }
  return OpenImage{std::move(image->config), std::move(*layers)};
}

// By the program beside this one, so that only it brings what speaks to registries.
Result<void> pull(const std::string& argument) {
  const auto directory = program_directory();
  if (!directory) {
    return std::unexpected(directory.error());
  }
  std::string program = *directory + "/msb";
  std::string image = argument;
  std::array<char*, 5> arguments = {program.data(), const_cast<char*>("pull"),
                                    const_cast<char*>("--"), image.data(), nullptr};
  // Its result is for people; this program's standard output belongs to the command.
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  // What this program inherited, a sandbox's locks among it, ends with this program.
  ::posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  // Signals that this program reads as messages are blocked here, and would be there.
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  ::sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t child = -1;
  const int code =
      ::posix_spawn(&child, program.c_str(), &actions, &attributes, arguments.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (code != 0) {
    return fail_errno(code, "cannot pull the image '{}': cannot run '{}'", argument, program);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return fail("the image '{}' is not here and was not pulled", argument);
  }
  return {};
}

Result<OpenImage> open_reference(const std::string& argument, const std::string& home) {
  const auto settings_path = oci::settings_path();
  const auto settings = settings_path
                            ? oci::load_settings(*settings_path)
                            : Result<oci::Settings>(std::unexpected(settings_path.error()));
  if (!settings) {
    return std::unexpected(settings.error());
  }
  auto store = oci::Store::open(home);
  if (!store) {
    return std::unexpected(store.error());
  }
  auto entry = oci::find_image(*store, *settings, argument);
  if (entry && !*entry) {
    if (auto pulled = pull(argument); !pulled) {
      return std::unexpected(pulled.error());
    }
    entry = oci::find_image(*store, *settings, argument);
  }
  if (!entry) {
    return std::unexpected(entry.error());
  }
  if (!*entry) {
    return fail("the image '{}' was removed while it was opened", argument);
  }
  auto image = store->load(**entry);
  if (!image) {
    return std::unexpected(image.error());
  }
  auto layers = store->open_layers(*image);
  if (!layers) {
    return std::unexpected(layers.error().within(fmt::format("image '{}'", argument)));
  }
  return OpenImage{std::move(image->config), std::move(*layers)};
}

}  // namespace

Result<OpenImage> open_image(const std::string& argument) {
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  const auto layout = oci::parse_layout_reference(argument);
  const bool is_path =
      argument.starts_with('/') || argument.starts_with("./") || argument.starts_with("../");
  if (!layout && is_path) {
    return std::unexpected(layout.error());
  }
  auto image = layout ? open_layout(*layout, *home) : open_reference(argument, *home);
  if (image && image->layers.empty()) {
    return fail("image '{}' has no layers, so there is nothing to run", argument);
  }
  return image;
}

}  // namespace msb::launcher
