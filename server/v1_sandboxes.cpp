// SPDX-License-Identifier: Apache-2.0
// Sandboxes: their life, their ports, what they use, and what they wrote.
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/detached.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "oci/base64.hpp"
#include "oci/digest.hpp"
#include "oci/printable.hpp"
#include "sandbox/log_file.hpp"
#include "server/client_spec.hpp"
#include "server/v1.hpp"
#include "server/v1_streams.hpp"

namespace msb::server::v1 {

namespace {

using sandbox::LogLine;
using sandbox::LogReader;
using sandbox::LogStream;

constexpr std::string_view kEveryNamespace = "*";
constexpr std::size_t kPage = 100;  // sandboxes, unless the client says how many

constexpr std::size_t kMaxLabels = 64;
constexpr std::size_t kMaxLabelName = 63;
constexpr std::size_t kMaxIdempotencyKey = 255;

// Of a log, at once.
constexpr std::uint64_t kLogPiece = std::uint64_t{256} << 10;
// How often one looks whether the sandbox has ended; and for more in its log, when the host has no
// watch left to tell of it.
constexpr std::chrono::milliseconds kLookForEnd{1000};
constexpr std::chrono::milliseconds kLookForLines{250};

// How the last run ended is known of what does not run.
Async<Outcome<HttpAnswer>> answer_with(Call& call, Served served, unsigned status = 200) {
  Json document = describe(*served);
  document["exit"] = nullptr;
  if (served->stage == Stage::kStopped) {
    if (const auto record = co_await call.app.sandboxes.exit_record(served)) {
      document["exit"] = describe(*record);
    }
  }
  co_return json_answer(document, status);
}

std::string location_of(const ServedSandbox& served) {
  return fmt::format("/v1/sandboxes/{}?namespace={}", served.name, served.space);
}

// Commas and equals signs are what lists of them are written with.
Outcome<void> check_labels(const std::map<std::string, std::string>& labels) {
  if (labels.size() > kMaxLabels) {
    return refuse(Reason::kInvalid, "\"body.labels\" has {} of them, and {} are the most",
                  labels.size(), kMaxLabels);
  }
  for (const auto& [name, value] : labels) {
    const bool good =
        !name.empty() && name.size() <= kMaxLabelName && std::ranges::all_of(name, [](char c) {
          return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                 std::string_view("._/-").contains(c);
        });
    if (!good) {
      return refuse(Reason::kInvalid,
                    "'{}' is no name for a label: it has 1 to {} letters, digits, '.', '_', '/' "
                    "and '-'",
                    oci::printable(name), kMaxLabelName);
    }
    if (value.contains(',')) {
      return refuse(Reason::kInvalid, "the value of the label '{}' has a comma", name);
    }
  }
  return {};
}

Outcome<std::string> idempotency_key(const Exchange& exchange) {
  const auto key = exchange.header("Idempotency-Key");
  const bool good = key.size() <= kMaxIdempotencyKey &&
                    std::ranges::all_of(key, [](char c) { return c >= ' ' && c <= '~'; });
  if (!good) {
    return refuse(Reason::kInvalid, "Idempotency-Key has 1 to {} characters of printable ASCII",
                  kMaxIdempotencyKey);
  }
  return std::string(key);
}

// The same for bodies that say the same, in whatever order.
std::string hash_of(const Json& body) {
  const std::string text =
      nlohmann::json(body).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return oci::Digest::of(std::as_bytes(std::span(text))).hex();
}

Outcome<CreateWords> read_creation(const Call& call) {
  auto key = idempotency_key(call.exchange);
  if (!key) {
    return std::unexpected(key.error());
  }
  auto record = read_config(call.body.value("config", Json()));
  if (!record) {
    return std::unexpected(record.error());
  }
  record->labels = call.body.value("labels", std::map<std::string, std::string>());
  if (auto good = check_labels(record->labels); !good) {
    return std::unexpected(good.error());
  }
  record->ephemeral = call.body.value("ephemeral", false);
  record->idempotency = std::move(*key);
  record->request = record->idempotency.empty() ? "" : hash_of(call.body);
  return CreateWords{call.space, call.body.value("name", ""), std::move(*record), std::nullopt};
}

// "A=1,B=2": what all of these labels have to be.
Outcome<std::map<std::string, std::string>> read_label_filter(std::string_view text) {
  std::map<std::string, std::string> labels;
  while (!text.empty()) {
    const std::string_view label = text.substr(0, text.find(','));
    const std::size_t equals = label.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      return refuse(Reason::kInvalid, "\"query.label\" has '{}', and has to be NAME=VALUE,...",
                    oci::printable(label));
    }
    labels.insert_or_assign(std::string(label.substr(0, equals)),
                            std::string(label.substr(equals + 1)));
    text.remove_prefix(std::min(text.size(), label.size() + 1));
  }
  return labels;
}

// The place of a sandbox in all lists: those behind it are the same whatever comes and goes.
using Place = std::pair<std::string, std::string>;

std::string encode_cursor(const Place& place) {
  std::string text = oci::encode_base64(place.first + "/" + place.second);
  std::ranges::replace(text, '+', '-');
  std::ranges::replace(text, '/', '_');
  text.resize(text.find_last_not_of('=') + 1);
  return text;
}

Outcome<Place> decode_cursor(std::string text) {
  std::ranges::replace(text, '-', '+');
  std::ranges::replace(text, '_', '/');
  text.append((4 - text.size() % 4) % 4, '=');
  const auto place = oci::decode_base64(text);
  const std::size_t slash = place ? place->find('/') : std::string::npos;
  if (slash == std::string::npos) {
    return refuse(Reason::kInvalid, "\"query.cursor\" is none that this server gave");
  }
  return Place(place->substr(0, slash), place->substr(slash + 1));
}

std::vector<Served> list_of(const Call& call) {
  return call.app.sandboxes.list(call.exchange.key,
                                 call.space == kEveryNamespace ? "" : call.space);
}

struct Filter {
  std::map<std::string, std::string> labels;
  std::string state;
  Place after;

