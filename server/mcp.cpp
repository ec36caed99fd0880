// SPDX-License-Identifier: Apache-2.0
#include "server/mcp.hpp"

#include <sys/random.h>

#include <algorithm>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <exception>
#include <string>
#include <utility>

#include "base/nearest_word.hpp"
#include "oci/base64.hpp"
#include "oci/printable.hpp"
#include "server/mcp_era.hpp"
#include "server/mcp_prompts.hpp"
#include "server/mcp_tools.hpp"

namespace msb::server {

namespace {

constexpr const char* kInstructions =
    "Sandboxes are small virtual machines, each with its own Linux made from a container image: "
    "run whatever you want in them, nothing reaches the host. sandbox_start makes one by a name "
    "of your choice, for example {\"sandbox\": \"work\", \"config\": {\"image\": "
    "\"python:3.12-slim\"}, \"ephemeral\": true}; then sandbox_run_code and sandbox_run_command "
    "run in it. Variables, imports and files stay from one run to the next. What a run shows as "
    "an image comes back as an image. An ephemeral sandbox is removed at the end of this session, "
    "or, over HTTP without a session, when it was not used for half an hour; others stay until "
    "sandbox_remove, and keep their files when they are stopped.";

// A request that is served, as its parts see it.
struct Request {
  App& app;
  Key key;
  std::string session;
  Json id;
  Json params;
  McpProgress progress;
  std::function<void(Json)> tell;  // sends a notification before the response
};

bool is_id(const Json& value) {
  return value.is_string() || value.is_number_integer();
}

const Json* member(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

Json capabilities() {
  return {{"tools", {{"listChanged", false}}}, {"prompts", {{"listChanged", false}}}};
}

Async<McpResult> initialize(Request request) {
  std::string_view revision = kMcpRevisions.front();
  if (const Json* asked = member(request.params, "protocolVersion")) {
    if (!asked->is_string()) {
      co_return mcp_refuse(McpCode::kInvalidParams, Reason::kInvalid,
                           "\"protocolVersion\" has to be a text, as \"{}\"", revision);
    }
    const auto known = std::ranges::find(kMcpRevisions, asked->get_ref<const std::string&>());
    revision = known == kMcpRevisions.end() ? revision : *known;
  }
  Json result = {{"protocolVersion", revision},
                 {"capabilities", capabilities()},
                 {"serverInfo", server_info()},
                 {"instructions", kInstructions}};
  co_return result;
}

Async<McpResult> discover(Request /*request*/) {
  Json result = {{"supportedVersions", served_revisions()},
                 {"capabilities", capabilities()},
                 {"instructions", kInstructions}};
  co_return result;
}

// Nothing that one could listen to ever changes here: nothing is acknowledged, and that was all.
Async<McpResult> listen(Request request) {
  const Json* wanted = member(request.params, "notifications");
  if (wanted == nullptr || !wanted->is_object()) {
    co_return mcp_refuse(McpCode::kInvalidParams, Reason::kInvalid,
                         "\"notifications\" has to be an object, of what is to be told");
  }
  const Json meta = {{"io.modelcontextprotocol/subscriptionId", request.id}};
  request.tell({{"jsonrpc", "2.0"},
                {"method", "notifications/subscriptions/acknowledged"},
                {"params", {{"notifications", Json::object()}, {"_meta", meta}}}});
  Json result = {{"_meta", meta}};
  co_return result;
}

Async<McpResult> ping(Request /*request*/) {
  co_return Json::object();
}

// Lists are given whole, so that no cursor was ever given.
McpResult whole_list(const Json& params, const char* name, const Json& list) {
  if (params.contains("cursor") && !params["cursor"].is_null()) {
    return mcp_refuse(McpCode::kInvalidParams, Reason::kInvalid,
                      "this \"cursor\" was not given: the list is one page");
  }
  return Json{{name, list}};
}

Async<McpResult> list_tools(Request request) {
  co_return whole_list(request.params, "tools", mcp_tools());
}

Async<McpResult> call_tool(Request request) {
  ToolCall call{request.app, std::move(request.key), std::move(request.session), Json::object(),
                std::move(request.progress)};
  co_return co_await call_mcp_tool(std::move(call), std::move(request.params));
}

Async<McpResult> list_prompts(Request request) {
  co_return whole_list(request.params, "prompts", mcp_prompts());
}

Async<McpResult> get_prompt(Request request) {
  co_return get_mcp_prompt(request.params);
}

struct Method {
  std::string_view name;
  Async<McpResult> (*serve)(Request);
  std::optional<McpEra> only = std::nullopt;
};
constexpr std::array<Method, 8> kMethods = {{{"initialize", initialize, McpEra::kLegacy},
                                             {"ping", ping, McpEra::kLegacy},
                                             {"server/discover", discover, McpEra::kModern},
                                             {"subscriptions/listen", listen, McpEra::kModern},
                                             {"tools/list", list_tools},
                                             {"tools/call", call_tool},
                                             {"prompts/list", list_prompts},
                                             {"prompts/get", get_prompt}}};

std::expected<const Method*, McpError> find_method(const std::string& name, McpEra era) {
  std::vector<std::string_view> names;
  for (const Method& one : kMethods) {
    if (one.only.value_or(era) != era) {
      continue;
    }
    if (one.name == name) {
      return &one;
    }
    names.push_back(one.name);
  }
  return mcp_refuse(McpCode::kUnknownMethod, Reason::kNotFound, "there is no method '{}'{}",
                    oci::printable(name), did_you_mean(name, names));
}

// The token of a client that wants to know how far the request is; null when it does not.
std::expected<Json, McpError> progress_token(const Json& params) {
  const Json* meta = member(params, "_meta");
  const Json* token =
      meta != nullptr && meta->is_object() ? member(*meta, "progressToken") : nullptr;
  if (token == nullptr || token->is_null()) {
    return Json();
  }
  if (!is_id(*token)) {
    return mcp_refuse(McpCode::kInvalidParams, Reason::kInvalid,
                      "\"_meta.progressToken\" has to be a text or a whole number");
  }
  return *token;
}

std::string message_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& known) {
    return known.what();
  } catch (...) {
    return "an exception of an unknown type";
  }
}

std::unexpected<BadMessage> bad_message(McpCode code, std::string message, Json id = nullptr) {
  return std::unexpected(
      BadMessage{{code, {Reason::kInvalid, std::move(message), std::nullopt}}, std::move(id)});
}

}  // namespace

