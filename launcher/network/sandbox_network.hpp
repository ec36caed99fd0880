// SPDX-License-Identifier: Apache-2.0
// The network of one sandbox: its card, where that leads, and what may go there.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/async_io.hpp"
#include "base/control.hpp"
#include "base/fd.hpp"
#include "base/network_config.hpp"
#include "base/network_denial.hpp"
#include "base/network_policy.hpp"
#include "base/result.hpp"
#include "launcher/json_rpc.hpp"
#include "launcher/network/host_addresses.hpp"
#include "launcher/network/passt.hpp"
#include "protocol/guest_frames.hpp"

namespace msb::launcher {

// As users write it.
struct NetworkWords {
  std::string net = "user";            // none, user, tap=NAME
  std::string policy = "public";       // a preset or a file
  std::vector<std::string> rules;      // which decide before it
  std::vector<std::string> addresses;  // of the guest on a tap device, ADDRESS/LENGTH
  std::vector<std::string> gateways;   // likewise
  std::string receive_rate;            // bytes a second, with K, M or G for powers of 1000
  std::string send_rate;
};

// Used on the loop's thread, which must be drained after close().
class SandboxNetwork {
 public:
  struct Events {
    // Gives the machine another backend; `done` runs when it has it, or has not got it.
    std::function<void(Fd backend, std::function<void(bool has)> done)> replace;
    // Tells the machine that this host has these addresses; `done` likewise.
    std::function<void(const std::vector<IpAddress>& addresses,
                       std::function<void(bool told)> done)>
        host_changed;
    // passt ended, for the reason said, and another one has taken its place: connections were lost.
    std::function<void(const std::string& how)> restarted;
    // Likewise, but there will be no other one.
    std::function<void(const std::string& how)> lost;
  };

  // Opens the tap device, or starts passt. Fails for words that have no meaning, for a policy that
  // is none, and as open_tap() and Passt::start().
  static Result<std::unique_ptr<SandboxNetwork>> create(AsyncIo& io, const NetworkWords& words);
  SandboxNetwork(const SandboxNetwork&) = delete;
  SandboxNetwork& operator=(const SandboxNetwork&) = delete;
  ~SandboxNetwork() = default;

  [[nodiscard]] bool exists() const { return config_.backend != 0; }
  // For the machine: its descriptor is that of take_backend().
  [[nodiscard]] const NetworkConfig& config() const { return config_; }
  Fd take_backend() { return std::move(backend_); }
  // For the boot file, each line with its newline.
  [[nodiscard]] std::string boot_lines() const;
  // Whether names are to be resolved.
  [[nodiscard]] bool dns() const { return exists() && policy_.dns; }

  // From here on passt is started again when it ends.
  void watch(Events events);
  // The machine says that its backend is gone.
  void on_backend_lost();
  void close();

  // For the control socket.
  [[nodiscard]] Json status() const;
  // `program`: that of the guest's, if it is known.
  [[nodiscard]] Json describe(const NetworkDenial& denial,
                              const std::optional<protocol::SocketOwner>& program) const;

 private:
  SandboxNetwork(AsyncIo& io, NetworkPolicy policy, std::vector<InterfaceAddress> host);
  Result<void> use_passt();
  Result<void> use_tap(const std::string& name, const NetworkWords& words);
  void on_passt_ended();
  void start_again(const std::string& how);
  void tell_addresses();
  void lose(const std::string& how);
  [[nodiscard]] bool has(std::uint32_t family) const;

  AsyncIo& io_;
  NetworkPolicy policy_;
  std::vector<InterfaceAddress> host_;
  NetworkConfig config_;
  std::string mode_ = "none";
  std::vector<IpAddress> gateways_;
  std::string gateway_mac_;  // empty: the guest asks for it
  Fd backend_;

  PasstOptions passt_options_;
  std::optional<Passt> passt_;
  Operation passt_ended_;
  std::chrono::steady_clock::time_point started_;
  int short_lives_ = 0;    // of passt, one after the other
  std::string ended_how_;  // that of passt for which another one is about to be started
  Operation start_again_;
  Operation tell_again_;
  bool replacing_ = false;  // the machine was given another backend, and may not know yet
  bool lost_ = false;
  bool closed_ = false;
  AddressWatch addresses_;
  Events events_;
};

}  // namespace msb::launcher
