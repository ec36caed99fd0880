// SPDX-License-Identifier: Apache-2.0
// What the control socket's methods do (docs/control.md), apart from sockets.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "launcher/disk.hpp"
#include "launcher/json_rpc.hpp"
#include "launcher/machine_requests.hpp"
#include "launcher/running_shares.hpp"

namespace msb::launcher {

// The sandbox as it was started.
struct SandboxFacts {
  std::uint64_t memory_mib = 0;
  std::uint64_t cpus = 0;
  std::vector<RunningDisk> disks;
  std::list<RunningShare> shares;
  Json network;  // as `status` shows it
  std::string name{};
  std::string image{};                     // what --image or --rootfs said
  std::vector<std::string> command{};      // with its arguments; empty: none of its own
  std::vector<std::string> environment{};  // that of its command, as are the next two
  std::string directory{};
  std::string user{};
  std::vector<std::string> entrypoint{};     // the image's, as is the next
  std::vector<std::string> image_command{};  // its CMD
  std::uint64_t started_ms = 0;              // since 1970
  bool background = false;
};

// How it is to stop; what is absent is as at SIGTERM.
struct StopWords {
  std::optional<std::uint32_t> signal{};
  std::optional<std::uint32_t> grace_ms{};
};

class ControlMethods {
 public:
  // Who calls a method.
  struct Caller {
    // Runs once, inside call() or later.
    std::function<void(const RpcResult<Json>& answer)> answer;
    // It wants events.
    std::function<void()> subscribe;
  };
  // What is done outside of here.
  struct Orders {
    std::function<void(const StopWords&)> stop;
    std::function<void()> kill;
  };
  // Gets every event; `details`: the members that only this kind has.
  using Event = std::function<void(std::string_view event, Json details)>;

  // `machine` must not answer any more once this is destroyed, nor `shares`.
  ControlMethods(MachineRequests& machine, RunningShares& shares, SandboxFacts facts, Event event);

  // Carries out a request, or says why not.
  void call(const RpcRequest& request, const Caller& caller);

  // Who carries out orders. To be called before call().
  void obey(Orders orders) { orders_ = std::move(orders); }

  // What became of the sandbox; each counts once, and later ones only. `process`: the command's id,
  // if there is one; `message`: what there is to say about the end, or nothing.
  void running(std::optional<std::uint32_t> process);
  void stopping();
  void stopped(int exit_status, const std::string& message);
  void in_background() { facts_.background = true; }

 private:
  enum class State { kStarting, kRunning, kStopping, kStopped };
  struct Method;
  static const Method kMethods[];

  void status(const Json& parameters, const Caller& caller);
  void counters(const Json& parameters, const Caller& caller);
  void pause(const Json& parameters, const Caller& caller);
  void resume(const Json& parameters, const Caller& caller);
  void set_disk_size(const Json& parameters, const Caller& caller);
  void set_balloon(const Json& parameters, const Caller& caller);
  void add_share(const Json& parameters, const Caller& caller);
  void remove_share(const Json& parameters, const Caller& caller);
  void subscribe(const Json& parameters, const Caller& caller);
  void stop(const Json& parameters, const Caller& caller);
  void kill(const Json& parameters, const Caller& caller);

  void on_resized(std::size_t index, std::uint64_t size);
  void set_paused(bool paused);
  [[nodiscard]] std::string_view state_word() const;

  // Whether the agent in the guest answers now; else `caller` is told why not.
  bool guest_answers(const Caller& caller) const;

  MachineRequests& machine_;
  RunningShares& shares_;
  SandboxFacts facts_;
  const Event event_;
  Orders orders_;
  std::optional<std::uint32_t> process_;  // the command's id, once it runs
  const std::chrono::steady_clock::time_point start_;
  State state_ = State::kStarting;
  bool paused_ = false;
  std::size_t pausing_ = 0;  // requests to pause that are not answered yet
};

}  // namespace msb::launcher