bool is_mcp_revision(std::string_view word) {
  return std::ranges::find(kMcpRevisions, word) != kMcpRevisions.end();
}

std::expected<McpMessage, BadMessage> read_message(std::string_view text) {
  auto document = parse_json(text);
  if (!document) {
    return bad_message(McpCode::kParseError,
                       "a message is one document of JSON in UTF-8, at most 64 levels deep");
  }
  if (document->is_array()) {
    return bad_message(McpCode::kInvalidRequest,
                       "batches are not taken: send each message by itself");
  }
  if (!document->is_object()) {
    return bad_message(McpCode::kInvalidRequest, "a message is an object");
  }
  McpMessage message;
  const Json* id = member(*document, "id");
  if (id != nullptr && is_id(*id)) {
    message.id = *id;
  }
  const Json* version = member(*document, "jsonrpc");
  if (version == nullptr || *version != "2.0") {
    return bad_message(McpCode::kInvalidRequest, "\"jsonrpc\" has to be \"2.0\"", message.id);
  }
  const Json* method = member(*document, "method");
  if (method == nullptr && (document->contains("result") || document->contains("error"))) {
    message.kind = McpMessage::Kind::kResponse;
    return message;
  }
  if (id != nullptr && message.id.is_null()) {
    return bad_message(McpCode::kInvalidRequest, "\"id\" has to be a text or a whole number");
  }
  if (method == nullptr || !method->is_string()) {
    return bad_message(McpCode::kInvalidRequest, "\"method\" has to be a text", message.id);
  }
  message.kind = id == nullptr ? McpMessage::Kind::kNotification : McpMessage::Kind::kRequest;
  message.method = method->get<std::string>();
  const Json* params = member(*document, "params");
  if (params != nullptr && !params->is_null()) {
    if (!params->is_object()) {
      return bad_message(McpCode::kInvalidParams, "\"params\" has to be an object", message.id);
    }
    message.params = std::move((*document)["params"]);
  }
  return message;
}

Json response_message(const Json& id, McpResult result) {
  Json message = {{"jsonrpc", "2.0"}, {"id", id}};
  if (result) {
    message["result"] = std::move(*result);
  } else {
    const McpError& error = result.error();
    Json data = {{"code", info(error.problem.reason).number}};
    data.update(error.data);
    message["error"] = {{"code", static_cast<int>(error.code)},
                        {"message", error.problem.message},
                        {"data", std::move(data)}};
  }
  return message;
}

std::optional<Json> ProgressNotes::note(Clock::time_point now, std::uint64_t done,
                                        std::uint64_t total, std::string_view message) {
  constexpr std::chrono::milliseconds kPause{200};
  constexpr std::size_t kLongest = 200;
  if (last_ && (now - *last_ < kPause || done <= done_)) {
    return std::nullopt;
  }
  last_ = now;
  done_ = done;
  Json params = {{"progressToken", token_}, {"progress", done}};
  if (total > 0) {
    params["total"] = total;
  }
  if (message.size() > kLongest) {
    // Not in the middle of a character (RFC 3629).
    std::size_t end = kLongest;
    while (end > 0 && (message[end] & 0xc0) == 0x80) {
      --end;
    }
    message = message.substr(0, end);
  }
  if (!message.empty()) {
    params["message"] = message;
  }
  return Json{
      {"jsonrpc", "2.0"}, {"method", "notifications/progress"}, {"params", std::move(params)}};
}

struct McpCall::State {
  Json id;
  std::string method;
  McpEra era = McpEra::kLegacy;
  std::optional<Json> notification;
  std::optional<Json> response;
  bool over = false;  // there is no response to wait for any more
  Signal changed;
  asio::cancellation_signal signal;

