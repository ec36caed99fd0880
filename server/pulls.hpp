// SPDX-License-Identifier: Apache-2.0
// Images that are pulled for clients, by msb-registry, with its progress.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/spawn.hpp"
#include "server/async.hpp"
#include "server/problem.hpp"

namespace msb::server {

struct PullState {
  std::uint64_t received = 0;  // bytes
  std::uint64_t total = 0;     // 0: not known yet
  std::string text;            // what happens, for people
};
// Called again and again while an image is pulled; may be empty.
using PullProgress = std::function<void(const PullState&)>;

class Pulls {
 public:
  Pulls(asio::io_context& io, Workers& workers) : io_(io), workers_(workers) {}
  Pulls(const Pulls&) = delete;
  Pulls& operator=(const Pulls&) = delete;

  // Those who want the same reference wait for one pull, which ends when none of them is left.
  Async<Outcome<void>> pull(std::string reference, PullProgress progress);

 private:
  struct One;
  Result<void> begin(const std::shared_ptr<One>& one);
  Async<> follow(std::weak_ptr<One> weak, std::shared_ptr<Spawned> child, Fd report);

  asio::io_context& io_;
  Workers& workers_;
  std::map<std::string, std::weak_ptr<One>> under_way_;
};

}  // namespace msb::server
