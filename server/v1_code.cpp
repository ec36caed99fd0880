// SPDX-License-Identifier: Apache-2.0
// Code in the interpreters of a sandbox, and their sessions.
#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "server/run_results.hpp"
#include "server/v1.hpp"
#include "server/v1_streams.hpp"

namespace msb::server::v1 {

namespace {

using protocol::ListedSession;
using protocol::RunError;
using protocol::RunOutcome;

constexpr std::size_t kMaxOutputs = std::size_t{32} << 20;  // bytes, in one document

std::string_view status_word(const RunOutcome& outcome) {
  switch (outcome.kind) {
    case RunOutcome::Kind::kDone:
      return outcome.failed ? "error" : "ok";
    case RunOutcome::Kind::kInterrupted:
      return outcome.timed_out ? "timeout" : "interrupted";
    case RunOutcome::Kind::kStuck:
      return "stuck";
    case RunOutcome::Kind::kEnded:
      break;
  }
  return "ended";
}

std::string_view state_word(ListedSession::State state) {
  switch (state) {
    case ListedSession::State::kFree:
      return "free";
    case ListedSession::State::kInUse:
      return "in_use";
    case ListedSession::State::kEnded:
      break;
  }
  return "ended";
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json describe_outcome(const RunOutcome& outcome, bool truncated) {
  return {{"status", status_word(outcome)},
          {"exit_status", or_null(outcome.status ? outcome.status : outcome.exit)},
          {"reason", outcome.reason.empty() ? Json() : Json(outcome.reason)},
          {"truncated", truncated}};
}

// An output of a run as the documents have it: its kind is a member "type" of one in a list, and
// "event" of one that comes alone.
Json describe_text(const char* kind, bool error, std::string text) {
  return {{kind, "stream"}, {"stream", error ? "stderr" : "stdout"}, {"text", std::move(text)}};
}
Json describe_value(const char* kind, CodeValue value) {
  return {{kind, value.result ? "result" : "display"}, {"data", std::move(value.data)}};
}
Json describe_error(const char* kind, RunError error) {
  return {{kind, "error"},
          {"name", std::move(error.name)},
          {"message", std::move(error.message)},
          {"traceback", std::move(error.traceback)}};
}

std::size_t size_of(const CodeValue& value) {
  std::size_t size = 0;
  for (const auto& [type, data] : value.data) {
    size += data.size();
  }
  return size;
}

std::size_t size_of(const RunError& error) {
  std::size_t size = error.message.size();
  for (const std::string& line : error.traceback) {
    size += line.size();
  }
  return size;
}

// The outputs of a run for one document: as much as there is room for.
class Outputs {
 public:
  void add(CodeOutput output) {
    if (stream_ != output.error && !fits(0)) {
      return;
    }
    const std::size_t taken = std::min(output.text.size(), room_);
    truncated_ = truncated_ || taken < output.text.size();
    room_ -= taken;
    output.text.resize(taken);
    if (stream_ == output.error) {
      list_.back()["text"].get_ref<std::string&>() += output.text;
    } else {
      stream_ = output.error;
      list_.push_back(describe_text(kKind, output.error, std::move(output.text)));
    }
  }
  void add(CodeValue value) {
    if (fits(size_of(value))) {
      list_.push_back(describe_value(kKind, std::move(value)));
    }
  }
  void add(RunError error) {
    if (fits(size_of(error))) {
      list_.push_back(describe_error(kKind, std::move(error)));
    }
  }

  Json take() { return std::move(list_); }
  [[nodiscard]] bool truncated() const { return truncated_; }

 private:
  static constexpr const char* kKind = "type";
  static constexpr std::size_t kFrame = 256;  // about what an output takes besides what it says

  // Another output.
  bool fits(std::size_t size) {
    if (size + kFrame > room_) {
      truncated_ = true;
      return false;
    }
    stream_.reset();
    room_ -= size + kFrame;
    return true;
  }

  Json list_ = Json::array();
  std::optional<bool> stream_;  // which one the last output is of
  std::size_t room_ = kMaxOutputs;
  bool truncated_ = false;
};

Async<Outcome<HttpAnswer>> collect_run(CodeRun& run) {
  Outputs outputs;
  while (true) {
    CodeEvent event = co_await run.next();
    if (auto* problem = std::get_if<Problem>(&event)) {
      co_return std::unexpected(std::move(*problem));
    }
    if (const auto* outcome = std::get_if<RunOutcome>(&event)) {
      Json document = describe_outcome(*outcome, outputs.truncated() || run.cut());
      document["outputs"] = outputs.take();
      co_return json_answer(document);
    }
    if (auto* output = std::get_if<CodeOutput>(&event)) {
      outputs.add(std::move(*output));
    } else if (auto* value = std::get_if<CodeValue>(&event)) {
      outputs.add(std::move(*value));
    } else if (auto* error = std::get_if<RunError>(&event)) {
      outputs.add(std::move(*error));
    }
  }
}

// Texts of both streams, which are told by whole characters.
class TextEvents {
 public:
  Json add(const CodeOutput& output) {
    WholeCharacters& text = output.error ? errors_ : output_;
    return describe_text("event", output.error, text.add(output.text));
  }
  std::vector<Json> rest() {
    std::vector<Json> events;
    for (const bool error : {false, true}) {
      if (std::string text = (error ? errors_ : output_).rest(); !text.empty()) {
        events.push_back(describe_text("event", error, std::move(text)));
      }
    }
    return events;
  }

 private:
  WholeCharacters output_;
  WholeCharacters errors_;
};

Async<> stream_run(EventStream& stream, CodeRun& run) {
  TextEvents texts;
  while (true) {
    CodeEvent event = co_await run.next();
    Json told;
    if (const auto* output = std::get_if<CodeOutput>(&event)) {
      told = texts.add(*output);
    } else if (auto* value = std::get_if<CodeValue>(&event)) {
      told = describe_value("event", std::move(*value));
    } else if (auto* error = std::get_if<RunError>(&event)) {
      told = describe_error("event", std::move(*error));
    } else {
      co_await stream.send_all(texts.rest());
      if (auto* problem = std::get_if<Problem>(&event)) {
        co_return co_await stream.send_failure(std::move(*problem));
      }
      told = {{"event", "done"}};
      told.update(describe_outcome(std::get<RunOutcome>(event), run.cut()));
      co_return co_await stream.send(std::move(told));
    }
    if (told.value("text", "-") != "") {
      co_await stream.send(std::move(told));
    }
  }
}

Outcome<CodeWords> read_words(const Json& body) {
  const auto language = code_language(body.value("language", ""));
  if (!language) {
    return std::unexpected(language.error());
  }
  CodeWords words;
  words.language = *language;
  words.session = body.value("session", words.session);
  words.code = body.value("code", "");
  words.timeout = std::chrono::ceil<std::chrono::milliseconds>(
      std::chrono::duration<double>(body.value("timeout", 0.0)));
  return words;
}

// The sessions of the sandbox of a call, kept for as long as they are used.
Outcome<std::shared_ptr<CodeSessions>> find_sessions(const Call& call) {
  const auto served = find_running_sandbox(call);
  if (!served) {
    return std::unexpected(served.error());
  }
  return (*served)->code;
}

struct SessionPlace {
  std::shared_ptr<CodeSessions> sessions;
  protocol::Language language;
  std::string name;
};
Outcome<SessionPlace> find_session(const Call& call) {
  auto sessions = find_sessions(call);
  if (!sessions) {
    return std::unexpected(sessions.error());
  }
  const auto language = code_language(call.path.value("language", ""));
  if (!language) {
    return std::unexpected(language.error());
  }
  return SessionPlace{std::move(*sessions), *language, call.path.value("session", "")};
}

Async<Outcome<CodeRun>> begin_run(Call& call) {
  auto words = read_words(call.body);
  if (!words) {
    co_return std::unexpected(words.error());
  }
  const auto sessions = find_sessions(call);
  if (!sessions) {
    co_return std::unexpected(sessions.error());
  }
  co_return co_await (*sessions)->run(std::move(*words));
}

}  // namespace

Async<Outcome<HttpAnswer>> run_code(Call& call) {
  auto run = co_await begin_run(call);
  if (!run) {
    co_return std::unexpected(run.error());
  }
  const auto format = stream_format(call.exchange.header("Accept"));
  if (!format) {
    co_return co_await collect_run(*run);
  }
  EventStream stream(call.exchange, *format);
  co_await stream.begin();
  co_await stream_run(stream, *run);
  co_await stream.end();
  co_return HttpAnswer{};
}

Async<Outcome<HttpAnswer>> list_sessions(Call& call) {
  const auto sessions = find_sessions(call);
  if (!sessions) {
    co_return std::unexpected(sessions.error());
  }
  const auto listed = co_await (*sessions)->list();
  if (!listed) {
    co_return std::unexpected(listed.error());
  }
  Json list = Json::array();
  for (const ListedSession& session : *listed) {
    list.push_back({{"language", protocol::name_of(session.language)},
                    {"name", session.name},
                    {"state", state_word(session.state)},
                    {"process", session.process},
                    {"pid", session.pid}});
  }
  co_return json_answer({{"sessions", std::move(list)}});
}

Async<Outcome<HttpAnswer>> interrupt_session(Call& call) {
  const auto place = find_session(call);
  if (!place) {
    co_return std::unexpected(place.error());
  }
  if (auto done = place->sessions->interrupt(place->language, place->name); !done) {
    co_return std::unexpected(done.error());
  }
  co_return no_content();
}

Async<Outcome<HttpAnswer>> close_session(Call& call) {
  const auto place = find_session(call);
  if (!place) {
    co_return std::unexpected(place.error());
  }
  if (auto done = co_await place->sessions->close(place->language, place->name); !done) {
    co_return std::unexpected(done.error());
  }
  co_return no_content();
}

}  // namespace msb::server::v1
