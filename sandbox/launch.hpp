// SPDX-License-Identifier: Apache-2.0
// Starts a sandbox: makes its directories and its disk, and leaves the rest to msb-vmm, which
// supervises it from then on.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "sandbox/identity.hpp"
#include "sandbox/program.hpp"
#include "sandbox/runtime_directory.hpp"
#include "sandbox/spec.hpp"
#include "sandbox/state_directory.hpp"

namespace msb::sandbox {

// The errno of the error when the sandbox runs already.
inline constexpr int kAlreadyRunning = 114;  // EALREADY

// What runs in it.
struct Task {
  std::vector<std::string> command;  // empty: the image's own
  bool no_entrypoint = false;        // the command is all
  bool idle = false;                 // nothing: it is there to be entered
  bool extend = false;               // the command follows the image's own
  bool operator==(const Task&) const = default;
};

// A directory or file of this host, as it was judged, for the sandbox.
struct OpenVolume {
  Fd file;           // O_PATH
  std::string path;  // what that is, resolved
  std::string guest;
  bool read_only = false;
};

struct LaunchOptions {
  Identity who;
  SandboxSpec spec;                         // volumes, env_files, depends_on: see below
  std::string image;                        // what msb-vmm is to run: --image, or
  std::optional<OpenVolume> rootfs;         // --rootfs
  PinnedImage pin;                          // which image that is, for one that keeps its state
  std::vector<OpenVolume> volumes;          // the spec's
  std::vector<std::string> environment;     // NAME=VALUE, the spec's and those of its files
  std::vector<std::string> variable_files;  // that these were read from, by their real paths
  std::vector<std::string> hosts;           // NAME=SOCKET:PORT, of what it depends on
  Task task;
  bool background = false;  // it outlives this program
  bool bound = false;       // it ends with this program, which has no streams for it
  bool terminal = false;    // the command gets one
  bool aside = false;       // it is only looked at: its log and its record stay as they are
  std::string home;         // $MSB_HOME, for a temporary one's disk
  // With the lock of its state, before the supervisor has that: what else is to be kept with it.
  std::function<Result<void>(const StateDirectory&)> keep;
  bool timing = false;  // the phases of its start on standard error
};

// A supervisor that was started, and what it says.
class Launched {
 public:
  using Json = nlohmann::ordered_json;

  [[nodiscard]] const Running& running() const { return running_; }
  [[nodiscard]] const Spawned& supervisor() const { return supervisor_; }
  // Readable when there is something for next_event().
  [[nodiscard]] const Fd& events() const { return events_; }

  // Its next word ({"event": ...}); nothing when it has ended, or `patience` is over.
  std::optional<Json> next_event(std::optional<std::chrono::milliseconds> patience = std::nullopt);

  // Waits for its end, and removes what is left of it: an exit status.
  int finish();

 private:
  friend Result<Launched> launch(LaunchOptions options);
  Running running_;
  Spawned supervisor_;
  Fd events_;
  std::string received_;
};

// Fails with code kAlreadyRunning when it runs. What was made for a start that fails is removed.
Result<Launched> launch(LaunchOptions options);

// What a sandbox runs, of its spec and the words of a user:
//   exec     a program, with `arguments` behind; else
//   script   one of the spec's scripts, likewise; else its script "start", its command, its shell,
//            whichever is the first that it declares; else the image's own command, in whose place
//            `arguments` are
// In the background a shell that has no arguments is not run: the sandbox is there to be entered.
struct TaskWords {
  std::string exec;
  std::string script;
  std::vector<std::string> arguments;
};
Result<Task> choose_task(const SandboxSpec& spec, const TaskWords& words, bool background);

// A shell of the sandbox's: the one that the spec names, else bash or sh, whichever there is.
std::vector<std::string> shell_command(const SandboxSpec& spec);

// Where scripts are in the sandbox, as in the 0.2 line.
inline constexpr const char* kScriptsDirectory = "/.sandbox/scripts";

}  // namespace msb::sandbox
