// SPDX-License-Identifier: Apache-2.0
// Tools for the life of sandboxes, and for what runs in them.
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "sandbox/log_file.hpp"
#include "server/client_spec.hpp"
#include "server/mcp_content.hpp"
#include "server/mcp_tools.hpp"
#include "server/policy.hpp"
#include "server/run_results.hpp"

namespace msb::server::tools {

namespace {

constexpr std::uint64_t kUsualTail = 100;  // lines of a log
constexpr std::size_t kMaxLog = std::size_t{4} << 20;
// After so many seconds without use an ephemeral sandbox ends that no session ends.
constexpr std::uint32_t kSessionlessIdle = 30 * 60;

Content sentence(const Served& served, std::string_view done) {
  return Json::array({text_content(fmt::format("Sandbox {} {} successfully", served->name, done))});
}

std::chrono::milliseconds timeout_argument(const ToolCall& call) {
  const auto found = call.arguments.find("timeout");
  return found == call.arguments.end() ? std::chrono::milliseconds(0)
                                       : std::chrono::ceil<std::chrono::milliseconds>(
                                             std::chrono::duration<double>(found->get<double>()));
}

std::vector<std::string> words_argument(const ToolCall& call, const char* name) {
  const auto found = call.arguments.find(name);
  return found == call.arguments.end() ? std::vector<std::string>()
                                       : found->get<std::vector<std::string>>();
}

// What there is to say of a pull.
PullProgress pull_progress(const McpProgress& progress) {
  if (!progress) {
    return {};
  }
  return [progress](const PullState& state) { progress(state.received, state.total, state.text); };
}

// How much a run has written, and its last line.
OnText output_progress(const McpProgress& progress) {
  if (!progress) {
    return {};
  }
  return [progress, written = std::uint64_t{0}](std::string_view text) mutable {
    written += text.size();
    while (text.ends_with('\n') || text.ends_with('\r')) {
      text.remove_suffix(1);
    }
    progress(written, 0, text.substr(text.find_last_of("\r\n") + 1));
  };
}

Outcome<CreateWords> create_words(const ToolCall& call) {
  CreateWords words;
  words.space = space_argument(call);
  words.name = text_argument(call, "sandbox");
  const auto config = call.arguments.find("config");
  auto record = read_config(config == call.arguments.end() ? Json() : *config);
  if (!record) {
    return std::unexpected(record.error());
  }
  words.record = std::move(*record);
  if (const auto labels = call.arguments.find("labels"); labels != call.arguments.end()) {
    words.record.labels = labels->get<std::map<std::string, std::string>>();
  }
  if (auto good = check_labels(words.record.labels); !good) {
    return std::unexpected(good.error());
  }
  const auto ephemeral = call.arguments.find("ephemeral");
  if (ephemeral == call.arguments.end() || *ephemeral == false) {
    return words;
  }
  const auto there = call.app.sandboxes.find(call.key, words.space, words.name);
  if (there && (!(*there)->record.ephemeral || (*there)->record.session != call.session)) {
    return refuse(Reason::kConflict,
                  "there is a sandbox '{}' already, and it does not end as an ephemeral one of "
                  "yours; leave \"ephemeral\" out to use it, or take another name",
                  words.name);
  }
  words.record.ephemeral = true;
  words.record.session = call.session;
  if (call.session.empty() && !words.record.spec.idle_timeout_s) {
    words.record.spec.idle_timeout_s = kSessionlessIdle;
  }
  return words;
}

Async<Content> set_paused(ToolCall call, bool paused) {
  const auto served = find_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  const auto done = co_await call.app.sandboxes.set_paused(call.key, *served, paused);
  if (!done) {
    co_return std::unexpected(done.error());
  }
  co_return sentence(*served, paused ? "paused" : "resumed");
}

// The last lines of a log, in a bounded number of bytes.
Result<std::vector<sandbox::LogLine>> last_lines(const std::string& path, std::uint64_t count) {
  std::deque<sandbox::LogLine> lines;
  std::size_t size = 0;
  sandbox::LogReader reader(path);
  const auto there = reader.open(count);
  if (!there) {
    return std::unexpected(there.error());
  }
  const auto read = !*there ? Result<void>() : reader.read([&](const sandbox::LogLine& line) {
    lines.push_back(line);
    size += line.text.size();
    while (lines.size() > count || size > kMaxLog) {
      size -= lines.front().text.size();
      lines.pop_front();
    }
    return Result<void>();
  });
  if (!read) {
    return std::unexpected(read.error());
  }
  return std::vector<sandbox::LogLine>(lines.begin(), lines.end());
}

}  // namespace

Async<Content> start(ToolCall call) {
  auto words = create_words(call);
  if (!words) {
    co_return std::unexpected(words.error());
  }
  auto progress = pull_progress(call.progress);
  const auto started =
      co_await call.app.sandboxes.start_or_create(call.key, std::move(*words), std::move(progress));
  if (!started) {
    co_return std::unexpected(started.error());
  }
  auto content = sentence(*started, "started");
  if (!(*started)->published.empty()) {
    // A client may have left it to us which ones are taken.
    content->push_back(document_content({{"ports", describe(**started)["ports"]}}));
  }
  co_return content;
}

Async<Content> stop(ToolCall call) {
  const auto served = find_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  const auto stopped = co_await call.app.sandboxes.stop(call.key, *served);
  if (!stopped) {
    co_return std::unexpected(stopped.error());
  }
  co_return sentence(*served, "stopped");
}

Async<Content> remove(ToolCall call) {
  const auto served = find_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  const auto removed = co_await call.app.sandboxes.remove(call.key, *served);
  if (!removed) {
    co_return std::unexpected(removed.error());
  }
  co_return sentence(*served, "removed");
}

Async<Content> pause(ToolCall call) {
  return set_paused(std::move(call), true);
}

Async<Content> resume(ToolCall call) {
  return set_paused(std::move(call), false);
}

Async<Content> list(ToolCall call) {
  co_await call.app.sandboxes.refresh_all();
  Json all = Json::array();
  const std::string space = text_argument(call, "namespace");
  for (const Served& served :
       call.app.sandboxes.list(call.key, space == kAllNamespaces ? "" : space)) {
    all.push_back(describe(*served));
  }
  co_return Json::array({document_content({{"sandboxes", std::move(all)}})});
}

Async<Content> get_metrics(ToolCall call) {
  auto metrics =
      co_await metrics_result(call.app.sandboxes, call.key, text_argument(call, "namespace"),
                              text_argument(call, "sandbox"));
  if (!metrics) {
    co_return std::unexpected(metrics.error());
  }
  co_return Json::array({document_content(*metrics)});
}

Async<Content> get_logs(ToolCall call) {
  const auto served = find_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  const auto tail = call.arguments.find("tail");
  const auto count = tail == call.arguments.end() ? kUsualTail : tail->get<std::uint64_t>();
  const std::string path = (*served)->directory.log();
  const auto read = [path, count] { return last_lines(path, count); };
  const auto lines = co_await call.app.sandboxes.workers().run(read);
  if (!lines) {
    co_return refuse(Reason::kFailed, lines.error());
  }
  Json shown = Json::array();
  for (const sandbox::LogLine& line : *lines) {
    std::string_view text = line.text;
    text.remove_suffix(text.ends_with('\n') ? 1 : 0);
    shown.push_back({{"time", format_time(line.time_ms)},
                     {"stream", line.stream == sandbox::LogStream::kOutput ? "stdout" : "stderr"},
                     {"text", text}});
  }
  co_return Json::array(
      {document_content({{"sandbox", (*served)->name}, {"lines", std::move(shown)}})});
}

Async<Content> run_code(ToolCall call) {
  const auto served = find_usable_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  CodeWords words;
  const auto language = code_language(text_argument(call, "language"));
  if (!language) {
    co_return std::unexpected(language.error());
  }
  words.language = *language;
  words.code = text_argument(call, "code");
  words.timeout = timeout_argument(call);
  if (const std::string session = text_argument(call, "session"); !session.empty()) {
    words.session = session;
  }
  auto on_text = output_progress(call.progress);
  auto result = co_await server::run_code(*served, std::move(words), std::move(on_text));
  if (!result) {
    co_return std::unexpected(result.error());
  }
  result->document["language"] = text_argument(call, "language");  // as its client knows it
  co_return code_content(*result);
}

Async<Content> run_command(ToolCall call) {
  const auto served = find_usable_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  CommandWords words;
  words.command = text_argument(call, "command");
  words.args = words_argument(call, "args");
  words.envs = words_argument(call, "envs");
  words.workdir = text_argument(call, "workdir");
  words.user = text_argument(call, "user");
  words.timeout = timeout_argument(call);
  const bool line = words.args.empty() && words.command.contains(' ');
  auto on_text = output_progress(call.progress);
  auto result = co_await server::run_command(*served, std::move(words), std::move(on_text));
  if (!result) {
    Problem problem = std::move(result.error());
    if (line && problem.reason == Reason::kNotFound) {
      problem.message +=
          "; \"command\" is the program alone, and what follows it goes into \"args\", a list";
    }
    co_return std::unexpected(std::move(problem));
  }
  co_return Json::array({document_content(*result)});
}

}  // namespace msb::server::tools
