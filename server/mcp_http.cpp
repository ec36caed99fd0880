// SPDX-License-Identifier: Apache-2.0
#include "server/mcp_http.hpp"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "oci/printable.hpp"
#include "server/mcp_era.hpp"
#include "server/rpc.hpp"

namespace msb::server {

namespace {

using std::chrono::seconds;

constexpr seconds kPing{15};  // between signs of life on a stream
// A response that takes longer comes as a stream, so that nobody in between takes it for dead.
constexpr seconds kPatience{10};
constexpr seconds kEndPatience{20};  // for requests to end by themselves, when the server does
constexpr seconds kAbandoned{60};
constexpr unsigned kRetryAfter = 60;  // seconds, when there are too many sessions

constexpr std::string_view kEvents = "text/event-stream";
constexpr const char* kSessionField = "Mcp-Session-Id";
constexpr const char* kRevisionField = "MCP-Protocol-Version";
constexpr const char* kMethodField = "Mcp-Method";
constexpr const char* kNameField = "Mcp-Name";

constexpr unsigned kAccepted = 202;
constexpr unsigned kNoContent = 204;
constexpr unsigned kBadRequest = 400;
constexpr unsigned kNotFound = 404;
constexpr unsigned kNotAcceptable = 406;
constexpr unsigned kUnsupportedType = 415;

// A type and its parameters, in lower case and without blanks.
std::string normalized(std::string_view word) {
  std::string text;
  for (const char c : word) {
    if (c != ' ' && c != '\t') {
      text.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c);
    }
  }
  return text;
}

std::string_view type_of(std::string_view media) {
  return media.substr(0, media.find(';'));
}

HttpAnswer refusal(Reason reason, std::string message, std::optional<unsigned> status = {}) {
  HttpAnswer answer = rpc_error_answer({reason, std::move(message), std::nullopt}, nullptr);
  answer.status = status.value_or(answer.status);
  return answer;
}

HttpAnswer bare(unsigned status) {
  return {status, "", "", {}};
}

// What its fields say against a message; nothing when it may be read.
std::optional<HttpAnswer> judge_fields(const Exchange& exchange) {
  const Acceptable acceptable = read_accept(exchange.header("Accept"));
  if (!acceptable.json && !acceptable.events) {
    return refusal(Reason::kInvalid, "\"Accept\" has to have application/json or text/event-stream",
                   kNotAcceptable);
  }
  const std::string type = normalized(exchange.header("Content-Type"));
  if (!type.empty() && type_of(type) != "application/json") {
    return refusal(Reason::kInvalid, "\"Content-Type\" has to be application/json",
                   kUnsupportedType);
  }
  return std::nullopt;
}

}  // namespace

struct McpSessions::Session {
  Session(App& app, const Key& key) : protocol(app, new_session_id()), owner(key.id) {}

  McpSession protocol;
  const std::string owner;                                // the id of its key
  std::size_t in_use = 0;                                 // requests and streams of its client
  Signal::Clock::time_point left = Signal::Clock::now();  // when the last of them ended
  bool listening = false;  // its client has a stream for messages that answer nothing
  bool over = false;
  bool gone = false;  // and nothing is left of it
  Signal changed;
};

namespace {

using SharedSession = std::shared_ptr<McpSessions::Session>;

// While a request of its client is served.
class InUse {
 public:
  explicit InUse(SharedSession session) : session_(std::move(session)) {
    if (session_) {
      ++session_->in_use;
    }
  }
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;
  ~InUse() {
    if (session_) {
      --session_->in_use;
      session_->left = Signal::Clock::now();
      session_->changed.notify();
    }
  }

