// SPDX-License-Identifier: Apache-2.0
#include "protocol/interpreters/session_message.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

namespace msb::protocol {
namespace {

using Json = nlohmann::json;
using Operation = SessionMessage::Operation;

constexpr std::size_t kLengthSize = 4;
constexpr std::size_t kMaxKey = 256;  // bytes; a MIME type with parameters is far shorter
constexpr std::uint64_t kMaxStatus = 255;

constexpr std::array<std::pair<std::string_view, Operation>, 6> kOperations = {{
    {"ready", Operation::kReady},
    {"started", Operation::kStarted},
    {"display", Operation::kDisplay},
    {"result", Operation::kResult},
    {"error", Operation::kError},
    {"done", Operation::kDone},
}};

// Fills a message while the JSON is read: no tree is built, so what a message may cost in memory is
// its own size, whatever it nests.
class Reader final : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return ignorable(); }
  bool boolean(bool) override { return ignorable(); }
  bool number_integer(number_integer_t) override { return ignorable(); }
  bool number_float(number_float_t, const string_t&) override { return ignorable(); }
  bool binary(binary_t&) override { return false; }

  bool number_unsigned(number_unsigned_t value) override {
    if (in_ == In::kCut) {
      message_.cut.insert_or_assign(inner_key_, value);
      return true;
    }
    if (in_ != In::kMessage) {
      return false;
    }
    if (key_ == "id") {
      message_.id = static_cast<std::uint32_t>(value);
      return value <= kMaxSessionId;
    }
    if (key_ == "status" || key_ == "exit") {
      (key_ == "exit" ? message_.exit : message_.status) = static_cast<std::uint32_t>(value);
      return value <= kMaxStatus;
    }
    return ignorable();
  }

  bool string(string_t& value) override {
    if (in_ == In::kData) {
      message_.data.insert_or_assign(inner_key_, std::move(value));
      return message_.data.size() <= kMaxRepresentations;
    }
    if (in_ == In::kTraceback) {
      message_.traceback.push_back(std::move(value));
      return message_.traceback.size() <= kMaxTracebackLines;
    }
    if (in_ != In::kMessage) {
      return false;
    }
    if (key_ == "op") {
      operation_ = std::move(value);
    } else if (key_ == "language") {
      message_.language = std::move(value);
    } else if (key_ == "version") {
      message_.version = std::move(value);
    } else if (key_ == "name") {
      message_.name = std::move(value);
    } else if (key_ == "message") {
      message_.message = std::move(value);
    } else {
      return ignorable();
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (in_ == In::kNothing) {
      in_ = In::kMessage;
    } else if (in_ == In::kMessage && key_ == "data") {
      in_ = In::kData;
    } else if (in_ == In::kMessage && key_ == "cut") {
      in_ = In::kCut;
    } else {
      return false;
    }
    return true;
  }

  bool key(string_t& value) override {
    if (value.size() > kMaxKey) {
      return false;
    }
    (in_ == In::kMessage ? key_ : inner_key_) = std::move(value);
    return message_.cut.size() <= kMaxRepresentations;
  }

  bool end_object() override {
    in_ = in_ == In::kMessage ? In::kNothing : In::kMessage;
    key_.clear();
    return true;
  }

  bool start_array(std::size_t) override {
    if (in_ != In::kMessage || key_ != "traceback") {
      return false;
    }
    in_ = In::kTraceback;
    return true;
  }

  bool end_array() override { return end_object(); }

  bool parse_error(std::size_t position, const std::string&,
                   const Json::exception& exception) override {
    error_ = fmt::format("byte {}: {}", position, exception.what());
    return false;
  }

  [[nodiscard]] const std::string& error() const { return error_; }

  std::optional<SessionMessage> take() {
    const auto* known =
        std::ranges::find(kOperations, operation_, [](const auto& o) { return o.first; });
    if (known == kOperations.end()) {
      return std::nullopt;
    }
    message_.operation = known->second;
    return std::move(message_);
  }

 private:
  enum class In { kNothing, kMessage, kData, kCut, kTraceback };

  // A later version's fields are passed over, as long as they are plain.
  [[nodiscard]] bool ignorable() const {
    static constexpr std::array<std::string_view, 10> kKnown = {
        "op", "id", "language", "version", "data", "cut", "name", "message", "traceback", "status"};
    return in_ == In::kMessage && key_ != "exit" && std::ranges::find(kKnown, key_) == kKnown.end();
  }

  SessionMessage message_;
  std::string operation_;
  std::string key_;
  std::string inner_key_;
  In in_ = In::kNothing;
  std::string error_;
};

std::size_t length_in(std::string_view bytes) {
  std::size_t length = 0;
  for (std::size_t i = 0; i < kLengthSize; ++i) {
    length |= std::size_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  }
  return length;
}

}  // namespace

Result<std::optional<SessionMessage>> parse_session_message(std::string_view json) {
  Reader reader;
  if (!Json::sax_parse(json, &reader)) {
    return fail("the session's interpreter sent a message of the wrong form{}{}",
                reader.error().empty() ? "" : ": ", reader.error());
  }
  return reader.take();
}

void SessionMessageDecoder::seek_ready(std::uint32_t id) {
  sought_ = fmt::format(R"({{"op":"ready","id":{},)", id);
  buffer_.clear();
}

Result<std::optional<SessionMessage>> SessionMessageDecoder::next(
    std::span<const std::byte>& bytes) {
  while (!bytes.empty()) {
    if (!sought_.empty() && !seek(bytes)) {
      return std::nullopt;
    }
    if (!fill(kLengthSize, bytes)) {
      return std::nullopt;
    }
    const std::size_t length = length_in(buffer_);
    if (length == 0 || length > kMaxSessionMessage) {
      return fail("the session's interpreter sent a message of {} bytes; 1 to {} are allowed",
                  length, kMaxSessionMessage);
    }
    if (!fill(kLengthSize + length, bytes)) {
      return std::nullopt;
    }
    const std::string whole = std::exchange(buffer_, {});
    auto message = parse_session_message(std::string_view(whole).substr(kLengthSize));
    if (!message || *message) {
      return message;
    }
  }
  return std::nullopt;
}

// Takes bytes until buffer_ holds a length and, behind it, how the message begins that is sought.
bool SessionMessageDecoder::seek(std::span<const std::byte>& bytes) {
  while (!bytes.empty()) {
    buffer_.push_back(static_cast<char>(bytes.front()));
    bytes = bytes.subspan(1);
    if (buffer_.size() > kLengthSize + sought_.size()) {
      buffer_.erase(0, 1);
    }
    if (buffer_.size() == kLengthSize + sought_.size() && buffer_.ends_with(sought_) &&
        length_in(buffer_) >= sought_.size()) {
      sought_.clear();
      return true;
    }
  }
  return false;
}

bool SessionMessageDecoder::fill(std::size_t size, std::span<const std::byte>& bytes) {
  if (buffer_.size() < size) {
    const std::size_t count = std::min(size - buffer_.size(), bytes.size());
    // Grows with what has come, never with what was announced.
    buffer_.append(reinterpret_cast<const char*>(bytes.data()), count);
    bytes = bytes.subspan(count);
  }
  return buffer_.size() >= size;
}

}  // namespace msb::protocol
