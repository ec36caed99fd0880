// SPDX-License-Identifier: Apache-2.0
// Sandboxes: their life, their ports, and what they use.
#include <algorithm>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "oci/base64.hpp"
#include "oci/digest.hpp"
#include "oci/printable.hpp"
#include "server/client_spec.hpp"
#include "server/policy.hpp"
#include "server/run_results.hpp"
#include "server/v1.hpp"

namespace msb::server::v1 {

namespace {

constexpr std::size_t kPage = 100;  // sandboxes, unless the client says how many

constexpr std::size_t kMaxIdempotencyKey = 255;

// How the last run ended is known of what does not run.
Async<Outcome<HttpAnswer>> answer_with(Call& call, Served served, unsigned status = 200) {
  Json document = describe(*served);
  document["exit"] = nullptr;
  if (served->stage == Stage::kStopped) {
    const auto record = co_await call.app.sandboxes.exit_record(served);
    if (record) {
      document["exit"] = describe(*record);
    }
  }
  co_return json_answer(document, status);
}

std::string location_of(const ServedSandbox& served) {
  return fmt::format("/v1/sandboxes/{}?namespace={}", served.name, served.space);
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
  return CreateWords{call.space, call.body.value("name", ""), std::move(*record)};
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
  return call.app.sandboxes.list(call.exchange.key, call.space == kAllNamespaces ? "" : call.space);
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
  document.update(describe(usage ? *usage : Usage()));
  document["problem"] = usage ? Json() : Json(usage.error().message);
  return document;
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
  co_await call.app.sandboxes.refresh_all();
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
  co_await call.app.sandboxes.refresh_all();
  const auto all = list_of(call);
  const auto usages = co_await measure_all(call.app.sandboxes, all);
  Json list = Json::array();
  for (std::size_t i = 0; i < all.size(); ++i) {
    list.push_back(describe_metrics(*all[i], usages[i]));
  }
  co_return json_answer({{"sandboxes", std::move(list)}});
}

}  // namespace msb::server::v1