 private:
  SharedSession session_;
};

HttpAnswer stream_head() {
  return {200, "", std::string(kEvents), {{"X-Accel-Buffering", "no"}}};
}

// HTML, section 9.2.6. `message` has no line break in it.
std::string event_of(std::string_view message) {
  return fmt::format("event: message\ndata: {}\n\n", message);
}

// Messages up to the response.
Async<> stream(McpCall& call, Exchange& exchange) {
  co_await exchange.begin(stream_head());
  while (!call.over()) {
    if (const auto message = call.take()) {
      const std::string event = event_of(to_text(*message));
      co_await exchange.write(event);
    } else if (!call.over()) {
      const bool come = co_await call.wait(Signal::Clock::now() + kPing);
      if (!come) {
        co_await exchange.write(": ping\n\n");
      }
    }
  }
  co_await exchange.end();
}

// The response, when it comes within `patience`; progress on the way to it is for nobody.
Async<std::optional<Json>> await_response(McpCall& call, Signal::Clock::time_point deadline) {
  std::optional<Json> message;
  while (!call.over()) {
    const bool come = co_await call.wait(deadline);
    if (!come) {
      break;
    }
    message = call.take();
  }
  co_return call.over() ? std::move(message) : std::nullopt;
}

// Answers with what the call gives.
Async<> answer_call(McpCall call, bool told_more, Exchange& exchange) {
  const Acceptable acceptable = read_accept(exchange.header("Accept"));
  if (acceptable.events && (told_more || !acceptable.json)) {
    co_await stream(call, exchange);
    co_return;
  }
  const auto deadline =
      acceptable.events ? Signal::Clock::now() + kPatience : Signal::Clock::time_point::max();
  const auto response = co_await await_response(call, deadline);
  if (!call.over()) {
    co_await stream(call, exchange);
  } else {
    // One that was cancelled has no response.
    exchange.answer(response ? json_answer(*response) : bare(kAccepted));
  }
}

// Whether there is something to tell before the response.
bool is_told_more(const McpMessage& request) {
  const auto meta = request.params.find("_meta");
  return request.method == "subscriptions/listen" ||
         (meta != request.params.end() && meta->is_object() && meta->contains("progressToken"));
}

// The error of a message that is not served.
HttpAnswer error_to(const Json& id, McpError error, unsigned status = 200) {
  return json_answer(response_message(id, std::unexpected(std::move(error))), status);
}

// What says of a modern message what it is, it says once: of several fields, who is in between may
// go by another one than this server.
std::optional<McpError> refuse_repeated(const Exchange& exchange) {
  for (const char* const name : {kRevisionField, kMethodField, kNameField}) {
    if (exchange.has_repeated(name)) {
      return mcp_refuse(McpCode::kHeaderMismatch, Reason::kInvalid,
                        "there is more than one {} field; a request has one", name)
          .error();
    }
  }
  return std::nullopt;
}

// That of a request; null when it has none, as those of clients of the 0.2 line.
Outcome<SharedSession> session_of(const McpSessions& sessions, const Exchange& exchange) {
  const std::string_view id = exchange.header(kSessionField);
  return id.empty() ? SharedSession() : sessions.find(exchange.key, id);
}

// initialize, which begins a session when it has a result.
Async<> initialize(App& app, McpSessions& sessions, McpMessage request, Exchange& exchange) {
  McpSession none(app, "");
  Json id = request.id;
  auto call = none.begin(exchange.key, std::move(request));
  if (!call) {
    exchange.answer(error_to(id, std::move(call.error())));
    co_return;
  }
  const auto response = co_await await_response(*call, Signal::Clock::time_point::max());
  HttpAnswer answer = response ? json_answer(*response) : bare(kAccepted);
  if (response && response->contains("result")) {
    const auto session = sessions.open(exchange.key);
    if (session) {
      answer.headers.emplace_back(kSessionField, (*session)->protocol.id());
    } else {
      answer = rpc_error_answer(session.error(), id);
    }
  }
  if (answer.status == 200 && !read_accept(exchange.header("Accept")).json) {
    HttpAnswer head = stream_head();
    head.headers.insert(head.headers.end(), answer.headers.begin(), answer.headers.end());
    const std::string event = event_of(answer.body);
    co_await exchange.begin(std::move(head));
    co_await exchange.write(event);
    co_await exchange.end();
    co_return;
  }
  exchange.answer(std::move(answer));
}

// A message of a client. Where it fails once its id is known, the error has that: clients that try
// the newest revision first tell by it whether to begin again with an older one.
Async<> take_message(App& app, McpSessions& sessions, Exchange& exchange) {
  if (auto answer = judge_fields(exchange)) {
    exchange.answer(std::move(*answer));
    co_return;
  }
  const auto body = co_await exchange.body();
  if (!body) {
    exchange.answer(rpc_error_answer(body.error(), nullptr));
    co_return;
  }
  auto message = read_message(*body);
  if (!message) {
    BadMessage& bad = message.error();
    exchange.answer(error_to(bad.id, std::move(bad.error), kBadRequest));
    co_return;
  }
  const McpFields fields{exchange.header(kRevisionField), exchange.header(kMethodField),
                         exchange.header(kNameField)};
  auto era = judge_era(*message, &fields);
  if (!era) {
    exchange.answer(error_to(message->id, std::move(era.error()), kBadRequest));
    co_return;
  }
  const bool modern = *era == McpEra::kModern;
  if (auto said = modern ? refuse_repeated(exchange) : std::nullopt) {
    exchange.answer(error_to(message->id, std::move(*said), kBadRequest));
    co_return;
  }
  SharedSession session;
  if (!modern) {
    auto found = session_of(sessions, exchange);
    if (!found) {
      exchange.answer(rpc_error_answer(found.error(), message->id));
      co_return;
    }
    session = std::move(*found);
  }
  const InUse use(session);
  if (message->kind != McpMessage::Kind::kRequest) {
    if (session) {
      session->protocol.notify(*message);
    }
    exchange.answer(bare(kAccepted));
    co_return;
  }
  if (app.draining) {
    exchange.answer(rpc_error_answer(about_to_end(), message->id));
    co_return;
  }
  if (!modern && !session && message->method == "initialize") {
    co_await initialize(app, sessions, std::move(*message), exchange);
    co_return;
  }
  McpSession none(app, "");
  McpSession& its = session ? session->protocol : none;
  const bool told_more = is_told_more(*message);
  const Json id = message->id;
  auto call = its.begin(exchange.key, std::move(*message), *era, exchange.id());
  if (!call) {
    const bool unknown = call.error().code == McpCode::kUnknownMethod;
    HttpAnswer answer = error_to(id, std::move(call.error()));
    if (modern && unknown) {
      answer.status = kNotFound;
    }
    exchange.answer(std::move(answer));
    co_return;
  }
  co_await answer_call(std::move(*call), told_more, exchange);
}

// A stream for what answers nothing. There is no such thing yet, but clients that have one know
// when the session ends.
Async<> listen(App& app, SharedSession session, Exchange& exchange) {
  if (session->listening) {
    exchange.answer(refusal(Reason::kConflict, "this session has such a stream already"));
    co_return;
  }
  session->listening = true;
  struct Leave {
    McpSessions::Session& session;
    ~Leave() { session.listening = false; }
  };
  const Leave leave{*session};
  co_await exchange.begin(stream_head());
  while (!session->over && !app.draining) {
    const auto deadline = Signal::Clock::now() + kPing;
    while (!session->over && !app.draining) {
      const bool come = co_await session->changed.wait(deadline);
      if (!come) {
        break;
      }
    }
    co_await exchange.write(": ping\n\n");
  }
  co_await exchange.end();
}

HttpAnswer no_such_method(std::string message) {
  HttpAnswer answer = refusal(Reason::kNoMethod, std::move(message));
  answer.headers.emplace_back("Allow", "GET, POST, DELETE");
  return answer;
}

// What a client asks of its session as such.
Async<> serve_session(App& app, McpSessions& sessions, Exchange& exchange) {
  const std::string_view revision = exchange.header(kRevisionField);
  if (!revision.empty() && !is_modern(revision) && !is_mcp_revision(revision)) {
    exchange.answer(refusal(
        Reason::kInvalid,
        fmt::format("the MCP-Protocol-Version '{}' is not spoken here", oci::printable(revision))));
    co_return;
  }
  Outcome<SharedSession> found = SharedSession();  // the modern era has none
  if (!is_modern(revision)) {
    found = session_of(sessions, exchange);
  }
  if (!found) {
    exchange.answer(rpc_error_answer(found.error(), nullptr));
    co_return;
  }
  const SharedSession session = std::move(*found);
  const InUse use(session);
  const std::string& method = exchange.line().method;
  if (method == "GET" && session && read_accept(exchange.header("Accept")).events) {
    co_await listen(app, session, exchange);
  } else if (method == "DELETE" && session) {
    co_await sessions.end(session);
    exchange.answer(bare(kNoContent));
  } else {
    exchange.answer(
        no_such_method(fmt::format("{} is for clients with a session{}", method,
                                   method == "GET" ? " that accept text/event-stream" : "")));
  }
}

}  // namespace