  [[nodiscard]] bool has(const ServedSandbox& served) const {
    return Place(served.space, served.name) > after &&
           (state.empty() || state == stage_word(served.stage)) &&
           std::ranges::includes(served.record.labels, labels);
  }
};

Outcome<Filter> read_filter(const Json& query) {
  Filter filter;
  auto labels = read_label_filter(query.value("label", ""));
  if (!labels) {
    return std::unexpected(labels.error());
  }
  filter.labels = std::move(*labels);
  filter.state = query.value("state", "");
  if (query.contains("cursor")) {
    auto after = decode_cursor(query.value("cursor", ""));
    if (!after) {
      return std::unexpected(after.error());
    }
    filter.after = std::move(*after);
  }
  return filter;
}

// Where a program of this host reaches it.
Json describe_port(const PublishedPort& port) {
  const bool everywhere = port.address == "0.0.0.0" || port.address == "::";
  const bool six = port.address.contains(':');
  const std::string address = everywhere ? (six ? "::1" : "127.0.0.1") : port.address;
  Json document = {{"protocol", port.protocol},
                   {"address", port.address},
                   {"host_port", port.host_port},
                   {"guest_port", port.guest_port},
                   {"url", nullptr}};
  if (port.protocol == "tcp") {
    document["url"] =
        fmt::format("http://{}{}{}:{}", six ? "[" : "", address, six ? "]" : "", port.host_port);
  }
  return document;
}

Json describe_metrics(const ServedSandbox& served, const Outcome<Usage>& usage) {
  Json document = {
      {"name", served.name}, {"namespace", served.space}, {"state", stage_word(served.stage)}};
  document.update(describe(usage.value_or(Usage())));
  document["problem"] = usage ? Json() : Json(usage.error().message);
  return document;
}

// Tells of more in a log, and of a new one in its place.
class LogWatch {
 public:
  LogWatch(asio::io_context& io, const sandbox::StateDirectory& directory)
      : state_(std::make_shared<State>(io)), log_(directory.log()) {
    Fd events(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    boost::system::error_code error;
    if (events) {
      state_->events.assign(events.get(), error);
    }
    if (!events || error) {
      return;
    }
    ::inotify_add_watch(events.release(), directory.path().c_str(), IN_CREATE | IN_MOVED_TO);
    renew();
  }
  LogWatch(const LogWatch&) = delete;
  LogWatch& operator=(const LogWatch&) = delete;
  ~LogWatch() {
    boost::system::error_code ignored;
    state_->events.close(ignored);
  }

  // To be called before one looks: what happens from here on is told.
  void renew() {
    if (!state_->events.is_open()) {
      return;
    }
    std::array<char, 4096> events;
    while (::read(state_->events.native_handle(), events.data(), events.size()) > 0) {
    }
    // What has the name now; when nothing has, the directory tells when something does.
    ::inotify_add_watch(state_->events.native_handle(), log_.c_str(), IN_MODIFY | IN_DONT_FOLLOW);
    state_->told = false;
    if (!std::exchange(state_->waiting, true)) {
      state_->events.async_wait(asio::posix::stream_descriptor::wait_read,
                                [state = state_](const boost::system::error_code& /*error*/) {
                                  state->waiting = false;
                                  state->told = true;
                                  state->changed.notify();
                                });
    }
  }

  // Until it tells, or it is time to look anyway; or `stop` is notified.
  Async<> wait(Signal& stop) {
    const auto interval = state_->events.is_open() ? kLookForEnd : kLookForLines;
    if (!state_->told) {
      co_await Signal::wait_for_either(state_->changed, stop, Signal::Clock::now() + interval);
    }
  }

 private:
  struct State {
    explicit State(asio::io_context& io) : events(io) {}
    asio::posix::stream_descriptor events;
    bool waiting = false;
    bool told = false;
    Signal changed;
  };
  std::shared_ptr<State> state_;
  std::string log_;
};

// Some lines of a log; `all`: up to its end as it was when they were read.
struct LogPiece {
  std::vector<LogLine> lines;
  bool all = true;
};

// A log that need not be there yet. One piece at a time, by a worker.
class LogSource {
 public:
  LogSource(std::string path, std::optional<std::uint64_t> tail)
      : reader_(std::move(path)), tail_(tail) {}

