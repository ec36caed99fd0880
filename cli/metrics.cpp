// SPDX-License-Identifier: Apache-2.0
#include "cli/metrics.hpp"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "cli/interruption.hpp"
#include "cli/target.hpp"
#include "cli/text.hpp"
#include "sandbox/control_client.hpp"
#include "sandbox/disk.hpp"
#include "sandbox/files.hpp"
#include "sandbox/metrics_sampler.hpp"
#include "sandbox/runtime_directory.hpp"
#include "sandbox/state_directory.hpp"

namespace msb::cli {

namespace {

using sandbox::MetricsSampler;
using sandbox::Running;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kPatience{2000};
constexpr milliseconds kBetween{200};  // two samples that processor time is told from
constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;

// What the supervisor of one says, which does not change but for the time.
struct Supervised {
  std::optional<std::uint64_t> memory_limit;
  std::optional<std::uint64_t> uptime_ms;  // at `asked`
  Clock::time_point asked;
};

std::optional<std::uint64_t> count_member(const Json& document, const char* name) {
  const auto number = sandbox::number_member(document, name);
  return number && *number >= 0 ? std::optional(static_cast<std::uint64_t>(*number)) : std::nullopt;
}

Supervised ask_supervisor(const Running& running) {
  Supervised known{{}, {}, Clock::now()};
  auto client = sandbox::ControlClient::connect(running.control_socket());
  if (!client) {
    return known;
  }
  const auto status = client->call("status", Json::object(), kPatience);
  if (!status) {
    return known;
  }
  known.asked = Clock::now();
  known.uptime_ms = count_member(*status, "uptime_ms");
  known.memory_limit = count_member(*status, "memory_mib");
  if (known.memory_limit) {
    *known.memory_limit *= kMebibyte;
  }
  return known;
}

class Metrics {
 public:
  Metrics(std::unique_ptr<MetricsSampler> sampler, int stop)
      : sampler_(std::move(sampler)), stop_(stop) {}

  // Looks at what these use now.
  Result<void> look(const std::vector<Running>& sandboxes) {
    ask_supervisors(sandboxes);
    return sampler_->sample(sandboxes, kPatience, stop_);
  }

  [[nodiscard]] MetricsRow row(const Running& running) const {
    MetricsRow row;
    row.name = running.who.name;
    if (const auto known = supervised_.find(running.id); known != supervised_.end()) {
      row.memory_limit = known->second.memory_limit;
      row.uptime_ms = known->second.uptime_ms;
      if (row.uptime_ms) {
        const auto since =
            std::chrono::duration_cast<milliseconds>(Clock::now() - known->second.asked);
        *row.uptime_ms += static_cast<std::uint64_t>(since.count());
      }
    }
    if (!running.who.state.empty()) {
      row.disk = sandbox::space_of(sandbox::StateDirectory(running.who.state).disk());
    }
    if (const auto sample = sampler_->find(running.id)) {
      const msb_metrics& values = sample->values;
      row.cpu_percent = sample->cpu_percent;
      row.memory_used =
          values.memory_total - std::min(values.memory_available, values.memory_total);
      row.received = values.received_bytes;
      row.sent = values.sent_bytes;
      row.processes = values.processes;
    }
    return row;
  }

 private:
  // Those that were not asked yet, at the same time.
  void ask_supervisors(const std::vector<Running>& sandboxes) {
    std::vector<std::pair<const Running*, Supervised>> fresh;
    for (const Running& running : sandboxes) {
      if (!supervised_.contains(running.id)) {
        fresh.emplace_back(&running, Supervised{});
      }
    }
    {
      std::vector<std::jthread> threads;
      threads.reserve(fresh.size());
      for (auto& one : fresh) {
        threads.emplace_back([&one] { one.second = ask_supervisor(*one.first); });
      }
    }
    for (const auto& [running, known] : fresh) {
      supervised_[running->id] = known;
    }
  }

  std::unique_ptr<MetricsSampler> sampler_;
  const int stop_;
  std::map<std::string, Supervised> supervised_;
};

// Those of the names that still run, or all.
Result<std::vector<Running>> still_running(const std::vector<Running>& chosen, bool all) {
  auto running = sandbox::list_running();
  if (running && !all) {
    std::erase_if(*running, [&](const Running& one) {
      return std::ranges::none_of(chosen, [&](const Running& other) { return other.id == one.id; });
    });
  }
  return running;
}

Result<std::vector<Running>> choose(const MetricsWords& words) {
  const auto targets = Targets::look(words.file);
  if (!targets) {
    return std::unexpected(targets.error());
  }
  if (words.names.empty()) {
    return targets->all();
  }
  std::vector<Running> chosen;
  for (const std::string& name : words.names) {
    const auto target = targets->find_running(name);
    if (!target) {
      return std::unexpected(target.error());
    }
    chosen.push_back(*target->running);
  }
  return chosen;
}

std::vector<MetricsRow> rows_of(const Metrics& metrics, const std::vector<Running>& sandboxes) {
  std::vector<MetricsRow> rows;
  rows.reserve(sandboxes.size());
  for (const Running& running : sandboxes) {
    rows.push_back(metrics.row(running));
  }
  return rows;
}

Result<void> print_once(Metrics& metrics, const std::vector<Running>& chosen,
                        const MetricsWords& words) {
  if (auto looked = metrics.look(chosen); !looked) {
    return looked;
  }
  std::this_thread::sleep_for(kBetween);
  const auto left = still_running(chosen, /*all=*/false);
  if (!left) {
    return std::unexpected(left.error());
  }
  if (auto looked = metrics.look(*left); !looked) {
    return looked;
  }
  const auto rows = rows_of(metrics, *left);
  return words.format == Format::kJson ? print_json(metrics_json(rows))
                                       : print(format_metrics(rows));
}

// A table that is drawn over the one before.
class LiveTable {
 public:
  LiveTable() = default;
  LiveTable(const LiveTable&) = delete;
  LiveTable& operator=(const LiveTable&) = delete;
  ~LiveTable() {
    if (lines_ > 0 && !print("\x1b[?25h")) {
      complain("cannot show the cursor again");
    }
  }

