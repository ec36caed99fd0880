// SPDX-License-Identifier: Apache-2.0
// The images of the store, which all namespaces share.
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "oci/printable.hpp"
#include "oci/settings.hpp"
#include "oci/store/lookup.hpp"
#include "oci/store/store.hpp"
#include "server/client_spec.hpp"
#include "server/policy.hpp"
#include "server/v1.hpp"
#include "server/v1_streams.hpp"

namespace msb::server::v1 {

namespace {

using oci::CatalogEntry;

// The store as it is now, with what the operator settled about images. To be opened by a worker.
struct Images {
  oci::Store store;
  oci::Settings settings;

  static Outcome<Images> open(const std::string& home) {
    const auto path = oci::settings_path();
    auto settings =
        path ? oci::load_settings(*path) : Result<oci::Settings>(std::unexpected(path.error()));
    if (!settings) {
      return refuse(Reason::kInternal, settings.error());
    }
    auto store = oci::Store::open(home);
    if (!store) {
      return refuse(Reason::kInternal, store.error());
    }
    return Images{std::move(*store), std::move(*settings)};
  }

  // An image by its reference or digest.
  Outcome<CatalogEntry> find(const std::string& text) {
    auto entry = oci::find_image(store, settings, text);
    if (!entry) {
      return refuse(Reason::kInvalid, entry.error());
    }
    if (!*entry) {
      return refuse(Reason::kNotFound, "there is no image '{}' here; POST /v1/images pulls it",
                    oci::printable(text));
    }
    return std::move(**entry);
  }
};

// Asks the store, on a worker. `work` gets the images.
template <typename T>
Async<Outcome<T>> with_images(App& app, std::function<Outcome<T>(Images&)> work) {
  const std::function<Outcome<T>()> run = [home = app.sandboxes.home(), work]() -> Outcome<T> {
    auto images = Images::open(home);
    return images ? work(*images) : std::unexpected(images.error());
  };
  co_return co_await app.sandboxes.workers().run(run);
}

Json describe_image(const CatalogEntry& entry) {
  constexpr std::int64_t kSecond = 1000;
  return {{"reference", entry.reference.empty() ? Json() : Json(entry.reference)},
          {"digest", entry.target.to_string()},
          {"manifest", entry.manifest.digest.to_string()},
          {"created_at", entry.created.empty() ? Json() : Json(entry.created)},
          {"pulled_at", format_time(entry.pulled * kSecond)},
          {"size", entry.size},
          {"layers", entry.layers}};
}

Json describe_image(const CatalogEntry& entry, const oci::Image& image) {
  const oci::ImageConfig& config = image.config;
  Json document = describe_image(entry);
  document["os"] = config.os;
  document["architecture"] = config.architecture;
  document["execution"] = {{"user", config.user},
                           {"envs", config.env},
                           {"entrypoint", config.entrypoint},
                           {"command", config.cmd},
                           {"workdir", config.working_dir},
                           {"volumes", config.volumes},
                           {"ports", config.exposed_ports},
                           {"labels", config.labels}};
  return document;
}

Outcome<Json> read_image(Images& images, const std::string& text) {
  const auto entry = images.find(text);
  if (!entry) {
    return std::unexpected(entry.error());
  }
  const auto image = images.store.load(*entry);
  if (!image) {
    return refuse(Reason::kFailed, image.error());
  }
  return describe_image(*entry, *image);
}

// A pull beside the coroutine that waits for it, which is broken off with that.
class Pulling {
 public:
  Pulling(App& app, const asio::any_io_executor& executor, std::string reference)
      : state_(std::make_shared<State>()) {
    PullProgress progress = [state = state_.get()](const PullState& now) {
      state->progress = now;
      state->changed.notify();
    };
    asio::co_spawn(executor, app.sandboxes.pulls().pull(std::move(reference), std::move(progress)),
                   asio::bind_cancellation_slot(
                       state_->stop.slot(),
                       [state = state_](const std::exception_ptr& error, Outcome<void> outcome) {
                         state->outcome.emplace(std::move(outcome));
                         state->error = error;
                         state->changed.notify();
                       }));
  }
  Pulling(const Pulling&) = delete;
  Pulling& operator=(const Pulling&) = delete;
  ~Pulling() { state_->stop.emit(asio::cancellation_type::terminal); }

  // The progress that was made since, or nothing when it is over.
  Async<std::optional<PullState>> next() {
    while (!state_->progress && !state_->outcome) {
      co_await state_->changed.wait();
    }
    co_return state_->outcome ? std::nullopt : std::exchange(state_->progress, std::nullopt);
  }
  [[nodiscard]] Outcome<void> outcome() const {
    if (state_->error) {
      std::rethrow_exception(state_->error);
    }
    return *state_->outcome;
  }

