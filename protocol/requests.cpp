// SPDX-License-Identifier: Apache-2.0
#include "protocol/requests.hpp"

#include <algorithm>
#include <cerrno>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "protocol/frame_stream.hpp"
#include "protocol/frames.hpp"
#include "protocol/msb_exec.h"

namespace msb::protocol {

namespace {

// A request that waits for its answer.
struct Pending {
  // Takes one frame of the answer: nothing when more follow, else what is left to do once the
  // request has left the queue. Fails for a frame that is no answer.
  std::function<Result<std::optional<std::function<void()>>>(const Frame&)> take;
  std::function<void(Failure)> fail;
};

using Taken = Result<std::optional<std::function<void()>>>;

template <typename T>
std::function<void(Failure)> failing(Requests::Done<T> done) {
  return [done = std::move(done)](Failure failure) { done(std::unexpected(std::move(failure))); };
}

// A request that DONE answers.
Pending done_only(Requests::Done<void> done) {
  return {.take = [done](const Frame& frame) -> Taken {
            if (frame.type != MSB_DONE) {
              return std::unexpected(out_of_place(frame));
            }
            return [done] { done({}); };
          },
          .fail = failing(std::move(done))};
}

// A request that one frame of `type` answers.
template <typename T, typename Decode>
Pending one(std::uint32_t type, Decode decode, Requests::Done<T> done) {
  return {.take = [type, decode, done](const Frame& frame) -> Taken {
            if (frame.type != type) {
              return std::unexpected(out_of_place(frame));
            }
            Result<T> value = decode(frame);
            if (!value) {
              return std::unexpected(value.error());
            }
            return [done, value = std::move(*value)] { done(value); };
          },
          .fail = failing(std::move(done))};
}

// A request that any number of frames of `type` answer, and DONE with how many there were.
template <typename T, typename Decode>
Pending many(std::uint32_t type, Decode decode, std::function<void(const T&)> each,
             Requests::Done<std::uint64_t> done) {
  return {.take = [type, decode, each = std::move(each), done,
                   count = std::uint64_t{0}](const Frame& frame) mutable -> Taken {
            if (frame.type == type && count < Requests::kMaxListed) {
              const Result<T> value = decode(frame);
              if (!value) {
                return std::unexpected(value.error());
              }
              ++count;
              each(*value);
              return std::nullopt;
            }
            if (frame.type != MSB_DONE) {
              return std::unexpected(out_of_place(frame));
            }
            const auto answer = decode_done(frame);
            if (!answer || answer->value != count) {
              return std::unexpected(
                  answer ? Error{"the guest counts other answers than it gave", EPROTO}
                         : answer.error());
            }
            return [done, count] { done(count); };
          },
          .fail = failing(std::move(done))};
}

}  // namespace

class Requests::State : public std::enable_shared_from_this<State> {
 public:
  State(AsyncIo& io, Fd socket)
      : stream_(io, std::move(socket), Connection::kRequest, FrameStream::Greeting::kExpected,
                {.frame = [this](const Frame& frame) { return on_frame(frame); },
                 .closed = [this](std::optional<Error> error) { on_closed(std::move(error)); },
                 .sent = nullptr}) {}

  void start() { stream_.start(); }
  void ask(Result<FrameBytes> frame, Pending pending);
  [[nodiscard]] bool open() const { return !broken_; }
  void close() {
    broken_ = Error{"the connection was closed", ECANCELED};
    quiet_ = true;
    stream_.close();
  }

 private:
  bool on_frame(const Frame& frame);
  void on_closed(std::optional<Error> error);
  void break_off(Error error);

