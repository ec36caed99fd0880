// SPDX-License-Identifier: Apache-2.0
// What the control socket's methods do (docs/control.md), apart from sockets.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <string_view>
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
  // Gets every event; `details`: the members that only this kind has.
  using Event = std::function<void(std::string_view event, Json details)>;

  // `machine` must not answer any more once this is destroyed, nor `shares`.
  ControlMethods(MachineRequests& machine, RunningShares& shares, SandboxFacts facts, Event event);

  // Carries out a request, or says why not.
  void call(const RpcRequest& request, const Caller& caller);

  // What became of the sandbox; each counts once, and later ones only.
  void running();
  void stopping();
  void stopped(int exit_status);

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

  void on_resized(std::size_t index, std::uint64_t size);
  void set_paused(bool paused);
  [[nodiscard]] std::string_view state_word() const;

  // Whether the agent in the guest answers now; else `caller` is told why not.
  bool guest_answers(const Caller& caller) const;

  MachineRequests& machine_;
  RunningShares& shares_;
  SandboxFacts facts_;
  const Event event_;
  const std::chrono::steady_clock::time_point start_;
  State state_ = State::kStarting;
  bool paused_ = false;
  std::size_t pausing_ = 0;  // requests to pause that are not answered yet
};

}  // namespace msb::launcher
