// SPDX-License-Identifier: Apache-2.0
#include "launcher/open_image.hpp"

#include <poll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

#include "base/home.hpp"
#include "base/spawn.hpp"
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

// Signals that are blocked here, to be read as messages later, and mean the end.
sigset_t ending_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    ::sigaddset(&set, signal);
  }
  return set;
}

// Waits for the child, which gets such a signal too, and is ended when the starter is gone. Whether
// either came.
Result<bool> wait_or_interrupt(const Spawned& child, int starter) {
  const sigset_t set = ending_signals();
  const Fd signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) {
    return fail_errno(errno, "cannot watch for signals");
  }
  bool interrupted = false;
  const auto end = [&child](unsigned signal) {
    ::syscall(SYS_pidfd_send_signal, child.process.get(), signal, nullptr, 0);
  };
  std::array<pollfd, 3> entries = {pollfd{child.process.get(), POLLIN, 0},
                                   pollfd{signals.get(), POLLIN, 0}, pollfd{starter, 0, 0}};
  while (entries[0].revents == 0) {
    if (::poll(entries.data(), entries.size(), -1) < 0 && errno != EINTR) {
      return fail_errno(errno, "cannot wait for a pull");
    }
    signalfd_siginfo info{};
    if (entries[1].revents != 0 &&
        ::read(signals.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      interrupted = true;
      end(info.ssi_signo);
    }
    if (entries[2].revents != 0) {
      interrupted = true;
      entries[2].fd = -1;  // told once
      end(SIGTERM);
    }
  }
  return interrupted;
}

// By the program beside this one, so that only it brings what speaks to registries.
Result<void> pull(const std::string& image, int starter) {
  const auto directory = program_directory();
  if (!directory) {
    return std::unexpected(directory.error());
  }
  Spawn spawn;
  // Its result is for people; this program's standard output belongs to the command.
  spawn.null(STDIN_FILENO);
  spawn.null(STDOUT_FILENO);
  // What this program inherited, a sandbox's locks among it, ends with this program.
  spawn.close_from(STDERR_FILENO + 1);
  const auto child = spawn.start(*directory + "/msb-registry", {"msb", "pull", "--", image});
  if (!child) {
    return std::unexpected(
        child.error().within(fmt::format("the image '{}' cannot be pulled", image)));
  }
  const auto interrupted = wait_or_interrupt(*child, starter);
  const int status = wait_for(*child);
  if (!interrupted) {
    return std::unexpected(interrupted.error());
  }
  if (*interrupted) {
    return fail("interrupted while the image '{}' was pulled", image);
  }
  if (status != 0) {
    return fail("the image '{}' is not here and was not pulled", image);
  }
  return {};
}

Result<OpenImage> open_reference(const std::string& argument, const std::string& home,
                                 int starter) {
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
    if (auto pulled = pull(argument, starter); !pulled) {
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

Result<OpenImage> open_image(const std::string& argument, int starter) {
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
  auto image = layout ? open_layout(*layout, *home) : open_reference(argument, *home, starter);
  if (image && image->layers.empty()) {
    return fail("image '{}' has no layers, so there is nothing to run", argument);
  }
  return image;
}

}  // namespace msb::launcher
