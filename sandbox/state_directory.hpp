// SPDX-License-Identifier: Apache-2.0
// What a project or installed sandbox keeps, in a directory of its own: menv/NAME of a project, or
// installed/NAME below $MSB_HOME.
//
//   lock             held while it runs, by its supervisor; says the id of its runtime directory
//   sandbox.json     the image that the disk's content lies on
//   disk.ext4        all that was written in it
//   scripts/         the scripts of its Sandboxfile, as the sandbox sees them
//   output.log       what its command wrote (JSON lines), output.log.1 before that
//   exit.json        how it ended the last time
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::sandbox {

// The image that a disk belongs to: what is written on it lies on the layers of this one alone.
struct PinnedImage {
  std::string reference;  // as the Sandboxfile said it
  std::string digest;     // of its manifest; empty: a directory of this host
};

// How a sandbox ended.
struct ExitRecord {
  int status = 0;
  std::string message;
  std::string cause;  // exited, stopped, timeout, idle, failed
  std::int64_t started_ms = 0;
  std::int64_t ended_ms = 0;
  std::vector<std::string> kernel;  // the last lines of its kernel, when it failed
};

struct LockedState;

class StateDirectory {
 public:
  explicit StateDirectory(std::string path) : path_(std::move(path)) {}

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string file(std::string_view name) const {
    return fmt::format("{}/{}", path_, name);
  }
  [[nodiscard]] std::string disk() const { return file("disk.ext4"); }
  [[nodiscard]] std::string log() const { return file("output.log"); }
  [[nodiscard]] std::string record() const { return file("exit.json"); }

  // Makes it when it is missing. Fails when it, or the directory that it is in, is no directory of
  // this user's.
  Result<void> make() const;
  [[nodiscard]] bool exists() const;

  // The lock; nothing when it runs. The directory is made when it is missing.
  [[nodiscard]] Result<std::optional<LockedState>> lock() const;
  // The same; waits for those who have it for a moment, to look or to remove: they say no id.
  // `ended`: the id of one that is known to have ended, whose last process is about to let go.
  [[nodiscard]] Result<std::optional<LockedState>> lock_when_free(
      std::string_view ended = {}) const;
  // Removes it, with all that is in it: the space that its disk took. Nothing when it runs. Fails
  // for a directory that is not what a sandbox has kept, which is one with a lock.
  [[nodiscard]] Result<std::optional<std::uint64_t>> remove() const;
  // Says the runtime directory's id into the lock that is held.
  static Result<void> say_id(const Fd& lock, std::string_view id);
  // The id while it runs; empty while its start has not come so far; nothing when it does not run.
  [[nodiscard]] Result<std::optional<std::string>> running_id() const;

  [[nodiscard]] Result<std::optional<PinnedImage>> image() const;
  Result<void> pin(const PinnedImage& image) const;

  // How it ended. Nothing while it runs, or when it never has. One whose supervisor was killed has
  // the cause "failed" and says so.
  [[nodiscard]] Result<std::optional<ExitRecord>> exit_record() const;
  // That it is about to run: the record of the last time goes.
  Result<void> begin(std::int64_t now_ms) const;

  // The scripts, each a file that the sandbox can execute; nothing else stays there. Gives their
  // directory. `interpreter`: what follows "#!".
  Result<Fd> write_scripts(const std::vector<std::pair<std::string, std::string>>& scripts,
                           const std::string& interpreter) const;

 private:
  std::string path_;
};

// A state directory whose lock is held. It is reached by descriptors, for a guest that has the
// project's directory may move things about in it: paths of `state` are below /proc/self/fd.
struct LockedState {
  Fd all;  // the directory with the states of the project, or of what is installed
  Fd directory;
  StateDirectory state;  // not to outlive `directory`
  Fd lock;
  std::string path;

  // An error of `state`, with the path that users know.
  [[nodiscard]] Error said(const Error& error) const;
  // Removes it, with all that is in it: the space that its disk took. Nobody finds it half removed.
  Result<std::uint64_t> remove();
};

// The name of what remains when that is interrupted. It goes when another state is locked or
// removed.
bool is_remainder(std::string_view name);
// Removes what there is of these. `all`: the directory with the states.
void remove_remainders(const Fd& all);

}  // namespace msb::sandbox