  Outcome<LogPiece> read() {
    if (!open_) {
      const auto opened = reader_.open(tail_);
      if (!opened) {
        return refuse(Reason::kInternal, opened.error());
      }
      open_ = *opened;
    }
    LogPiece piece;
    if (open_) {
      const auto all = reader_.read_some(
          [&piece](const LogLine& line) -> Result<void> {
            piece.lines.push_back(line);
            return {};
          },
          kLogPiece);
      if (!all) {
        return refuse(Reason::kInternal, all.error());
      }
      piece.all = *all;
    }
    return piece;
  }

 private:
  LogReader reader_;
  std::optional<std::uint64_t> tail_;
  bool open_ = false;
};

Async<Outcome<LogPiece>> read_piece(Workers& workers, std::shared_ptr<LogSource> source) {
  const auto work = [source] { return source->read(); };
  co_return co_await workers.run(work);
}

Async<> send_lines(EventStream& stream, std::vector<LogLine> lines) {
  for (LogLine& line : lines) {
    Json event = {{"event", "log"},
                  {"time", format_time(line.time_ms)},
                  {"stream", line.stream == LogStream::kOutput ? "stdout" : "stderr"},
                  {"text", std::move(line.text)}};
    co_await stream.send(std::move(event));
  }
}

// Sends what is in the log, and, with a watch, what comes, until the sandbox has ended or the
// server is about to: the last event says so.
Async<> send_log(App& app, Served served, std::shared_ptr<LogSource> source, LogPiece piece,
                 LogWatch* watch, EventStream& stream) {
  bool over = watch == nullptr;
  while (true) {
    const bool nothing = piece.lines.empty() && piece.all;
    co_await send_lines(stream, std::move(piece.lines));
    if (over && piece.all) {
      Json last = {{"event", "end"}, {"state", stage_word(served->stage)}};
      co_return co_await stream.send(std::move(last));
    }
    if (nothing && app.draining) {
      co_return co_await stream.send_failure(about_to_end());
    }
    if (nothing) {
      co_await watch->wait(app.drain);
    }
    if (watch != nullptr) {
      // In this order: nothing is written any more once it has ended.
      watch->renew();
      over = served->stage == Stage::kStopped;
    }
    auto next = co_await read_piece(app.sandboxes.workers(), source);
    if (!next) {
      co_return co_await stream.send_failure(next.error());
    }
    piece = std::move(*next);
  }
}

}  // namespace

Async<Outcome<HttpAnswer>> create_sandbox(Call& call) {
  auto words = read_creation(call);
  if (!words) {
    co_return std::unexpected(words.error());
  }
  auto served =
      co_await call.app.sandboxes.create(call.exchange.key, std::move(*words), PullProgress());
  if (!served) {
    co_return std::unexpected(served.error());
  }
  auto answer = co_await answer_with(call, *served, kCreated);
  if (answer) {
    answer->headers.emplace_back("Location", location_of(**served));
  }
  co_return answer;
}

Async<Outcome<HttpAnswer>> list_sandboxes(Call& call) {
  const auto filter = read_filter(call.query);
  if (!filter) {
    co_return std::unexpected(filter.error());
  }
  const std::size_t limit = call.query.value("limit", kPage);
  Json page = Json::array();
  Json next;
  const ServedSandbox* last = nullptr;
  for (const Served& served : list_of(call)) {
    if (!filter->has(*served)) {
      continue;
    }
    if (page.size() == limit) {
      next = encode_cursor({last->space, last->name});
      break;
    }
    page.push_back(describe(*served));
    last = served.get();
  }
  co_return json_answer({{"sandboxes", std::move(page)}, {"next_cursor", std::move(next)}});
}

Async<Outcome<HttpAnswer>> get_sandbox(Call& call) {
  const auto served = find_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  co_return co_await answer_with(call, *served);
}

Async<Outcome<HttpAnswer>> remove_sandbox(Call& call) {
  const auto served = find_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  if (auto removed = co_await call.app.sandboxes.remove(call.exchange.key, *served); !removed) {
    co_return std::unexpected(removed.error());
  }
  co_return no_content();
}

Async<Outcome<HttpAnswer>> start_sandbox(Call& call) {
  const auto served = find_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  auto started = co_await call.app.sandboxes.start(call.exchange.key, *served, PullProgress());
  if (!started) {
    co_return std::unexpected(started.error());
  }
  co_return co_await answer_with(call, *started);
}

Async<Outcome<HttpAnswer>> stop_sandbox(Call& call) {
  const auto served = find_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  const bool at_once = call.body.value("at_once", false);
  if (auto stopped = co_await call.app.sandboxes.stop(call.exchange.key, *served, at_once);
      !stopped) {
    co_return std::unexpected(stopped.error());
  }
  co_return co_await answer_with(call, *served);
}

namespace {

Async<Outcome<HttpAnswer>> set_paused(Call& call, bool paused) {
  const auto served = find_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  if (auto set = co_await call.app.sandboxes.set_paused(call.exchange.key, *served, paused); !set) {
    co_return std::unexpected(set.error());
  }
  co_return co_await answer_with(call, *served);
}

}  // namespace

Async<Outcome<HttpAnswer>> pause_sandbox(Call& call) {
  co_return co_await set_paused(call, true);
}

Async<Outcome<HttpAnswer>> resume_sandbox(Call& call) {
  co_return co_await set_paused(call, false);
}

Async<Outcome<HttpAnswer>> list_ports(Call& call) {
  const auto served = find_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  Json ports = Json::array();
  for (const PublishedPort& port : (*served)->published) {
    ports.push_back(describe_port(port));
  }
  co_return json_answer({{"ports", std::move(ports)}});
}

Async<Outcome<HttpAnswer>> get_metrics(Call& call) {
  const auto served = find_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  const auto usage = co_await call.app.sandboxes.measure(*served);
  if (!usage) {
    co_return std::unexpected(usage.error());
  }
  co_return json_answer(describe_metrics(**served, usage));
}

Async<Outcome<HttpAnswer>> list_metrics(Call& call) {
  // All at the same time: one whose agent does not answer is not what the others wait for.
  struct Measuring {
    std::vector<Served> all;
    std::vector<std::optional<Outcome<Usage>>> usages;
    std::size_t left;
    Signal done;
  };
  const auto measuring = std::make_shared<Measuring>();
  measuring->all = list_of(call);
  measuring->left = measuring->all.size();
  measuring->usages.resize(measuring->left);
  const auto measure = [](Sandboxes* sandboxes, std::shared_ptr<Measuring> told,
                          std::size_t which) -> Async<> {
    told->usages[which] = co_await sandboxes->measure(told->all[which]);
    --told->left;
    told->done.notify();
  };
  const auto executor = co_await asio::this_coro::executor;
  for (std::size_t i = 0; i < measuring->all.size(); ++i) {
    asio::co_spawn(executor, measure(&call.app.sandboxes, measuring, i), asio::detached);
  }
  while (measuring->left > 0) {
    co_await measuring->done.wait();
  }
  Json list = Json::array();
  for (std::size_t i = 0; i < measuring->all.size(); ++i) {
    list.push_back(describe_metrics(*measuring->all[i], *measuring->usages[i]));
  }
  co_return json_answer({{"sandboxes", std::move(list)}});
}

Async<Outcome<HttpAnswer>> get_logs(Call& call) {
  const auto served = find_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  std::optional<std::uint64_t> tail;
  if (call.query.contains("tail")) {
    tail = call.query.value("tail", std::uint64_t{0});
  }
  std::optional<LogWatch> watch;
  if (call.query.value("follow", false)) {
    watch.emplace(call.app.io, (*served)->directory);
  }
  const auto source = std::make_shared<LogSource>((*served)->directory.log(), tail);
  // A log that cannot be read is an answer of its own.
  auto first = co_await read_piece(call.app.sandboxes.workers(), source);
  if (!first) {
    co_return std::unexpected(first.error());
  }
  const auto format = stream_format(call.exchange.header("Accept"));
  EventStream stream(call.exchange, format.value_or(StreamFormat::kLines));
  co_await stream.begin();
  co_await send_log(call.app, *served, source, std::move(*first), watch ? &*watch : nullptr,
                    stream);
  co_await stream.end();
  co_return HttpAnswer{};
}

}  // namespace msb::server::v1
