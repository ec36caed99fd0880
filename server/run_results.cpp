// SPDX-License-Identifier: Apache-2.0
#include "server/run_results.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <variant>

#include "sandbox/spec_words.hpp"

namespace msb::server {

namespace {

// A line's braces, names and indentation, in indented JSON.
constexpr std::size_t kLineFrame = 80;
// A byte has at most so many in JSON: \u0000.
constexpr std::size_t kMostEscaped = 6;
// For agents to say what they use.
constexpr std::chrono::seconds kMetricsPatience{5};

std::string seconds_text(std::chrono::milliseconds time) {
  return fmt::format("{:g} s", std::chrono::duration<double>(time).count());
}

// What a run of code has given so far.
struct CodeNotes {
  OutputLines lines;
  std::vector<CodeValue> values;
  std::optional<std::uint32_t> exit;  // it asked to exit with this status
};

void note(CodeNotes& notes, CodeValue value) {
  if (const auto plain = value.data.find("text/plain"); plain != value.data.end()) {
    notes.lines.add_apart(MSB_STREAM_STDOUT, plain->second);
  }
  notes.values.push_back(std::move(value));
}

void note(CodeNotes& notes, const protocol::RunError& error) {
  notes.exit = error.exit;
  if (error.exit == 0U) {
    return;  // asked for, and no error
  }
  std::string text;
  for (const std::string& line : error.traceback) {
    text += line;
  }
  notes.lines.add_reserved(MSB_STREAM_STDERR,
                           text.empty() ? fmt::format("{}: {}", error.name, error.message) : text);
}

Outcome<CodeResult> conclude(CodeNotes notes, const protocol::RunOutcome& outcome,
                             const CodeWords& words, bool dropped) {
  using Kind = protocol::RunOutcome::Kind;
  if (outcome.timed_out && outcome.kind != Kind::kEnded) {
    return refuse(Reason::kTimeout, "the code ran longer than {}, and {}",
                  seconds_text(words.timeout),
                  outcome.kind == Kind::kStuck
                      ? "does not heed an interrupt: the next run begins the session anew"
                      : "was interrupted; the session goes on");
  }
  if (outcome.kind == Kind::kEnded) {
    notes.lines.add_reserved(
        MSB_STREAM_STDERR,
        fmt::format("the session ended, and the next run begins it anew: {}", outcome.reason));
  } else if (outcome.kind == Kind::kStuck) {
    notes.lines.add_reserved(MSB_STREAM_STDERR, "the code was interrupted, and does not heed it");
  }
  const auto exit = notes.exit ? notes.exit : outcome.exit;
  const bool failed = outcome.kind != Kind::kDone || (exit ? *exit != 0 : outcome.failed);
  CodeResult result;
  result.document = {{"status", failed ? "error" : "success"},
                     {"language", protocol::name_of(words.language)},
                     {"output", notes.lines.take()}};
  if (exit || outcome.status) {
    result.document["exit_code"] = exit ? *exit : *outcome.status;
  }
  if (dropped || notes.lines.truncated()) {
    result.document["truncated"] = true;
  }
  result.values = std::move(notes.values);
  return result;
}

Outcome<Json> conclude(OutputLines lines, const protocol::Exited& exited,
                       const CommandWords& words) {
  if ((exited.fields.flags & MSB_EXITED_TIMED_OUT) != 0) {
    return refuse(Reason::kTimeout, "the command ran longer than {}, and was killed",
                  seconds_text(words.timeout));
  }
  constexpr std::uint32_t kSignalled = 128;  // as shells have it
  const bool signalled = exited.fields.kind == MSB_EXIT_SIGNAL;
  const std::uint32_t status = exited.fields.value + (signalled ? kSignalled : 0);
  Json document = {{"command", words.command},
                   {"args", words.args},
                   {"exit_code", status},
                   {"success", status == 0},
                   {"output", lines.take()}};
  if (signalled) {
    document["signal"] = exited.fields.value;
  }
  if ((exited.fields.flags & MSB_EXITED_OUT_OF_MEMORY) != 0) {
    document["out_of_memory"] = true;
  }
  if (lines.truncated()) {
    document["truncated"] = true;
  }
  return document;
}

Outcome<protocol::ProcessSpec> spec_of(const CommandWords& words) {
  for (const std::string& variable : words.envs) {
    if (auto good = sandbox::check_env(variable); !good) {
      return refuse(Reason::kInvalid, good.error().within("envs"));
    }
  }
  protocol::ProcessSpec spec;
  spec.arguments.push_back(words.command);
  spec.arguments.insert(spec.arguments.end(), words.args.begin(), words.args.end());
  spec.environment = words.envs;
  spec.directory = words.workdir;
  spec.create_directory = words.workdir.empty();  // the image's own may be missing
  spec.user = words.user;
  spec.input = false;
  spec.timeout_ms = static_cast<std::uint32_t>(std::clamp<std::int64_t>(
      words.timeout.count(), 0, std::numeric_limits<std::uint32_t>::max()));
  return spec;
}

std::string_view text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Json metrics_of(const ServedSandbox& served, const Usage& usage) {
  constexpr std::uint64_t kMib = std::uint64_t{1} << 20;
  return {{"namespace", served.space},
          {"name", served.name},
          {"running", served.stage == Stage::kRunning || served.stage == Stage::kPaused},
          {"cpu_usage", usage.cpu_percent ? Json(*usage.cpu_percent) : Json()},
          {"memory_usage", usage.memory_bytes ? Json(*usage.memory_bytes / kMib) : Json()},
          {"disk_usage", usage.disk_bytes}};
}

}  // namespace

std::string default_space(const Key& key) {
  return key.scope.space == kAllNamespaces ? std::string(kDefaultNamespace) : key.scope.space;
}

Outcome<Served> find_usable(const Sandboxes& sandboxes, const Key& key, const std::string& space,
                            const std::string& name) {
  if (key.scope.read_only) {
    return refuse(Reason::kForbidden, "the key {} is read-only, and may run and write nothing",
                  key.id);
  }
  return sandboxes.find_running(key, space, name);
}

Outcome<protocol::Language> code_language(std::string_view word) {
  const auto language = protocol::language_named(word == "nodejs" ? "node" : word);
  if (!language) {
    return refuse(Reason::kInvalid, language.error());
  }
  return *language;
}

Async<Outcome<CodeResult>> run_code(Served served, CodeWords words, OnText on_text) {
  std::optional<CodeRun> run;
  {
    // Kept until the code runs, also when the sandbox ends meanwhile.
    const auto sessions = served->code;
    if (!sessions) {
      co_return refuse(Reason::kConflict, "the sandbox '{}' does not run", served->name);
    }
    auto begun = co_await sessions->run(words);
    if (!begun) {
      co_return std::unexpected(begun.error());
    }
    run.emplace(std::move(*begun));
  }
  CodeNotes notes;
  while (true) {
    CodeEvent event = co_await run->next();
    if (auto* problem = std::get_if<Problem>(&event)) {
      co_return std::unexpected(std::move(*problem));
    }
    if (const auto* outcome = std::get_if<protocol::RunOutcome>(&event)) {
      co_return conclude(std::move(notes), *outcome, words, run->cut());
    }
    if (const auto* output = std::get_if<CodeOutput>(&event)) {
      notes.lines.add(output->error ? MSB_STREAM_STDERR : MSB_STREAM_STDOUT, output->text);
      if (on_text) {
        on_text(output->text);
      }
    } else if (auto* value = std::get_if<CodeValue>(&event)) {
      note(notes, std::move(*value));
    } else if (const auto* error = std::get_if<protocol::RunError>(&event)) {
      note(notes, *error);
    }
  }
}

Async<Outcome<Json>> run_command(Served served, CommandWords words, OnText on_text) {
  const auto guest = served->guest;
  if (!guest) {
    co_return refuse(Reason::kConflict, "the sandbox '{}' does not run", served->name);
  }
  auto spec = spec_of(words);
  if (!spec) {
    co_return std::unexpected(spec.error());
  }
  auto process = guest->start(std::move(*spec));
  if (!process) {
    co_return std::unexpected(process.error());
  }
  OutputLines lines;
  while (true) {
    auto event = co_await (*process)->next();
    if (auto* problem = std::get_if<Problem>(&event)) {
      co_return std::unexpected(std::move(*problem));
    }
    if (const auto* exited = std::get_if<protocol::Exited>(&event)) {
      co_return conclude(std::move(lines), *exited, words);
    }
    if (const auto* output = std::get_if<GuestProcess::Output>(&event)) {
      lines.add(output->stream, text_of(output->bytes));
      if (on_text) {
        on_text(text_of(output->bytes));
      }
    }
  }
}

// All at the same time: one whose agent does not answer is not what the others wait for.
Async<std::vector<Outcome<Usage>>> measure_all(Sandboxes& sandboxes, std::vector<Served> all) {
  struct Measuring {
    std::vector<Outcome<Usage>> usages;
    std::size_t left = 0;
    Signal changed;
  };
  const auto state = std::make_shared<Measuring>();
  state->left = all.size();
  state->usages.resize(all.size(), refuse(Reason::kTimeout, "the sandbox's agent does not answer"));
  const auto measure = [](const Sandboxes* of, Served served, std::shared_ptr<Measuring> told,
                          std::size_t which) -> Async<> {
    told->usages[which] = co_await of->measure(std::move(served));
    --told->left;
    told->changed.notify();
  };
  const auto executor = co_await asio::this_coro::executor;
  for (std::size_t i = 0; i < all.size(); ++i) {
    asio::co_spawn(executor, measure(&sandboxes, all[i], state, i), Unattended());
  }
  const auto deadline = Signal::Clock::now() + kMetricsPatience;
  while (state->left > 0) {
    const bool come = co_await state->changed.wait(deadline);
    if (!come) {
      break;
    }
  }
  co_return state->usages;
}

Async<Outcome<Json>> metrics_result(Sandboxes& sandboxes, Key key, std::string space,
                                    std::string name) {
  std::vector<Served> all;
  if (name.empty()) {
    co_await sandboxes.refresh_all();
    all = sandboxes.list(key, space == kAllNamespaces ? "" : space);
  } else {
    auto served = sandboxes.find(
        key, space.empty() || space == kAllNamespaces ? default_space(key) : space, name);
    if (!served) {
      co_return std::unexpected(served.error());
    }
    all.push_back(std::move(*served));
  }
  const auto usages = co_await measure_all(sandboxes, all);
  Json list = Json::array();
  for (std::size_t i = 0; i < all.size(); ++i) {
    list.push_back(metrics_of(*all[i], usages[i] ? *usages[i] : Usage()));
  }
  co_return Json{{"sandboxes", std::move(list)}};
}

void OutputLines::add(msb_stream stream, std::string_view bytes) {
  while (!bytes.empty() && room_ > 0) {
    const std::string_view line = bytes.substr(0, bytes.find('\n'));
    std::string& part = parts_.at(stream);
    part.append(line.substr(0, room_ - std::min(room_, part.size()) + 1));
    const bool ends = line.size() < bytes.size();
    bytes.remove_prefix(line.size() + (ends ? 1 : 0));
    if (ends || part.size() > room_) {
      end_line(stream);
    }
  }
  truncated_ = truncated_ || !bytes.empty();
}

void OutputLines::add_apart(msb_stream stream, std::string_view text) {
  if (!parts_.at(stream).empty()) {
    end_line(stream);
  }
  add(stream, text);
  if (!text.ends_with('\n')) {
    end_line(stream);
  }
}

void OutputLines::add_reserved(msb_stream stream, std::string_view text) {
  if (!parts_.at(stream).empty()) {
    end_line(stream);
  }
  const std::size_t room = std::exchange(room_, kReserved);
  add_apart(stream, text);
  room_ = room;
}

// Once a line does not fit, nothing more does.
void OutputLines::end_line(msb_stream stream) {
  std::string line = std::exchange(parts_.at(stream), {});
  if (line.ends_with('\r')) {
    line.pop_back();
  }
  if (room_ == 0) {
    truncated_ = true;
    return;
  }
  const std::size_t cost = to_text(Json(line)).size() + kLineFrame;
  if (cost > room_) {
    truncated_ = true;
    line.resize(std::min(line.size(), room_ / kMostEscaped));
  }
  room_ -= std::min(cost, room_);
  lines_.push_back(
      {{"stream", stream == MSB_STREAM_STDOUT ? "stdout" : "stderr"}, {"text", std::move(line)}});
}

Json OutputLines::take() {
  for (const msb_stream stream : {MSB_STREAM_STDOUT, MSB_STREAM_STDERR}) {
    if (!parts_.at(stream).empty()) {
      end_line(stream);
    }
  }
  return std::move(lines_);
}

}  // namespace msb::server
