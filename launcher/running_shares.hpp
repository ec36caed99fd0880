// SPDX-License-Identifier: Apache-2.0
// The shares of a sandbox, and how they are added and removed while it runs: the machine shows the
// host's directory in its virtio-fs device, and the agent in the guest mounts it from there.
#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <optional>
#include <string>
#include <string_view>

#include "base/async_io.hpp"
#include "base/result.hpp"
#include "base/share_words.hpp"
#include "launcher/machine_requests.hpp"
#include "protocol/opener.hpp"
#include "protocol/requests.hpp"

namespace msb::launcher {

struct RunningShare {
  enum class State {
    kOpening,   // the machine has been asked for it
    kMounting,  // the guest has
    kShared,
    kRemoving,  // the machine has been asked to end it
  };
  ShareWords words;
  std::string path;  // in the virtio-fs device; no two ever have the same
  State state = State::kShared;
};

class RunningShares {
 public:
  // Runs once, inside the call or later.
  using Done = std::function<void(const Result<void>& done)>;

  // `machine` and what `agent` uses must outlive this, and `machine` not answer any more once this
  // is destroyed. `shares`: those that the sandbox was started with.
  RunningShares(AsyncIo& io, MachineRequests& machine, protocol::Opener agent,
                std::list<RunningShare> shares);

  // Of a guest that runs. Fails when the place is taken, or too much is shared already.
  void add(ShareWords words, Done done);
  // By the place in the guest, also while that has not answered to add(). Done when nothing of it
  // can be reached any more, for which the guest is not needed. Then it is asked to unmount what is
  // left; `left` gets why it did not, should it say so. Fails when there is no such share, or
  // another one below it, which would be unmounted as well.
  void remove(std::string_view place, Done done, std::function<void(const Error&)> left);

  [[nodiscard]] const std::list<RunningShare>& all() const { return shares_; }
  // Makes no more requests to the agent, and drops those that are under way.
  void close();

 private:
  // By its path: while an answer is waited for it may have gone. Null then.
  RunningShare* find(std::string_view path);
  void mount(RunningShare& share, Done done);
  void end(RunningShare& share, Done done);
  void unmount(const std::string& place, std::function<void(const Error&)> left);
  // The connection to the agent, a new one where the last has broken.
  Result<protocol::Requests*> agent();

  AsyncIo& io_;
  MachineRequests& machine_;
  const protocol::Opener open_agent_;
  std::list<RunningShare> shares_;
  std::size_t next_ = 0;  // number of the next share's path
  std::optional<protocol::Requests> agent_;
};

}  // namespace msb::launcher