 private:
  struct State {
    asio::cancellation_signal stop;
    std::optional<PullState> progress;
    std::optional<Outcome<void>> outcome;
    std::exception_ptr error;
    Signal changed;
  };
  std::shared_ptr<State> state_;
};

Async<Outcome<Json>> get_pulled(App& app, std::string reference) {
  const std::function<Outcome<Json>(Images&)> work = [reference](Images& images) -> Outcome<Json> {
    const auto entry = images.find(reference);
    return entry ? Outcome<Json>(describe_image(*entry)) : std::unexpected(entry.error());
  };
  co_return co_await with_images<Json>(app, work);
}

Async<Outcome<Json>> finish_pull(App& app, Outcome<void> outcome, std::string reference) {
  if (!outcome) {
    co_return std::unexpected(outcome.error());
  }
  co_return co_await get_pulled(app, std::move(reference));
}

Async<> stream_pull(Call& call, EventStream& stream, std::string reference) {
  const auto executor = co_await asio::this_coro::executor;
  Pulling pulling(call.app, executor, reference);
  while (true) {
    const auto progress = co_await pulling.next();
    if (!progress) {
      break;
    }
    Json event = {{"event", "progress"},
                  {"received", progress->received},
                  {"total", progress->total == 0 ? Json() : Json(progress->total)},
                  {"text", progress->text}};
    co_await stream.send(std::move(event));
  }
  auto image = co_await finish_pull(call.app, pulling.outcome(), reference);
  if (!image) {
    co_return co_await stream.send_failure(image.error());
  }
  Json last = {{"event", "pulled"}, {"image", std::move(*image)}};
  co_await stream.send(std::move(last));
}

}  // namespace

Async<Outcome<HttpAnswer>> list_images(Call& call) {
  const std::function<Outcome<Json>(Images&)> work =
      [reference = call.query.value("reference", "")](Images& images) -> Outcome<Json> {
    Json list = Json::array();
    if (!reference.empty()) {
      if (const auto entry = images.find(reference)) {
        list.push_back(describe_image(*entry));
      } else if (entry.error().reason != Reason::kNotFound) {
        return std::unexpected(entry.error());
      }
      return list;
    }
    const auto entries = images.store.list();
    if (!entries) {
      return refuse(Reason::kInternal, entries.error());
    }
    for (const CatalogEntry& entry : *entries) {
      list.push_back(describe_image(entry));
    }
    return list;
  };
  auto list = co_await with_images<Json>(call.app, work);
  if (!list) {
    co_return std::unexpected(list.error());
  }
  co_return json_answer({{"images", std::move(*list)}});
}

Async<Outcome<HttpAnswer>> get_image(Call& call) {
  const std::function<Outcome<Json>(Images&)> work =
      [text = call.path.value("image", "")](Images& images) { return read_image(images, text); };
  const auto image = co_await with_images<Json>(call.app, work);
  if (!image) {
    co_return std::unexpected(image.error());
  }
  co_return json_answer(*image);
}

Async<Outcome<HttpAnswer>> pull_image(Call& call) {
  const std::string reference = call.body.value("reference", "");
  if (auto allowed = check_image(reference, call.app.sandboxes.settings()); !allowed) {
    co_return std::unexpected(allowed.error());
  }
  const auto format = stream_format(call.exchange.header("Accept"));
  if (!format) {
    PullProgress none;
    auto outcome = co_await call.app.sandboxes.pulls().pull(reference, std::move(none));
    const auto image = co_await finish_pull(call.app, std::move(outcome), reference);
    if (!image) {
      co_return std::unexpected(image.error());
    }
    co_return json_answer(*image);
  }
  EventStream stream(call.exchange, *format);
  co_await stream.begin();
  co_await stream_pull(call, stream, reference);
  co_await stream.end();
  co_return HttpAnswer{};
}

Async<Outcome<HttpAnswer>> remove_image(Call& call) {
  const Key& key = call.exchange.key;
  if (key.scope.space != kAllNamespaces) {
    co_return refuse(
        Reason::kForbidden,
        "the key {} is for the namespace '{}', and images are of all: it cannot remove "
        "them",
        key.id, key.scope.space);
  }
  const std::function<Outcome<Json>(Images&)> work =
      [text = call.query.value("reference", "")](Images& images) -> Outcome<Json> {
    const auto entry = images.find(text);
    if (!entry) {
      return std::unexpected(entry.error());
    }
    const auto report = images.store.remove(*entry);
    if (!report) {
      return refuse(Reason::kFailed, report.error());
    }
    return Json{{"image", describe_image(*entry)},
                {"freed_bytes", report->bytes},
                {"postponed", report->postponed}};
  };
  const auto removed = co_await with_images<Json>(call.app, work);
  if (!removed) {
    co_return std::unexpected(removed.error());
  }
  co_return json_answer(*removed);
}

}  // namespace msb::server::v1
