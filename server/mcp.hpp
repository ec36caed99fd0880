// SPDX-License-Identifier: Apache-2.0
// The Model Context Protocol (modelcontextprotocol.io/specification), apart from how its messages
// travel: what they are, and what becomes of a client's requests.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/app.hpp"
#include "server/async.hpp"
#include "server/exchange.hpp"
#include "server/keys.hpp"
#include "server/problem.hpp"

namespace msb::server {

// How a client says which revision of the protocol it speaks: up to 2025-11-25 once, by initialize,
// and since 2026-07-28 in each request.
enum class McpEra : std::uint8_t { kLegacy, kModern };
inline constexpr std::string_view kModernRevision = "2026-07-28";
// Those that initialize agrees on, the newest first.
inline constexpr std::array<std::string_view, 4> kMcpRevisions = {"2025-11-25", "2025-06-18",
                                                                  "2025-03-26", "2024-11-05"};
bool is_mcp_revision(std::string_view word);

// JSON-RPC 2.0, section 5.1, and those that the revision 2026-07-28 adds.
enum class McpCode : int {
  kParseError = -32700,
  kInvalidRequest = -32600,
  kUnknownMethod = -32601,
  kInvalidParams = -32602,
  kInternalError = -32603,
  kServerError = -32000,  // of the legacy era alone
  kHeaderMismatch = -32020,
  kUnsupportedRevision = -32022,
};

// Why a message has no result.
struct McpError {
  McpCode code = McpCode::kInternalError;
  Problem problem;
  Json data = Json::object();  // what it tells besides
};
using McpResult = std::expected<Json, McpError>;

struct McpMessage {
  enum class Kind : std::uint8_t { kRequest, kNotification, kResponse };
  Kind kind = Kind::kRequest;
  Json id;  // of a request: a text or a whole number
  std::string method;
  Json params = Json::object();  // an object
};

struct BadMessage {
  McpError error;
  Json id;  // of the request; null when it has none that can be read
};

// One message. Batches, which the revision 2025-03-26 has and no other, are refused. Pure.
std::expected<McpMessage, BadMessage> read_message(std::string_view text);

// {"jsonrpc", "id", "result"}, or {"jsonrpc", "id", "error": {"code", "message", "data":
// {"code"}}}, where data.code is the number of the 0.2 line, beside what else the error tells.
Json response_message(const Json& id, McpResult result);

// Tells how far a call is; empty when its client did not ask. `total`: 0 when it is not known.
using McpProgress =
    std::function<void(std::uint64_t done, std::uint64_t total, std::string_view message)>;

// Which of the steps of a call its client is told: not more than five in a second, and none that is
// not further than the one before. Pure.
class ProgressNotes {
 public:
  using Clock = std::chrono::steady_clock;

  explicit ProgressNotes(Json token) : token_(std::move(token)) {}
  // A notification, or nothing. Bytes of `message` that are no UTF-8 are not sent as they are, and
  // of a long one its begin alone.
  std::optional<Json> note(Clock::time_point now, std::uint64_t done, std::uint64_t total,
                           std::string_view message);

 private:
  Json token_;
  std::optional<Clock::time_point> last_;
  std::uint64_t done_ = 0;
};

// A request that is being served. Destroying it cancels that.
class McpCall {
 public:
  struct State;
  explicit McpCall(std::shared_ptr<State> state) : state_(std::move(state)) {}
  McpCall(McpCall&&) = default;
  McpCall& operator=(McpCall&&) = delete;
  ~McpCall();

  // Until take() has something or over(), or `deadline`; whether it was the former.
  Async<bool> wait(Signal::Clock::time_point deadline = Signal::Clock::time_point::max());
  // The next message for the client: of its notifications the latest, and then the response.
  std::optional<Json> take();
  // Whether no message will come: the response was taken, or the request was cancelled.
  [[nodiscard]] bool over() const;

 private:
  std::shared_ptr<State> state_;
};

class McpSession {
 public:
  // Requests of one session at a time.
  static constexpr std::size_t kMaxCalls = 64;

  // `id`: what its ephemeral sandboxes are known by; empty: they do not end with it.
  McpSession(App& app, std::string id) : app_(app), id_(std::move(id)) {}
  McpSession(const McpSession&) = delete;
  McpSession& operator=(const McpSession&) = delete;

  [[nodiscard]] const std::string& id() const { return id_; }
  // The call need not end before the session does. Fails when there are too many, or one of this
  // id, and for a method that the era does not have. `log_id`: what the log calls the request.
  std::expected<McpCall, McpError> begin(Key key, McpMessage request, McpEra era = McpEra::kLegacy,
                                         const std::string& log_id = "");
  void notify(const McpMessage& notification);
  // Requests that are being served.
  [[nodiscard]] std::size_t calls() const;
  // Cancels them, and removes its ephemeral sandboxes.
  Async<> end();

 private:
  void cancel(const std::string& request);

  App& app_;
  std::string id_;
  std::map<std::string, std::weak_ptr<McpCall::State>> calls_;  // by the id, as JSON
};

// 43 characters of base64url, which nobody can guess.
std::string new_session_id();

template <typename... Args>
[[nodiscard]] std::unexpected<McpError> mcp_refuse(McpCode code, Reason reason,
                                                   fmt::format_string<Args...> format,
                                                   Args&&... args) {
  return std::unexpected(
      McpError{code, {reason, fmt::format(format, std::forward<Args>(args)...), std::nullopt}});
}

}  // namespace msb::server
