// SPDX-License-Identifier: Apache-2.0
// Processes: those that run to their end for one request, and those that are kept by the guest
// until they are removed.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "oci/base64.hpp"
#include "protocol/interpreters/session_list.hpp"
#include "sandbox/spec_words.hpp"
#include "server/client_spec.hpp"
#include "server/v1.hpp"
#include "server/v1_streams.hpp"

namespace msb::server::v1 {

namespace {

using protocol::Exited;
using protocol::ProcessEntry;
using protocol::Requests;

constexpr std::uint32_t kSignals = 64;        // of Linux x86-64
constexpr std::uint32_t kSignalStatus = 128;  // and its number: the exit code of what it ended
constexpr std::size_t kMaxOutput = std::size_t{8} << 20;  // of each stream, in one document

using Offsets = AttachedProcess::Offsets;

// "KILL"; a real-time signal by its number.
std::string signal_name(std::uint32_t number) {
  const char* name = ::sigabbrev_np(static_cast<int>(number));
  return name != nullptr ? name : fmt::format("{}", number);
}

// "TERM", "SIGTERM" or 15.
Outcome<std::uint32_t> read_signal(const Json& word) {
  if (!word.is_string()) {
    return word.get<std::uint32_t>();
  }
  const auto text = word.get<std::string>();
  for (std::uint32_t number = 1; number <= kSignals; ++number) {
    const std::string name = signal_name(number);
    if (text == name || text == "SIG" + name) {
      return number;
    }
  }
  return refuse(Reason::kInvalid,
                "\"body.signal\" is none; it is a number from 1 to {}, or a name such as TERM",
                kSignals);
}

Json describe_exit(const Exited& exited) {
  const bool by_signal = exited.fields.kind == MSB_EXIT_SIGNAL;
  const std::uint32_t value = exited.fields.value;
  return {{"exit_code", by_signal ? kSignalStatus + value : value},
          {"signal", by_signal ? Json(signal_name(value)) : Json()},
          {"oom_killed", (exited.fields.flags & MSB_EXITED_OUT_OF_MEMORY) != 0},
          {"timed_out", (exited.fields.flags & MSB_EXITED_TIMED_OUT) != 0}};
}

Json exited_event(const Exited& exited) {
  Json event = {{"event", "exited"}};
  event.update(describe_exit(exited));
  return event;
}

Json describe_streams(const std::uint64_t (&offsets)[MSB_STREAMS]) {
  return {{"stdout", offsets[MSB_STREAM_STDOUT]}, {"stderr", offsets[MSB_STREAM_STDERR]}};
}

// What LIST says, and the guest's clock then.
struct Listing {
  std::vector<ProcessEntry> processes;
  std::uint64_t now_ns = 0;  // CLOCK_BOOTTIME
};

Async<Outcome<Listing>> list_of(std::shared_ptr<const Guest> guest) {
  const auto listing = std::make_shared<Listing>();
  const std::function<void(Requests&, Requests::Done<Listing>)> ask =
      [listing](Requests& requests, Requests::Done<Listing> done) {
        const auto measured = [listing, done](protocol::Answer<msb_metrics> metrics) {
          if (!metrics) {
            done(std::unexpected(metrics.error()));
            return;
          }
          listing->now_ns = metrics->time_ns;
          done(std::move(*listing));
        };
        requests.list([listing](const ProcessEntry& entry) { listing->processes.push_back(entry); },
                      [&requests, done, measured](const protocol::Answer<std::uint64_t>& count) {
                        if (count) {
                          requests.metrics(measured);
                        } else {
                          done(std::unexpected(count.error()));
                        }
                      });
      };
  co_return co_await guest->ask<Listing>(ask);
}

Json describe_process(const ProcessEntry& entry, const Listing& listing) {
  constexpr std::uint64_t kMillisecond = 1'000'000;  // nanoseconds
  const msb_process& fields = entry.fields;
  const std::int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(
                               std::chrono::system_clock::now().time_since_epoch())
                               .count();
  const std::uint64_t age = listing.now_ns - std::min(fields.started_ns, listing.now_ns);
  return {{"id", fields.process},
          {"pid", fields.pid},
          {"state", fields.state == MSB_PROCESS_RUNS ? "running" : "ended"},
          {"label", entry.label},
          {"command", entry.program},
          {"started_at", format_time(std::max<std::int64_t>(
                             now - static_cast<std::int64_t>(age / kMillisecond), 0))},
          {"attached", fields.attached != 0},
          {"kept", (fields.flags & MSB_START_KEEP) != 0},
          {"terminal", (fields.flags & MSB_START_TERMINAL) != 0},
          {"input", (fields.flags & MSB_START_NO_STDIN) == 0},
          {"written", describe_streams(fields.offsets)},
          {"oldest", describe_streams(fields.oldest)}};
}

struct FoundProcess {
  std::shared_ptr<const Guest> guest;
  Listing listing;
  ProcessEntry entry;