Acceptable read_accept(std::string_view field) {
  if (field.empty()) {
    return {true, false};
  }
  Acceptable acceptable;
  while (!field.empty()) {
    const std::string_view part = field.substr(0, field.find(','));
    field.remove_prefix(std::min(field.size(), part.size() + 1));
    const std::string range = normalized(part);
    const std::string_view type = type_of(range);
    if (range.ends_with(";q=0") || range.contains(";q=0;") || range.contains(";q=0.0")) {
      continue;
    }
    acceptable.json =
        acceptable.json || type == "application/json" || type == "application/*" || type == "*/*";
    acceptable.events = acceptable.events || type == kEvents || type == "text/*";
  }
  return acceptable;
}

Outcome<SharedSession> McpSessions::open(const Key& key) {
  const auto own = static_cast<std::size_t>(std::ranges::count_if(
      sessions_, [&](const auto& one) { return one.second->owner == key.id; }));
  if (own >= kMostOfKey || sessions_.size() >= kMost) {
    const auto abandoned = find_abandoned(key, own >= kMostOfKey);
    if (!abandoned) {
      return std::unexpected(
          Problem{Reason::kFull,
                  fmt::format("there are {} sessions {}: end some of them, by DELETE",
                              own >= kMostOfKey ? own : sessions_.size(),
                              own >= kMostOfKey ? "of this key already" : "already"),
                  kRetryAfter});
    }
    begin_end(abandoned);
  }
  const auto session = std::make_shared<Session>(app_, key);
  sessions_.emplace(session->protocol.id(), session);
  asio::co_spawn(app_.io, watch(session), Unattended());
  return session;
}

