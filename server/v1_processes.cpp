// SPDX-License-Identifier: Apache-2.0
// Processes that the guest keeps until they are removed.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "server/client_spec.hpp"
#include "server/v1.hpp"
#include "server/v1_exits.hpp"
#include "server/v1_streams.hpp"

namespace msb::server::v1 {

namespace {

using protocol::Exited;
using protocol::ProcessEntry;
using protocol::Requests;

constexpr std::uint32_t kSignals = 64;  // of Linux x86-64

using Offsets = AttachedProcess::Offsets;

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
  co_await stream.send_all(outputs.rest());
  if (failure) {
    co_return co_await stream.send_failure(std::move(*failure));
  }
  co_await stream.send(std::move(last));
}

Async<Outcome<Exited>> await_exit(App& app, std::shared_ptr<const Guest> guest, std::uint32_t id) {
  auto socket = guest->opener()();
  if (!socket) {
    co_return std::unexpected(unreachable(socket.error()));
  }
  AgentAnswer<Exited> exit;
  Requests requests(guest->io(), std::move(*socket));
  requests.wait(id, exit.done());
  while (!exit.value) {
    if (app.draining) {
      co_return std::unexpected(about_to_end());
    }
    co_await Signal::wait_for_either(exit.changed, app.drain);
  }
  co_return co_await exit.take();
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
  // There is one follower at a time, and who may only look ends nobody's stream.
  const bool take_over = !call.exchange.key.scope.read_only;
  if (auto attached = co_await follower.attach(from, take_over); !attached) {
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
  if (auto opened = co_await writer.open(); !opened) {
    co_return std::unexpected(opened.error());
  }
  std::uint64_t count = 0;
  while (true) {
    const auto piece = co_await writer.read(call.exchange);
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
        requests.signal(id, SIGKILL, true, [](const protocol::Answer<void>&) {});
        requests.wait(id, [](const protocol::Answer<Exited>&) {});
        requests.forget(id, std::move(done));
      };
  co_return co_await ask(found->guest, std::move(request));
}

}  // namespace msb::server::v1
