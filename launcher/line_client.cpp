// SPDX-License-Identifier: Apache-2.0
#include "launcher/line_client.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace msb::launcher {

namespace {

// In one turn of the loop, which has other clients, and the command's streams.
constexpr int kLinesAtOnce = 32;

}  // namespace

LineClient::LineClient(AsyncIo& io, Fd socket, Owner owner, std::size_t max_waiting)
    : io_(io),
      socket_(std::move(socket)),
      owner_(std::move(owner)),
      max_waiting_(max_waiting),
      readable_([this](std::int32_t result) { complete(result, &LineClient::on_readable); }),
      writable_([this](std::int32_t result) { complete(result, &LineClient::on_writable); }),
      again_([this](std::int32_t result) { complete(result, &LineClient::work); }) {}

void LineClient::start() {
  wait_for_more();
}

// Goes on with `step` unless this has left, and lets go of itself behind the last operation.
void LineClient::complete(std::int32_t result, void (LineClient::*step)()) {
  const auto kept = shared_from_this();
  if (!left_ && result != -ECANCELED) {
    (this->*step)();
  }
  if (left_ && !readable_.pending() && !writable_.pending() && !again_.pending()) {
    self_.reset();
  }
}

void LineClient::leave() {
  if (std::exchange(left_, true)) {
    return;
  }
  const auto kept = shared_from_this();
  if (readable_.pending() || writable_.pending() || again_.pending()) {
    self_ = kept;
  }
  io_.cancel(readable_);
  io_.cancel(writable_);
  io_.cancel(again_);
  socket_.reset();
  owner_.left(*this);
}

// --- in ---

void LineClient::on_readable() {
  const std::size_t had = input_.size();
  input_.resize(kMaxLine + 1);
  const ssize_t size =
      ::recv(socket_.get(), input_.data() + had, input_.size() - had, MSG_DONTWAIT);
  const int code = errno;
  input_.resize(had + (size > 0 ? static_cast<std::size_t>(size) : 0));
  if (size < 0 && code != EAGAIN && code != EINTR) {
    leave();
    return;
  }
  ended_ = size == 0;
  has_line_ = true;
  work();
}

void LineClient::finish() {
  under_way_ = false;
  work();
}

bool LineClient::may_take() const {
  return !left_ && !closing_ && !under_way_ && output_.size() <= kPatience;
}

// Takes what lines there are, unless that is going on already: finish() comes from inside it, too.
void LineClient::work() {
  if (left_ || working_) {
    return;
  }
  const auto kept = shared_from_this();
  working_ = true;
  take_lines();
  working_ = false;
  if (left_) {
    return;
  }
  const bool idle = !has_line_ && !under_way_;
  if (idle && !closing_ && input_.size() > kMaxLine) {
    closing_ = true;
    owner_.too_long(*this);
  }
  if ((closing_ || (ended_ && idle)) && !left_ && output_.empty()) {
    leave();
  }
  if (!left_) {
    wait_for_more();
  }
}

void LineClient::take_lines() {
  std::size_t taken = 0;
  for (int lines = 0; has_line_ && may_take(); ++lines) {
    const std::size_t end = input_.find('\n', taken);
    if (end == std::string::npos) {
      has_line_ = false;
    } else if (lines == kLinesAtOnce) {
      if (!again_.pending()) {
        io_.defer(again_);
      }
      break;
    } else {
      under_way_ = true;
      std::string line = input_.substr(taken, end - taken);
      taken = end + 1;
      owner_.line(*this, std::move(line));
    }
  }
  input_.erase(0, taken);
}

void LineClient::wait_for_more() {
  if (!readable_.pending() && !ended_ && !closing_ && input_.size() <= kMaxLine) {
    io_.poll(socket_.get(), POLLIN, readable_);
  }
}

// --- out ---

void LineClient::send(std::string_view text) {
  if (left_) {
    return;
  }
  output_ += text;
  if (!writable_.pending()) {
    flush();
  }
  if (output_.size() > max_waiting_) {
    leave();
  }
}

void LineClient::on_writable() {
  flush();
  work();
}

void LineClient::flush() {
  while (!output_.empty()) {
    const ssize_t size =
        ::send(socket_.get(), output_.data(), output_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (size >= 0) {
      output_.erase(0, static_cast<std::size_t>(size));
    } else if (errno == EAGAIN) {
      io_.poll(socket_.get(), POLLOUT, writable_);
      return;
    } else if (errno != EINTR) {
      leave();
      return;
    }
  }
}

}  // namespace msb::launcher