// The one that was left the longest time ago, if any was; `own`: of this key's.
SharedSession McpSessions::find_abandoned(const Key& key, bool own) const {
  SharedSession oldest;
  for (const auto& [id, session] : sessions_) {
    const bool left = session->in_use == 0 && Signal::Clock::now() - session->left >= kAbandoned &&
                      (!own || session->owner == key.id);
    if (left && (!oldest || session->left < oldest->left) && !has_sandboxes(*session)) {
      oldest = session;
    }
  }
  return oldest;
}

bool McpSessions::has_sandboxes(const Session& session) const {
  return std::ranges::any_of(app_.sandboxes.list(Key{}, ""), [&](const Served& served) {
    return served->record.session == session.protocol.id();
  });
}

Outcome<SharedSession> McpSessions::find(const Key& key, std::string_view id) const {
  const auto found = sessions_.find(id);
  if (found == sessions_.end() || found->second->owner != key.id) {
    return refuse(Reason::kNotFound, "there is no such session: begin one, with initialize");
  }
  return found->second;
}

void McpSessions::begin_end(const SharedSession& session) {
  if (session->over) {
    return;
  }
  session->over = true;
  session->changed.notify();
  sessions_.erase(session->protocol.id());
  const auto end_it = [](SharedSession one) -> Async<> {
    struct Tell {
      Session& session;
      ~Tell() {
        session.gone = true;
        session.changed.notify();
      }
    };
    const Tell tell{*one};
    co_await one->protocol.end();
  };
  asio::co_spawn(app_.io, end_it(session), Unattended());
}

Async<> McpSessions::end(SharedSession session) {
  begin_end(session);
  while (!session->gone) {
    co_await session->changed.wait();
  }
}

// Ends one that is left alone.
Async<> McpSessions::watch(SharedSession session) {
  while (!session->over) {
    const auto deadline =
        session->in_use > 0 ? Signal::Clock::time_point::max() : session->left + kIdle;
    const bool come = co_await session->changed.wait(deadline);
    if (!come && session->in_use == 0 && Signal::Clock::now() >= session->left + kIdle) {
      begin_end(session);
    }
  }
}

Async<> McpSessions::end_all(Signal::Clock::time_point deadline) {
  std::vector<SharedSession> all;
  for (const auto& [id, session] : sessions_) {
    all.push_back(session);
    session->changed.notify();  // streams end, once the server is draining
  }
  const auto calls_deadline = std::min(deadline, Signal::Clock::now() + kEndPatience);
  for (const SharedSession& session : all) {
    while (session->protocol.calls() > 0) {
      const bool come = co_await session->changed.wait(calls_deadline);
      if (!come) {
        break;
      }
    }
    begin_end(session);
  }
  for (const SharedSession& session : all) {
    bool come = true;
    while (!session->gone && come) {
      come = co_await session->changed.wait(deadline);
    }
  }
}

Async<> serve_mcp(App& app, McpSessions& sessions, Exchange& exchange) {
  const std::string& method = exchange.line().method;
  if (exchange.line().path.size() != 1) {
    exchange.answer(refusal(Reason::kNotFound, "there is nothing at this path: MCP is at /mcp"));
  } else if (method == "POST") {
    co_await take_message(app, sessions, exchange);
  } else if (method == "GET" || method == "DELETE") {
    co_await serve_session(app, sessions, exchange);
  } else {
    exchange.answer(no_such_method("messages come by POST"));
  }
}

}  // namespace msb::server
