// SPDX-License-Identifier: Apache-2.0
// Requests to the machine process, and its answers (base/control.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "base/control.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::launcher {

// Has one request under way at a time; the others wait in the order in which they were made. But
// those about shares, which the host's file systems may hold up for long, are made at once, beside
// the others. Destroyed, it drops what is left without a word.
class MachineRequests {
 public:
  // Gets the text of kDone, or an error: the sentence of kRefused, or why the machine was not asked
  // or has not answered.
  using Done = std::function<void(Result<std::string> answer)>;

  // Requests that may wait, the one under way among them.
  static constexpr std::size_t kMaxRequests = 256;

  // `control`: the machine's socket; borrowed, and not used any more after close().
  explicit MachineRequests(int control) : control_(control) {}
  MachineRequests(const MachineRequests&) = delete;
  MachineRequests& operator=(const MachineRequests&) = delete;
  ~MachineRequests() = default;

  // `kind`: one of the requests. `done` runs once, also inside the call when nothing can be sent.
  void send(ControlKind kind, std::string text, Done done, Fd descriptor = {});

  // A kDone or kRefused has come. Fails when it answers nothing that is under way, or brings
  // descriptors: then the machine process is broken or hostile.
  Result<void> on_answer(const ControlMessage& message);

  // The machine is gone: every request fails, also those to come.
  void close();

 private:
  struct Request {
    ControlKind kind;
    std::string text;
    Done done;
    Fd descriptor;  // if it needs one
  };
  void send_next();
  [[nodiscard]] std::optional<Error> try_send(const Request& request);

  const int control_;
  std::deque<Request> requests_;  // the first one is under way, if any is
  bool under_way_ = false;
  std::uint32_t under_way_tag_ = 0;
  std::map<std::uint32_t, Request> beside_;  // about shares, by tag
  std::uint32_t tag_ = 0;                    // the last one given
  bool closed_ = false;
};

}  // namespace msb::launcher