  void respond(McpResult result) {
    if (over || response) {
      return;
    }
    if (result && era == McpEra::kModern) {
      result = modern_result(method, std::move(*result));
    }
    response = response_message(id, std::move(result));
    changed.notify();
  }
  void tell(Json message) {
    if (over || response) {
      return;
    }
    notification = std::move(message);
    changed.notify();
  }
  void cancel() {
    if (over) {
      return;
    }
    over = true;
    changed.notify();
    signal.emit(asio::cancellation_type::terminal);
  }
};

McpCall::~McpCall() {
  if (state_ && !state_->response) {
    state_->cancel();
  }
}

Async<bool> McpCall::wait(Signal::Clock::time_point deadline) {
  const auto state = state_;
  while (!state->notification && !state->response && !state->over) {
    const bool come = co_await state->changed.wait(deadline);
    if (!come) {
      co_return false;
    }
  }
  co_return true;
}

std::optional<Json> McpCall::take() {
  if (state_->over) {
    return std::nullopt;
  }
  if (state_->notification) {
    return std::exchange(state_->notification, std::nullopt);
  }
  state_->over = state_->response.has_value();
  return std::move(state_->response);
}

bool McpCall::over() const {
  return state_->over;
}

std::expected<McpCall, McpError> McpSession::begin(Key key, McpMessage request, McpEra era,
                                                   const std::string& log_id) {
  std::erase_if(calls_, [](const auto& call) {
    const auto state = call.second.lock();
    return !state || state->over || state->response;
  });
  const auto method = find_method(request.method, era);
  if (!method) {
    return std::unexpected(method.error());
  }
  auto token = progress_token(request.params);
  if (!token) {
    return std::unexpected(token.error());
  }
  if (calls_.size() >= kMaxCalls) {
    return mcp_refuse(era == McpEra::kModern ? McpCode::kInternalError : McpCode::kServerError,
                      Reason::kFull, "{} requests of this session are being served already",
                      kMaxCalls);
  }
  const auto state = std::make_shared<McpCall::State>();
  state->id = std::move(request.id);
  state->method = std::move(request.method);
  state->era = era;
  if (!calls_.emplace(to_text(state->id), state).second) {
    return mcp_refuse(McpCode::kInvalidRequest, Reason::kConflict,
                      "a request with this \"id\" is being served already");
  }
  const auto tell = [weak = std::weak_ptr(state)](Json message) {
    if (const auto call = weak.lock()) {
      call->tell(std::move(message));
    }
  };
  McpProgress progress;
  if (!token->is_null()) {
    progress = [tell, notes = ProgressNotes(std::move(*token))](
                   std::uint64_t done, std::uint64_t total, std::string_view message) mutable {
      if (auto note = notes.note(ProgressNotes::Clock::now(), done, total, message)) {
        tell(std::move(*note));
      }
    };
  }
  const auto serve = [](const Method* how, Request what,
                        std::shared_ptr<McpCall::State> to) -> Async<> {
    to->respond(co_await how->serve(std::move(what)));
  };
  Request what{app_, std::move(key), id_, state->id, std::move(request.params), std::move(progress),
               tell};
  asio::co_spawn(
      app_.io, serve(*method, std::move(what), state),
      asio::bind_cancellation_slot(
          state->signal.slot(), [state, log = app_.log, log_id](const std::exception_ptr& error) {
            if (state->over || !error) {
              return;  // somebody cancelled it, or there is a response
            }
            if (log != nullptr) {
              log->write("error", fmt::format("{}: {}", state->method, message_of(error)), log_id);
            }
            state->respond(mcp_refuse(McpCode::kInternalError, Reason::kInternal,
                                      "the server made a mistake, which its log tells of"));
          }));
  return McpCall(state);
}

void McpSession::notify(const McpMessage& notification) {
  if (notification.method != "notifications/cancelled") {
    return;
  }
  const Json* request = member(notification.params, "requestId");
  if (request != nullptr && is_id(*request)) {
    cancel(to_text(*request));
  }
}

void McpSession::cancel(const std::string& request) {
  const auto found = calls_.find(request);
  const auto state = found == calls_.end() ? nullptr : found->second.lock();
  if (state && !state->response) {
    state->cancel();
  }
}

std::size_t McpSession::calls() const {
  return static_cast<std::size_t>(std::ranges::count_if(calls_, [](const auto& call) {
    const auto state = call.second.lock();
    return state && !state->over && !state->response;
  }));
}

Async<> McpSession::end() {
  std::vector<std::string> requests;
  for (const auto& [request, call] : calls_) {
    requests.push_back(request);
  }
  for (const std::string& request : requests) {
    cancel(request);
  }
  co_await app_.sandboxes.end_session(id_);
}

std::string new_session_id() {
  std::string random(32, '\0');
  while (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
  }
  // RFC 4648, section 5.
  std::string id = oci::encode_base64(random);
  std::ranges::replace(id, '+', '-');
  std::ranges::replace(id, '/', '_');
  id.erase(id.find('='));
  return id;
}

}  // namespace msb::server