  [[nodiscard]] std::uint32_t id() const { return entry.fields.process; }
  [[nodiscard]] bool runs() const { return entry.fields.state == MSB_PROCESS_RUNS; }
};

// The process of the call's path.
Async<Outcome<FoundProcess>> find_process(Call& call) {
  const auto served = find_running_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  const auto guest = (*served)->guest;
  auto listing = co_await list_of(guest);
  if (!listing) {
    co_return std::unexpected(listing.error());
  }
  const std::uint32_t id = call.path.value("id", 0U);
  const auto found = std::ranges::find_if(
      listing->processes, [id](const ProcessEntry& entry) { return entry.fields.process == id; });
  if (found == listing->processes.end()) {
    co_return refuse(Reason::kNotFound, "there is no process {} in '{}' (any more)", id,
                     (*served)->name);
  }
  FoundProcess process{guest, {}, *found};
  process.listing = std::move(*listing);
  co_return process;
}

// The same, of one that POST .../processes has started: others end with their connection, or are
// spoken with by somebody else.
Async<Outcome<FoundProcess>> find_kept_process(Call& call) {
  auto found = co_await find_process(call);
  if (!found) {
    co_return found;
  }
  const std::uint32_t flags = found->entry.fields.flags;
  if ((flags & MSB_START_CHANNEL) != 0) {
    co_return refuse(Reason::kConflict,
                     "process {} is the interpreter of a session, which is used by .../code and "
                     ".../sessions",
                     found->id());
  }
  if ((flags & MSB_START_KEEP) == 0) {
    co_return refuse(Reason::kConflict,
                     "process {} was not started to be kept, so nobody can attach to it",
                     found->id());
  }
  co_return found;
}

std::uint32_t read_timeout(const Json& body) {
  constexpr double kMilliseconds = 1000;
  return static_cast<std::uint32_t>(std::ceil(body.value("timeout", 0.0) * kMilliseconds));
}

Outcome<protocol::ProcessSpec> read_spec(const Json& body) {
  protocol::ProcessSpec spec;
  spec.arguments = body.value("command", std::vector<std::string>());
  spec.environment = body.value("envs", std::vector<std::string>());
  spec.directory = body.value("workdir", "");
  spec.user = body.value("user", "");
  spec.timeout_ms = read_timeout(body);
  spec.create_directory = spec.directory.empty();  // the image's own may be missing
  spec.input = false;
  for (const std::string& variable : spec.environment) {
    if (auto good = sandbox::check_env(variable); !good) {
      return refuse(Reason::kInvalid, good.error().within("envs"));
    }
  }
  return spec;
}

// Nothing when the command gets no input.
Outcome<std::optional<std::string>> read_input(const Json& body) {
  const bool text = body.contains("stdin");
  if (!body.contains("stdin_base64")) {
    return text ? std::optional(body.value("stdin", "")) : std::nullopt;
  }
  if (text) {
    return refuse(Reason::kInvalid, "\"body\" has \"stdin\" or \"stdin_base64\", and not both");
  }
  auto bytes = oci::decode_base64(body.value("stdin_base64", ""));
  if (!bytes) {
    return refuse(Reason::kInvalid,
                  "\"body.stdin_base64\" is no base64 (RFC 4648, section 4, with padding)");
  }
  return bytes;
}

// A process that has started, or why not.
Async<Outcome<GuestProcess::Started>> await_start(GuestProcess& process) {
  const auto event = co_await process.next();
  if (const auto* started = std::get_if<GuestProcess::Started>(&*event)) {
    co_return *started;
  }
  const auto* problem = std::get_if<Problem>(&*event);
  co_return std::unexpected(
      problem != nullptr
          ? *problem
          : Problem{Reason::kFailed, "the sandbox's agent said no start", std::nullopt});
}

Async<Outcome<HttpAnswer>> collect_execution(GuestProcess& process) {
  std::array<std::string, 2> texts;
  bool truncated = false;
  while (true) {
    auto event = co_await process.next();
    if (auto* problem = std::get_if<Problem>(&*event)) {
      co_return std::unexpected(std::move(*problem));
    }
    if (const auto* exited = std::get_if<Exited>(&*event)) {
      Json document = describe_exit(*exited);
      document["stdout"] = std::move(texts[MSB_STREAM_STDOUT]);
      document["stderr"] = std::move(texts[MSB_STREAM_STDERR]);
      document["truncated"] = truncated;
      co_return json_answer(document);
    }
    if (const auto* output = std::get_if<GuestProcess::Output>(&*event)) {
      std::string& text = texts.at(output->stream);
      const std::size_t taken = std::min(output->bytes.size(), kMaxOutput - text.size());
      text.append(reinterpret_cast<const char*>(output->bytes.data()), taken);
      truncated = truncated || taken < output->bytes.size();
    }
  }
}

Async<> send_all(EventStream& stream, std::vector<Json> events) {
  for (Json& event : events) {
    co_await stream.send(std::move(event));
  }
}

Async<> stream_execution(EventStream& stream, GuestProcess& process,
                         GuestProcess::Started started) {
  Json first = {{"event", "started"}, {"id", started.process}, {"pid", started.pid}};
  co_await stream.send(std::move(first));
  OutputEvents outputs;
  while (true) {
    auto event = co_await process.next();
    if (const auto* output = std::get_if<GuestProcess::Output>(&*event)) {
      if (auto told = outputs.add(output->stream, output->bytes, output->offset)) {
        co_await stream.send(std::move(*told));
      }
      continue;
    }
    co_await send_all(stream, outputs.rest());
    if (const auto* exited = std::get_if<Exited>(&*event)) {
      Json last = exited_event(*exited);
      co_return co_await stream.send(std::move(last));
    }
    if (auto* problem = std::get_if<Problem>(&*event)) {
      co_return co_await stream.send_failure(std::move(*problem));
    }
  }
}

// Sends what comes, and at last why nothing more does. `until`: offsets at which a client that does
// not follow has enough.
Async<> stream_output(App& app, EventStream& stream, AttachedProcess::Follower& follower,
                      Offsets from, std::optional<Offsets> until) {
  OutputEvents outputs;
  Json last;
  std::optional<Problem> failure;
  const auto enough = [&] {
    return until && from[MSB_STREAM_STDOUT] >= (*until)[MSB_STREAM_STDOUT] &&
           from[MSB_STREAM_STDERR] >= (*until)[MSB_STREAM_STDERR];
  };
  while (last.is_null() && !failure) {
    if (enough()) {
      last = {{"event", "running"}};
      break;
    }
    auto event = co_await follower.next(app);
    if (!event) {
      failure = about_to_end();
    } else if (const auto* output = std::get_if<AttachedProcess::Output>(&*event)) {
      from[output->stream] = output->end;
      if (auto told = outputs.add(output->stream, output->bytes, output->end)) {
        co_await stream.send(std::move(*told));
      }
    } else if (const auto* lost = std::get_if<AttachedProcess::Lost>(&*event)) {
      from[lost->stream] = lost->next;
      Json told = {{"event", "lost"},
                   {"stream", lost->stream == MSB_STREAM_STDOUT ? "stdout" : "stderr"},
                   {"offset", lost->offset},
                   {"next", lost->next}};
      co_await stream.send(std::move(told));
    } else if (const auto* exited = std::get_if<Exited>(&*event)) {
      last = exited_event(*exited);
    } else if (auto* problem = std::get_if<Problem>(&*event)) {
      failure = std::move(*problem);
    } else {
      last = {{"event", "detached"}};
    }
  }
  co_await send_all(stream, outputs.rest());
  if (failure) {
    co_return co_await stream.send_failure(std::move(*failure));
  }
  co_await stream.send(std::move(last));
}

Async<Outcome<Exited>> await_exit(App& app, std::shared_ptr<const Guest> guest, std::uint32_t id) {
  struct Waiting {
    std::optional<Requests> requests;
    std::optional<protocol::Answer<Exited>> answer;
    Signal come;
  };
  auto socket = guest->opener()();
  if (!socket) {
    co_return std::unexpected(Guest::unreachable(socket.error()));
  }
  const auto waiting = std::make_unique<Waiting>();
  waiting->requests.emplace(guest->io(), std::move(*socket));
  waiting->requests->wait(id, [where = waiting.get()](protocol::Answer<Exited> answer) {
    where->answer.emplace(std::move(answer));
    where->come.notify();
  });
  while (!waiting->answer) {
    if (app.draining) {
      co_return std::unexpected(about_to_end());
    }
    co_await Signal::wait_for_either(waiting->come, app.drain);
  }
  if (!*waiting->answer) {
    co_return std::unexpected(Guest::problem_of(waiting->answer->error()));
  }
  co_return std::move(**waiting->answer);
}

// Asks for something that has no answer but that it was done.
Async<Outcome<HttpAnswer>> ask(std::shared_ptr<const Guest> guest,
                               std::function<void(Requests&, Requests::Done<void>)> request) {
  if (auto done = co_await guest->ask<void>(std::move(request)); !done) {
    co_return std::unexpected(done.error());
  }
  co_return no_content();
}

}  // namespace

Async<Outcome<HttpAnswer>> execute(Call& call) {
  const auto served = find_running_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  auto spec = read_spec(call.body);
  if (!spec) {
    co_return std::unexpected(spec.error());
  }
  const auto input = read_input(call.body);
  if (!input) {
    co_return std::unexpected(input.error());
  }
  spec->input = input->has_value();
  auto process = (*served)->guest->start(std::move(*spec));
  if (!process) {
    co_return std::unexpected(process.error());
  }
  if (*input) {
    (*process)->send_input(std::as_bytes(std::span(**input)));
    (*process)->end_input();
  }
  const auto started = co_await await_start(**process);
  if (!started) {
    co_return std::unexpected(started.error());
  }
  const auto format = stream_format(call.exchange.header("Accept"));
  if (!format) {
    co_return co_await collect_execution(**process);
  }
  EventStream stream(call.exchange, *format);
  co_await stream.begin();
  co_await stream_execution(stream, **process, *started);
  co_await stream.end();
  co_return HttpAnswer{};
}

Async<Outcome<HttpAnswer>> start_process(Call& call) {
  const auto served = find_running_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  auto spec = read_spec(call.body);
  if (!spec) {
    co_return std::unexpected(spec.error());
  }
  spec->label = call.body.value("label", "");
  spec->keep = call.body.value("keep", 0U);
  if (const auto terminal = call.body.find("terminal"); terminal != call.body.end()) {
    spec->terminal = protocol::TerminalSize{terminal->value("rows", std::uint16_t{0}),
                                            terminal->value("columns", std::uint16_t{0})};
  }
  spec->input = spec->terminal.has_value() || call.body.value("input", false);
  auto process = (*served)->guest->start(std::move(*spec));
  if (!process) {
    co_return std::unexpected(process.error());
  }
  const auto started = co_await await_start(**process);
  if (!started) {
    co_return std::unexpected(started.error());
  }
  HttpAnswer answer = json_answer({{"id", started->process}, {"pid", started->pid}}, kCreated);
  answer.headers.emplace_back(
      "Location", fmt::format("/v1/sandboxes/{}/processes/{}?namespace={}", (*served)->name,
                              started->process, (*served)->space));
  co_return answer;
}

Async<Outcome<HttpAnswer>> list_processes(Call& call) {
  const auto served = find_running_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  const auto listing = co_await list_of((*served)->guest);
  if (!listing) {
    co_return std::unexpected(listing.error());
  }
  Json processes = Json::array();
  for (const ProcessEntry& entry : listing->processes) {
    processes.push_back(describe_process(entry, *listing));
  }
  co_return json_answer({{"processes", std::move(processes)}});
}

Async<Outcome<HttpAnswer>> get_process(Call& call) {
  const auto found = co_await find_process(call);
  if (!found) {
    co_return std::unexpected(found.error());
  }
  co_return json_answer(describe_process(found->entry, found->listing));
}

Async<Outcome<HttpAnswer>> get_process_output(Call& call) {
  const auto found = co_await find_kept_process(call);
  if (!found) {
    co_return std::unexpected(found.error());
  }
  Offsets from = AttachedProcess::kFromNowOn;
  from[MSB_STREAM_STDOUT] = call.query.value("stdout", std::uint64_t{0});
  from[MSB_STREAM_STDERR] = call.query.value("stderr", std::uint64_t{0});
  std::optional<Offsets> until;
  if (found->runs() && !call.query.value("follow", false)) {
    until.emplace();
    std::ranges::copy(found->entry.fields.offsets, until->begin());
  }
  AttachedProcess::Follower follower(AttachedProcess::of(call.app.io, found->guest, found->id()));
  if (auto attached = co_await follower.attach(from); !attached) {
    co_return std::unexpected(attached.error());
  }
  const auto format = stream_format(call.exchange.header("Accept"));
  EventStream stream(call.exchange, format.value_or(StreamFormat::kLines));
  co_await stream.begin();
  co_await stream_output(call.app, stream, follower, from, until);
  co_await stream.end();
  co_return HttpAnswer{};
}

Async<Outcome<HttpAnswer>> write_process_input(Call& call) {
  const auto found = co_await find_kept_process(call);
  if (!found) {
    co_return std::unexpected(found.error());
  }
  if ((found->entry.fields.flags & MSB_START_NO_STDIN) != 0) {
    co_return refuse(Reason::kConflict, "process {} was started without \"input\"", found->id());
  }
  if (!found->runs()) {
    co_return refuse(Reason::kConflict, "process {} has ended", found->id());
  }
  AttachedProcess::Writer writer(AttachedProcess::of(call.app.io, found->guest, found->id()));
  co_await writer.enter();
  std::uint64_t count = 0;
  while (true) {
    const auto piece = co_await call.exchange.read();
    if (!piece) {
      co_return std::unexpected(piece.error());
    }
    if (piece->empty()) {
      break;
    }
    if (auto written = co_await writer.write(*piece); !written) {
      co_return std::unexpected(written.error());
    }
    count += piece->size();
  }
  if (call.query.value("end", false)) {
    if (auto ended = co_await writer.end(); !ended) {
      co_return std::unexpected(ended.error());
    }
  }
  co_return json_answer({{"bytes", count}});
}

Async<Outcome<HttpAnswer>> resize_process(Call& call) {
  const auto found = co_await find_process(call);
  if (!found) {
    co_return std::unexpected(found.error());
  }
  if ((found->entry.fields.flags & MSB_START_TERMINAL) == 0) {
    co_return refuse(Reason::kConflict, "process {} has no terminal", found->id());
  }
  const protocol::TerminalSize size{call.body.value("rows", std::uint16_t{0}),
                                    call.body.value("columns", std::uint16_t{0})};
  std::function<void(Requests&, Requests::Done<void>)> request =
      [id = found->id(), size](Requests& requests, Requests::Done<void> done) {
        requests.resize(id, size, std::move(done));
      };
  co_return co_await ask(found->guest, std::move(request));
}

Async<Outcome<HttpAnswer>> signal_process(Call& call) {
  const auto signal = read_signal(call.body["signal"]);
  if (!signal) {
    co_return std::unexpected(signal.error());
  }
  const auto found = co_await find_process(call);
  if (!found) {
    co_return std::unexpected(found.error());
  }
  std::function<void(Requests&, Requests::Done<void>)> request =
      [id = found->id(), number = *signal, group = call.body.value("group", false)](
          Requests& requests, Requests::Done<void> done) {
        requests.signal(id, number, group, std::move(done));
      };
  co_return co_await ask(found->guest, std::move(request));
}

Async<Outcome<HttpAnswer>> wait_for_process(Call& call) {
  const auto found = co_await find_kept_process(call);
  if (!found) {
    co_return std::unexpected(found.error());
  }
  const auto exited = co_await await_exit(call.app, found->guest, found->id());
  if (!exited) {
    co_return std::unexpected(exited.error());
  }
  co_return json_answer(describe_exit(*exited));
}

Async<Outcome<HttpAnswer>> remove_process(Call& call) {
  const auto found = co_await find_kept_process(call);
  if (!found) {
    co_return std::unexpected(found.error());
  }
  // In this order over one connection; of the last one the answer says whether all went well.
  std::function<void(Requests&, Requests::Done<void>)> request =
      [id = found->id()](Requests& requests, Requests::Done<void> done) {
        constexpr std::uint32_t kKill = 9;
        requests.signal(id, kKill, true, [](const protocol::Answer<void>&) {});
        requests.wait(id, [](const protocol::Answer<Exited>&) {});
        requests.forget(id, std::move(done));
      };
  co_return co_await ask(found->guest, std::move(request));
}

}  // namespace msb::server::v1
