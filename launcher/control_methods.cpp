// SPDX-License-Identifier: Apache-2.0
#include "launcher/control_methods.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "launcher/counters_json.hpp"
#include "launcher/words.hpp"
#include "protocol/quote.hpp"

namespace msb::launcher {

namespace {

constexpr std::string_view kDisk = "disk";
constexpr std::string_view kSize = "size";
constexpr std::array kDiskSizeParameters{kDisk, kSize};
constexpr std::string_view kMib = "mib";
constexpr std::array kBalloonParameters{kMib};
constexpr std::string_view kHost = "host";
constexpr std::string_view kGuest = "guest";
constexpr std::string_view kReadOnly = "read_only";
constexpr std::string_view kCache = "cache";
constexpr std::array kAddShareParameters{kHost, kGuest, kReadOnly, kCache};
constexpr std::array kRemoveShareParameters{kGuest};
constexpr std::string_view kTimeout = "timeout_s";
constexpr std::string_view kSignal = "signal";
constexpr std::array kStopParameters{kTimeout, kSignal};
constexpr std::uint64_t kMaxStopSeconds = 600;  // as long as SHUTDOWN can say

std::unexpected<RpcError> refuse(std::string message) {
  return std::unexpected(RpcError{RpcCode::kRefused, std::move(message)});
}

std::unexpected<RpcError> refuse_parameter(std::string message) {
  return std::unexpected(RpcError{RpcCode::kInvalidParameters, std::move(message)});
}

// What add_share() is asked for.
RpcResult<ShareWords> share_wanted(const Json& parameters) {
  auto host = text(parameters, kHost);
  const auto guest = text(parameters, kGuest);
  const auto read_only = yes_or_no(parameters, kReadOnly);
  const auto cache = text(parameters, kCache);
  if (!host || !guest || !cache) {
    return std::unexpected(!host ? host.error() : !guest ? guest.error() : cache.error());
  }
  if (!read_only) {
    return std::unexpected(read_only.error());
  }
  if (!*host || !(*host)->starts_with('/') || (*host)->find('\0') != std::string::npos) {
    return refuse_parameter(
        "the parameter \"host\" must be the absolute path of a directory or file of this host");
  }
  const auto place = tidy_place(guest->value_or(""));
  if (!place) {
    return refuse_parameter(
        "the parameter \"guest\" must be an absolute path below / without \"..\"");
  }
  const auto mode = parse_cache(cache->value_or("auto"));
  if (!mode) {
    return refuse_parameter("the parameter \"cache\" must be never, auto or always");
  }
  return ShareWords{std::move(**host), *place, read_only->value_or(false), *mode};
}

// What stop() is asked for.
RpcResult<StopWords> stop_wanted(const Json& parameters) {
  const auto seconds = whole_number(parameters, kTimeout);
  const auto signal = text(parameters, kSignal);
  if (!seconds || !signal) {
    return std::unexpected(seconds ? signal.error() : seconds.error());
  }
  StopWords wanted;
  if (*seconds) {
    if (**seconds > kMaxStopSeconds) {
      return refuse_parameter(
          fmt::format("the parameter \"timeout_s\" is more than {} seconds", kMaxStopSeconds));
    }
    wanted.grace_ms = static_cast<std::uint32_t>(**seconds * 1000);
  }
  if (*signal) {
    const auto number = parse_signal(**signal);
    if (!number) {
      return refuse_parameter(protocol::quote(number.error().message));
    }
    wanted.signal = *number;
  }
  return wanted;
}

// The answer of a method that gives nothing.
template <typename T>
RpcResult<Json> nothing_or_why(const Result<T>& done) {
  return done ? RpcResult<Json>(Json::object()) : refuse(done.error().message);
}

}  // namespace

struct ControlMethods::Method {
  std::string_view name;
  void (ControlMethods::*run)(const Json& parameters, const Caller& caller);
  std::span<const std::string_view> parameters;
};

constexpr ControlMethods::Method ControlMethods::kMethods[] = {
    {"status", &ControlMethods::status, {}},
    {"counters", &ControlMethods::counters, {}},
    {"pause", &ControlMethods::pause, {}},
    {"resume", &ControlMethods::resume, {}},
    {"set_disk_size", &ControlMethods::set_disk_size, kDiskSizeParameters},
    {"set_balloon", &ControlMethods::set_balloon, kBalloonParameters},
    {"add_share", &ControlMethods::add_share, kAddShareParameters},
    {"remove_share", &ControlMethods::remove_share, kRemoveShareParameters},
    {"subscribe", &ControlMethods::subscribe, {}},
    {"stop", &ControlMethods::stop, kStopParameters},
    {"kill", &ControlMethods::kill, {}},
};

ControlMethods::ControlMethods(MachineRequests& machine, RunningShares& shares, SandboxFacts facts,
                               Event event)
    : machine_(machine),
      shares_(shares),
      facts_(std::move(facts)),
      event_(std::move(event)),
      start_(std::chrono::steady_clock::now()) {}

void ControlMethods::call(const RpcRequest& request, const Caller& caller) {
  const auto method = std::ranges::find(kMethods, request.method, &Method::name);
  if (method == std::end(kMethods)) {
    std::string known;
    for (const Method& each : kMethods) {
      known += known.empty() ? "" : ", ";
      known += each.name;
    }
    caller.answer(std::unexpected(
        RpcError{RpcCode::kUnknownMethod, fmt::format("there is no method \"{}\"; there are {}",
                                                      protocol::quote(request.method), known)}));
  } else if (auto checked = check_parameters(request.parameters, method->parameters); !checked) {
    caller.answer(std::unexpected(std::move(checked.error())));
  } else {
    (this->*method->run)(request.parameters, caller);
  }
}

// --- the methods ---

void ControlMethods::status(const Json& /*parameters*/, const Caller& caller) {
  Json disks = Json::array();
  for (std::size_t i = 0; i < facts_.disks.size(); ++i) {
    const RunningDisk& disk = facts_.disks[i];
    disks.push_back({{"disk", i}, {"size", disk.size}, {"read_only", disk.read_only}});
  }
  Json shares = Json::array();
  for (const RunningShare& share : shares_.all()) {
    if (share.state == RunningShare::State::kShared) {
      shares.push_back({{"host", share.words.host},
                        {"guest", share.words.guest},
                        {"read_only", share.words.read_only},
                        {"cache", cache_word(share.words.cache)}});
    }
  }
  const auto uptime = std::chrono::steady_clock::now() - start_;
  caller.answer(
      Json{{"state", state_word()},
           {"uptime_ms", std::chrono::duration_cast<std::chrono::milliseconds>(uptime).count()},
           {"memory_mib", facts_.memory_mib},
           {"cpus", facts_.cpus},
           {"disks", std::move(disks)},
           {"shares", std::move(shares)},
           {"network", facts_.network},
           {"name", facts_.name},
           {"image", facts_.image},
           {"command", facts_.command},
           {"environment", facts_.environment},
           {"directory", facts_.directory},
           {"user", facts_.user},
           {"entrypoint", facts_.entrypoint},
           {"image_command", facts_.image_command},
           {"process", process_ ? Json(*process_) : Json()},
           {"pid", ::getpid()},
           {"started_ms", facts_.started_ms},
           {"background", facts_.background}});
}

void ControlMethods::counters(const Json& /*parameters*/, const Caller& caller) {
  machine_.send(ControlKind::kCounters, {}, [caller](const Result<std::string>& done) {
    auto shown = done ? show_counters(*done) : Result<Json>(std::unexpected(done.error()));
    caller.answer(shown ? RpcResult<Json>(std::move(*shown)) : refuse(shown.error().message));
  });
}

void ControlMethods::pause(const Json& /*parameters*/, const Caller& caller) {
  // It could not stop, in good order, what does not run.
  if (state_ == State::kStopping || state_ == State::kStopped) {
    caller.answer(refuse("the sandbox is stopping"));
    return;
  }
  ++pausing_;
  machine_.send(ControlKind::kPause, {}, [this, caller](const Result<std::string>& done) {
    --pausing_;
    if (done) {
      set_paused(true);
    }
    caller.answer(nothing_or_why(done));
  });
}

void ControlMethods::resume(const Json& /*parameters*/, const Caller& caller) {
  machine_.send(ControlKind::kResume, {}, [this, caller](const Result<std::string>& done) {
    if (done) {
      set_paused(false);
    }
    caller.answer(nothing_or_why(done));
  });
}

void ControlMethods::set_disk_size(const Json& parameters, const Caller& caller) {
  const auto index = whole_number(parameters, kDisk);
  const auto size = whole_number(parameters, kSize);
  if (!index || !size) {
    caller.answer(std::unexpected(index ? size.error() : index.error()));
    return;
  }
  if (!*index) {
    caller.answer(
        std::unexpected(RpcError{RpcCode::kInvalidParameters,
                                 "the parameter \"disk\" is missing: a disk's number, from 0"}));
    return;
  }
  if (**index >= facts_.disks.size()) {
    caller.answer(refuse(fmt::format("there is no disk {}; the sandbox has {}, counted from 0",
                                     **index, facts_.disks.size())));
    return;
  }
  const auto at = static_cast<std::size_t>(**index);
  const auto grown = grow_disk(facts_.disks[at], *size);
  if (!grown) {
    caller.answer(refuse(fmt::format("disk {} cannot be resized: {}", at, grown.error().message)));
    return;
  }
  machine_.send(ControlKind::kResizeDisk, fmt::format("{} {}", at, *grown),
                [this, at, bytes = *grown, caller](const Result<std::string>& done) {
                  if (done) {
                    on_resized(at, bytes);
                  }
                  caller.answer(nothing_or_why(done));
                });
}

void ControlMethods::set_balloon(const Json& parameters, const Caller& caller) {
  const auto mib = whole_number(parameters, kMib);
  if (!mib) {
    caller.answer(std::unexpected(mib.error()));
    return;
  }
  if (!*mib) {
    caller.answer(std::unexpected(RpcError{RpcCode::kInvalidParameters,
                                           "the parameter \"mib\" is missing: how much of its "
                                           "memory the guest is to give back"}));
    return;
  }
  if (**mib > facts_.memory_mib) {
    caller.answer(refuse(
        fmt::format("the sandbox cannot give back {} MiB; it has {}", **mib, facts_.memory_mib)));
    return;
  }
  machine_.send(ControlKind::kSetBalloon, fmt::format("{}", **mib),
                [caller](const Result<std::string>& done) { caller.answer(nothing_or_why(done)); });
}

bool ControlMethods::guest_answers(const Caller& caller) const {
  if (state_ != State::kRunning) {
    caller.answer(refuse(state_ < State::kRunning ? "the sandbox does not run yet"
                                                  : "the sandbox is stopping"));
    return false;
  }
  if (paused_ || pausing_ > 0) {
    caller.answer(refuse("the sandbox is paused, and its guest would have to do something"));
    return false;
  }
  return true;
}

void ControlMethods::add_share(const Json& parameters, const Caller& caller) {
  auto wanted = share_wanted(parameters);
  if (!wanted) {
    caller.answer(std::unexpected(std::move(wanted.error())));
    return;
  }
  if (!guest_answers(caller)) {
    return;
  }
  const std::string place = wanted->guest;
  shares_.add(std::move(*wanted), [this, place, caller](const Result<void>& done) {
    if (done) {
      event_("share_added", {{"guest", place}});
    }
    caller.answer(nothing_or_why(done));
  });
}

void ControlMethods::remove_share(const Json& parameters, const Caller& caller) {
  const auto guest = text(parameters, kGuest);
  if (!guest) {
    caller.answer(std::unexpected(guest.error()));
    return;
  }
  const auto place = tidy_place(guest->value_or(""));
  if (!place) {
    caller.answer(refuse_parameter("the parameter \"guest\" must be the place of a share"));
    return;
  }
  if (!guest_answers(caller)) {
    return;
  }
  shares_.remove(
      *place,
      [this, place = *place, caller](const Result<void>& done) {
        if (done) {
          event_("share_removed", {{"guest", place}});
        }
        caller.answer(nothing_or_why(done));
      },
      [this, place = *place](const Error& why) {
        event_("share_not_unmounted", {{"guest", place}, {"message", why.message}});
      });
}

void ControlMethods::subscribe(const Json& /*parameters*/, const Caller& caller) {
  caller.answer(Json::object());
  caller.subscribe();
}

// Answered first: the caller may be gone with the sandbox.
void ControlMethods::stop(const Json& parameters, const Caller& caller) {
  const auto wanted = stop_wanted(parameters);
  if (!wanted) {
    caller.answer(std::unexpected(wanted.error()));
    return;
  }
  caller.answer(Json::object());
  orders_.stop(*wanted);
}

void ControlMethods::kill(const Json& /*parameters*/, const Caller& caller) {
  caller.answer(Json::object());
  orders_.kill();
}

// --- what became of the sandbox ---

void ControlMethods::running(std::optional<std::uint32_t> process) {
  if (state_ < State::kRunning) {
    process_ = process;
    state_ = State::kRunning;
    event_("running", Json::object());
  }
}

void ControlMethods::stopping() {
  if (state_ >= State::kStopping) {
    return;
  }
  state_ = State::kStopping;
  event_("stopping", Json::object());
  // A guest that is paused would not end.
  if (paused_ || pausing_ > 0) {
    machine_.send(ControlKind::kResume, {}, [this](const Result<std::string>& done) {
      if (done) {
        set_paused(false);
      }
    });
  }
}

void ControlMethods::stopped(int exit_status, const std::string& message) {
  if (state_ < State::kStopped) {
    state_ = State::kStopped;
    Json details{{"exit_status", exit_status}};
    if (!message.empty()) {
      details["message"] = message;
    }
    event_("stopped", std::move(details));
  }
}

void ControlMethods::set_paused(bool paused) {
  if (std::exchange(paused_, paused) != paused) {
    event_(paused ? "paused" : "resumed", Json::object());
  }
}

void ControlMethods::on_resized(std::size_t index, std::uint64_t size) {
  facts_.disks[index].size = size;
  event_("disk_resized", {{"disk", index}, {"size", size}});
}

std::string_view ControlMethods::state_word() const {
  if (state_ >= State::kStopping) {
    return "stopping";
  }
  if (paused_) {
    return "paused";
  }
  return state_ == State::kRunning ? "running" : "starting";
}

}  // namespace msb::launcher