  Result<void> draw(const std::string& table) {
    winsize size{};
    const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    const std::size_t columns = known ? size.ws_col : 80;
    const std::size_t most = known && size.ws_row > 1 ? size.ws_row - 1U : 24;
    std::string text = lines_ > 0 ? fmt::format("\x1b[{}A\r\x1b[J", lines_) : "\x1b[?25l";
    lines_ = 0;
    for (std::size_t at = 0; at < table.size() && lines_ < most; ++lines_) {
      const std::size_t end = table.find('\n', at);
      text += table.substr(at, std::min(end - at, columns)) + "\n";
      at = end + 1;
    }
    return print(text);
  }

 private:
  std::size_t lines_ = 0;
};

Result<int> show_live(Metrics& metrics, std::vector<Running> chosen, const MetricsWords& words,
                      Interruption& interruption) {
  LiveTable table;
  const bool all = words.names.empty();
  auto next = Clock::now();
  milliseconds interval = kBetween;  // so that the second one can tell of processor time
  while (true) {
    if (auto looked = metrics.look(chosen); !looked) {
      return std::unexpected(looked.error());
    }
    if (auto drawn = table.draw(format_metrics(rows_of(metrics, chosen))); !drawn) {
      return std::unexpected(drawn.error());
    }
    next = std::max(next + interval, Clock::now());
    interval = milliseconds(static_cast<std::int64_t>(words.interval * 1000));
    const auto wait = std::chrono::ceil<milliseconds>(next - Clock::now());
    pollfd entry{interruption.fd(), POLLIN, 0};
    ::poll(&entry, 1, static_cast<int>(std::max<std::int64_t>(wait.count(), 0)));
    if (const auto status = interruption.status()) {
      return *status;
    }
    auto left = still_running(chosen, all);
    if (!left) {
      return std::unexpected(left.error());
    }
    chosen = std::move(*left);
    if (chosen.empty() && !all) {
      return 0;
    }
  }
}

std::string or_dash(const std::optional<std::uint64_t>& value,
                    std::string (*shown)(std::uint64_t)) {
  return value ? shown(*value) : "-";
}

std::string show_number(std::uint64_t number) {
  return fmt::format("{}", number);
}

std::string show_time(std::uint64_t milliseconds_up) {
  return format_duration(std::chrono::seconds(milliseconds_up / 1000));
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

}  // namespace

std::string format_metrics(const std::vector<MetricsRow>& rows) {
  std::vector<std::vector<std::string>> cells = {
      {"NAME", "CPU %", "MEMORY", "DISK", "NET IN", "NET OUT", "PROCESSES", "UP"}};
  for (const MetricsRow& row : rows) {
    cells.push_back({row.name, row.cpu_percent ? fmt::format("{:.1f}", *row.cpu_percent) : "-",
                     fmt::format("{} / {}", or_dash(row.memory_used, format_size),
                                 or_dash(row.memory_limit, format_size)),
                     or_dash(row.disk, format_size), or_dash(row.received, format_size),
                     or_dash(row.sent, format_size), or_dash(row.processes, show_number),
                     or_dash(row.uptime_ms, show_time)});
  }
  return format_table(cells);
}

Json metrics_json(const std::vector<MetricsRow>& rows) {
  Json documents = Json::array();
  for (const MetricsRow& row : rows) {
    documents.push_back({{"name", row.name},
                         {"cpu_percent", or_null(row.cpu_percent)},
                         {"memory_used", or_null(row.memory_used)},
                         {"memory_limit", or_null(row.memory_limit)},
                         {"disk", or_null(row.disk)},
                         {"received", or_null(row.received)},
                         {"sent", or_null(row.sent)},
                         {"processes", or_null(row.processes)},
                         {"uptime_ms", or_null(row.uptime_ms)}});
  }
  return documents;
}

Result<int> metrics(const MetricsWords& words) {
  const bool live = !words.once && words.format == Format::kTable && ::isatty(STDOUT_FILENO) == 1;
  std::optional<Interruption> interruption;
  if (live) {
    auto watched = Interruption::watch();
    if (!watched) {
      return std::unexpected(watched.error());
    }
    interruption.emplace(std::move(*watched));
  }
  auto chosen = choose(words);
  if (!chosen) {
    return std::unexpected(chosen.error());
  }
  auto sampler = MetricsSampler::create();
  if (!sampler) {
    return std::unexpected(sampler.error());
  }
  Metrics metrics(std::move(*sampler), interruption ? interruption->fd() : -1);
  if (interruption) {
    return show_live(metrics, std::move(*chosen), words, *interruption);
  }
  const auto printed = print_once(metrics, *chosen, words);
  return printed ? Result<int>(0) : std::unexpected(printed.error());
}

}  // namespace msb::cli