  std::deque<Pending> pending_;
  std::optional<Error> broken_;
  bool quiet_ = false;  // the owner is gone
  FrameStream stream_;
};

void Requests::State::ask(Result<FrameBytes> frame, Pending pending) {
  if (!frame) {
    pending.fail({MSB_STAGE_REQUEST, frame.error()});
  } else if (broken_) {
    pending.fail({0, *broken_});
  } else {
    pending_.push_back(std::move(pending));
    stream_.send(std::move(*frame));
  }
}

bool Requests::State::on_frame(const Frame& frame) {
  const auto kept = shared_from_this();
  if (pending_.empty()) {
    break_off(out_of_place(frame));
    return true;
  }
  if (frame.type == MSB_REFUSED) {
    auto failure = decode_failure(frame);
    if (!failure) {
      break_off(failure.error());
      return true;
    }
    const Pending refused = std::move(pending_.front());
    pending_.pop_front();
    refused.fail(std::move(*failure));
    return true;
  }
  auto taken = pending_.front().take(frame);
  if (quiet_) {
    return true;  // destroyed by what `take` called
  }
  if (!taken) {
    break_off(taken.error());
  } else if (*taken) {
    pending_.pop_front();
    (**taken)();
  }
  return true;
}

void Requests::State::on_closed(std::optional<Error> error) {
  const auto kept = shared_from_this();
  break_off(error ? std::move(*error)
                  : Error{"the sandbox closed the connection without an answer", ECONNRESET});
}

void Requests::State::break_off(Error error) {
  stream_.close();
  broken_ = std::move(error);
  while (!pending_.empty() && !quiet_) {
    const Pending lost = std::move(pending_.front());
    pending_.pop_front();
    lost.fail({0, *broken_});
  }
}

Requests::Requests(AsyncIo& io, Fd socket)
    : state_(std::make_shared<State>(io, std::move(socket))) {
  state_->start();
}

Requests::Requests(Requests&&) noexcept = default;

Requests& Requests::operator=(Requests&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

Requests::~Requests() {
  if (state_) {
    state_->close();
  }
}

bool Requests::open() const {
  return state_->open();
}

void Requests::signal(std::uint32_t process, std::uint32_t signal, bool group, Done<void> done) {
  state_->ask(encode_signal(process, signal, group), done_only(std::move(done)));
}

void Requests::resize(std::uint32_t process, TerminalSize size, Done<void> done) {
  state_->ask(encode_resize(process, size), done_only(std::move(done)));
}

void Requests::list(std::function<void(const ProcessEntry&)> each, Done<std::uint64_t> done) {
  state_->ask(encode_frame(MSB_LIST, {}),
              many<ProcessEntry>(MSB_PROCESS, decode_process, std::move(each), std::move(done)));
}

void Requests::wait(std::uint32_t process, Done<Exited> done) {
  const auto decode = [process](const Frame& frame) -> Result<Exited> {
    auto exited = decode_exited(frame);
    if (exited && exited->fields.process != process) {
      return fail("the guest told the end of process {} instead of {}", exited->fields.process,
                  process);
    }
    return exited;
  };
  state_->ask(encode_process_request(MSB_WAIT, process),
              one<Exited>(MSB_EXITED, decode, std::move(done)));
}

void Requests::forget(std::uint32_t process, Done<void> done) {
  state_->ask(encode_process_request(MSB_FORGET, process), done_only(std::move(done)));
}

void Requests::ping(std::span<const std::byte> bytes, Done<void> done) {
  auto frame = encode_ping(bytes);
  const auto take = [sent = std::vector(bytes.begin(), bytes.end()),
                     done](const Frame& answer) -> Taken {
    if (answer.type != MSB_PONG || !std::ranges::equal(answer.payload, sent)) {
      return std::unexpected(out_of_place(answer));
    }
    return [done] { done({}); };
  };
  state_->ask(std::move(frame), {.take = take, .fail = failing(std::move(done))});
}

void Requests::metrics(Done<msb_metrics> done) {
  state_->ask(encode_frame(MSB_METRICS, {}),
              one<msb_metrics>(MSB_MEASURED, decode_measured, std::move(done)));
}

void Requests::listeners(std::function<void(const msb_listener&)> each, Done<std::uint64_t> done) {
  state_->ask(encode_frame(MSB_LISTENERS, {}),
              many<msb_listener>(MSB_LISTENER, decode_listener, std::move(each), std::move(done)));
}

void Requests::socket_owner(const msb_socket& ends, Done<std::optional<SocketOwner>> done) {
  const auto take = [done](const Frame& frame) -> Taken {
    if (frame.type == MSB_DONE) {
      return [done] { done(std::nullopt); };
    }
    if (frame.type != MSB_OWNER) {
      return std::unexpected(out_of_place(frame));
    }
    auto owner = decode_owner(frame);
    if (!owner) {
      return std::unexpected(owner.error());
    }
    return [done, owner = std::move(*owner)] { done(owner); };
  };
  state_->ask(encode_socket_owner(ends), {.take = take, .fail = failing(std::move(done))});
}

void Requests::set_clock(std::uint64_t realtime_ns, Done<void> done) {
  state_->ask(encode_set_clock(realtime_ns), done_only(std::move(done)));
}

void Requests::add_entropy(std::span<const std::byte> bytes, Done<void> done) {
  state_->ask(encode_add_entropy(bytes), done_only(std::move(done)));
}

void Requests::set_names(const std::string& host_name, const std::string& resolv_conf,
                         const std::string& hosts, Done<void> done) {
  state_->ask(encode_set_names(host_name, resolv_conf, hosts), done_only(std::move(done)));
}

void Requests::share(bool read_only, const std::string& path, const std::string& place,
                     Done<void> done) {
  state_->ask(encode_share(read_only, path, place), done_only(std::move(done)));
}

void Requests::unshare(const std::string& place, Done<void> done) {
  state_->ask(encode_unshare(place), done_only(std::move(done)));
}

}  // namespace msb::protocol
