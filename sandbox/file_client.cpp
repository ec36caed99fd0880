// SPDX-License-Identifier: Apache-2.0
#include "sandbox/file_client.hpp"

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/loop.hpp"
#include "protocol/msb_exec.h"
#include "protocol/opener.hpp"

namespace msb::sandbox {

namespace {

using Clock = std::chrono::steady_clock;

// A guest that is paused, or does not mean well, must not be waited for without end.
constexpr std::chrono::seconds kPatience{60};
constexpr std::uint64_t kLook = 1'000'000'000;  // nanoseconds between looks at whether it is over

}  // namespace

class FileClient::State {
 public:
  State(std::unique_ptr<Loop> loop, Fd socket)
      : loop_(std::move(loop)),
        files_(std::in_place, *loop_, std::move(socket)),
        look_([this](std::int32_t result) { on_look(result); }) {
    loop_->timeout(kLook, look_);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    files_.reset();
    loop_->drain();
  }

  // Asks, and waits for the answer.
  template <typename T>
  Result<T> ask(const std::function<void(protocol::Files&, protocol::Files::Done<T>)>& question) {
    std::optional<protocol::Answer<T>> answer;
    if (auto begun = begin(); !begun) {
      return std::unexpected(begun.error());
    }
    question(*files_, [&](protocol::Answer<T> given) {
      answer.emplace(std::move(given));
      wake();
    });
    if (auto waited = wait_until([&] { return answer.has_value(); }); !waited) {
      return std::unexpected(waited.error());
    }
    if (!*answer) {
      return std::unexpected(answer->error().error);
    }
    if constexpr (std::is_void_v<T>) {
      return {};
    } else {
      return std::move(**answer);
    }
  }

  Result<void> diff(const std::function<bool(const protocol::FileEntry&)>& each);

  using Incoming = std::function<void(protocol::Files&, protocol::Files::Data,
                                      protocol::Files::Done<std::uint64_t>)>;
  using Outgoing = std::function<void(protocol::Files&, protocol::Files::More,
                                      protocol::Files::Done<std::uint64_t>)>;

  Result<void> begin_incoming(const Incoming& question);
  // The next bytes of what was begun; empty at its end.
  Result<std::span<const std::byte>> next_piece();
  Result<std::uint64_t> send(const Outgoing& question, oci::PieceSource& content);

 private:
  Result<void> begin();
  Result<void> wait_until(const std::function<bool()>& ready);
  Result<void> send_pieces(oci::PieceSource& content, const bool& over);
  void wake() {
    heard_ = Clock::now();
    loop_->stop();
  }
  void on_look(std::int32_t result);

  std::unique_ptr<Loop> loop_;
  std::optional<protocol::Files> files_;  // nothing once it was broken off
  Operation look_;
  Clock::time_point heard_;
  bool silent_ = false;

  // Of what comes in.
  std::vector<std::byte> piece_;
  bool has_piece_ = false;
  bool held_ = false;  // it has to be resumed
  std::optional<protocol::Answer<std::uint64_t>> end_;

  bool wanted_ = false;  // more can be sent
};

Result<void> FileClient::State::begin() {
  if (!files_) {
    return fail("the connection to the sandbox was broken off");
  }
  heard_ = Clock::now();
  return {};
}

Result<void> FileClient::State::wait_until(const std::function<bool()>& ready) {
  while (!ready()) {
    if (silent_) {
      files_.reset();
      return std::unexpected(Error{
          fmt::format("the agent in the sandbox has not answered for {} seconds; is it paused?",
                      kPatience.count()),
          ETIMEDOUT});
    }
    if (auto ran = loop_->run(); !ran) {
      files_.reset();
      return ran;
    }
  }
  return {};
}

void FileClient::State::on_look(std::int32_t result) {
  if (result != -ETIME) {
    return;
  }
  if (Clock::now() - heard_ >= kPatience) {
    silent_ = true;
    loop_->stop();
  } else {
    loop_->timeout(kLook, look_);
  }
}

Result<void> FileClient::State::diff(const std::function<bool(const protocol::FileEntry&)>& each) {
  if (auto begun = begin(); !begun) {
    return begun;
  }
  bool enough = false;
  std::optional<protocol::Answer<std::uint64_t>> answer;
  files_->diff(
      [&](const protocol::FileEntry& entry) {
        heard_ = Clock::now();
        if (!enough && !each(entry)) {
          enough = true;
          loop_->stop();
        }
      },
      [&](protocol::Answer<std::uint64_t> given) {
        answer.emplace(std::move(given));
        wake();
      });
  if (auto waited = wait_until([&] { return enough || answer; }); !waited) {
    return waited;
  }
  if (enough) {
    files_.reset();
    return {};
  }
  return *answer ? Result<void>() : std::unexpected(answer->error().error);
}

Result<void> FileClient::State::begin_incoming(const Incoming& question) {
  if (auto begun = begin(); !begun) {
    return begun;
  }
  has_piece_ = held_ = false;
  end_.reset();
  question(
      *files_,
      [this](std::span<const std::byte> bytes) {
        if (bytes.empty()) {
          return true;  // would be taken for the end
        }
        piece_.assign(bytes.begin(), bytes.end());
        has_piece_ = held_ = true;
        wake();
        return false;
      },
      [this](protocol::Answer<std::uint64_t> answer) {
        end_.emplace(std::move(answer));
        wake();
      });
  return {};
}

Result<std::span<const std::byte>> FileClient::State::next_piece() {
  heard_ = Clock::now();  // who reads may have taken his time
  has_piece_ = false;
  if (files_ && std::exchange(held_, false)) {
    files_->resume();
  }
  if (auto waited = wait_until([&] { return has_piece_ || end_; }); !waited) {
    return std::unexpected(waited.error());
  }
  if (has_piece_) {
    return piece_;
  }
  if (!*end_) {
    return std::unexpected(end_->error().error);
  }
  return std::span<const std::byte>();
}

Result<std::uint64_t> FileClient::State::send(const Outgoing& question, oci::PieceSource& content) {
  if (auto begun = begin(); !begun) {
    return std::unexpected(begun.error());
  }
  bool over = false;
  std::optional<protocol::Answer<std::uint64_t>> answer;
  wanted_ = false;
  question(
      *files_,
      [this] {
        wanted_ = true;
        wake();
      },
      [&](protocol::Answer<std::uint64_t> given) {
        answer.emplace(std::move(given));
        over = true;
        wake();
      });
  if (auto sent = send_pieces(content, over); !sent) {
    files_.reset();
    return std::unexpected(sent.error());
  }
  if (!*answer) {
    return std::unexpected(answer->error().error);
  }
  return **answer;
}

Result<void> FileClient::State::send_pieces(oci::PieceSource& content, const bool& over) {
  while (true) {
    if (auto waited = wait_until([&] { return wanted_ || over; }); !waited || over) {
      return waited;
    }
    const auto piece = content.next();
    if (!piece) {
      return std::unexpected(piece.error());
    }
    heard_ = Clock::now();
    wanted_ = false;
    if (piece->empty()) {
      files_->end_data();
      return wait_until([&] { return over; });
    }
    files_->send(*piece);
  }
}

namespace {

// What failed before it began.
class FailedSource final : public oci::PieceSource {
 public:
  explicit FailedSource(Error error) : error_(std::move(error)) {}
  Result<std::span<const std::byte>> next() override { return std::unexpected(error_); }

 private:
  Error error_;
};

// What a guest sends.
template <typename State>
class GuestSource final : public oci::PieceSource {
 public:
  explicit GuestSource(State& state) : state_(state) {}
  Result<std::span<const std::byte>> next() override { return state_.next_piece(); }

 private:
  State& state_;
};

template <typename State>
std::unique_ptr<oci::PieceSource> source_of(State& state, const Result<void>& begun) {
  if (!begun) {
    return std::make_unique<FailedSource>(begun.error());
  }
  return std::make_unique<GuestSource<State>>(state);
}

}  // namespace

FileClient::FileClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
FileClient::FileClient(FileClient&&) noexcept = default;
FileClient& FileClient::operator=(FileClient&&) noexcept = default;
FileClient::~FileClient() = default;

Result<FileClient> FileClient::connect(const std::string& socket) {
  auto loop = Loop::create();
  if (!loop) {
    return std::unexpected(loop.error());
  }
  auto connection = protocol::connect_sandbox(socket, MSB_PORT_AGENT);
  if (!connection) {
    return std::unexpected(connection.error());
  }
  return FileClient(std::make_unique<State>(std::move(*loop), std::move(*connection)));
}

Result<protocol::FileEntry> FileClient::stat(const std::string& path, bool follow) {
  return state_->ask<protocol::FileEntry>(
      [&](protocol::Files& files, auto done) { files.stat(path, follow, std::move(done)); });
}

Result<void> FileClient::chmod(const std::string& path, std::uint32_t mode) {
  return state_->ask<void>(
      [&](protocol::Files& files, auto done) { files.chmod(path, mode, 0, std::move(done)); });
}

Result<void> FileClient::chown(const std::string& path, std::uint32_t user, std::uint32_t group) {
  return state_->ask<void>([&](protocol::Files& files, auto done) {
    files.chown(path, user, group, MSB_FILE_FOLLOW, std::move(done));
  });
}

Result<void> FileClient::diff(const std::function<bool(const protocol::FileEntry&)>& each) {
  return state_->diff(each);
}

std::unique_ptr<oci::PieceSource> FileClient::read(const std::string& path) {
  return source_of(*state_,
                   state_->begin_incoming([&](protocol::Files& files, auto data, auto done) {
                     files.read(path, 0, protocol::kWholeFile, std::move(data), std::move(done));
                   }));
}

std::unique_ptr<oci::PieceSource> FileClient::pack(const std::string& path) {
  return source_of(*state_,
                   state_->begin_incoming([&](protocol::Files& files, auto data, auto done) {
                     files.pack(path, std::move(data), std::move(done));
                   }));
}

Result<std::uint64_t> FileClient::write(const std::string& path,
                                        const protocol::WriteOptions& options,
                                        oci::PieceSource& content) {
  return state_->send(
      [&](protocol::Files& files, auto more, auto done) {
        files.write(path, options, std::move(more), std::move(done));
      },
      content);
}

Result<std::uint64_t> FileClient::unpack(const std::string& path,
                                         const protocol::UnpackOptions& options,
                                         oci::PieceSource& tar) {
  return state_->send(
      [&](protocol::Files& files, auto more, auto done) {
        files.unpack(path, options, std::move(more), std::move(done));
      },
      tar);
}

}  // namespace msb::sandbox
