// SPDX-License-Identifier: Apache-2.0
// A server without sandboxes, and what clients ask it, for tests.
#pragma once

#include <doctest/doctest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <exception>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "oci/test_support.hpp"
#include "server/app.hpp"
#include "server/exchange.hpp"
#include "server/keeper.hpp"
#include "server/mcp.hpp"

namespace msb::server::testing {

inline Json json(std::string_view text) {
  Json document = Json::parse(text, nullptr, false);
  REQUIRE_FALSE(document.is_discarded());
  return document;
}

// A server with no sandboxes, and where they would be kept is something else already: starts fail.
struct Bed {
  Bed() {
    REQUIRE(guests);
    oci::testing::write_file(home / "server/sandboxes", "");
  }

  // Runs a coroutine to its end.
  void run(Async<> work) {
    bool done = false;
    asio::co_spawn(io, std::move(work), [&](const std::exception_ptr& error) {
      CHECK_FALSE(error);
      done = true;
    });
    run_until([&] { return done; });
  }
  template <typename Condition>
  void run_until(Condition condition) {
    io.restart();
    while (!condition()) {
      REQUIRE(io.run_one_for(std::chrono::seconds(20)) == 1);
    }
  }

  oci::testing::TemporaryDirectory home;
  asio::io_context io{1};
  Result<std::unique_ptr<AsioIo>> guests = AsioIo::create(io);
  Workers workers{io, 2};
  Result<Keeper> keeper = Keeper::begin(home.path());
  Sandboxes sandboxes{io, **guests, workers, {home.path(), "", {}, std::move(*keeper)}};
  App app{io, sandboxes, false, {}, nullptr};
};

// What a session says to one message.
inline std::vector<Json> converse(Bed& bed, McpSession& session, std::string_view text,
                                  Key key = {}, McpEra era = McpEra::kLegacy) {
  auto message = read_message(text);
  REQUIRE(message);
  const Json id = message->id;
  auto call = session.begin(std::move(key), std::move(*message), era);
  if (!call) {
    return {response_message(id, std::unexpected(call.error()))};
  }
  std::vector<Json> messages;
  const auto collect = [](McpCall& from, std::vector<Json>& to) -> Async<> {
    while (!from.over()) {
      const bool come = co_await from.wait();
      if (!come) {
        break;
      }
      if (auto one = from.take()) {
        to.push_back(std::move(*one));
      }
    }
  };
  bed.run(collect(*call, messages));
  return messages;
}

inline Json ask(Bed& bed, std::string_view text, Key key = {}) {
  McpSession session(bed.app, "session");
  auto messages = converse(bed, session, text, std::move(key));
  REQUIRE(messages.size() == 1);
  return messages.front();
}

// It waits for another thread.
inline constexpr const char* kSlowCall = R"({"jsonrpc":"2.0","id":5,"method":"tools/call","params":
    {"name":"sandbox_start","arguments":{"sandbox":"slow","config":{"image":"localhost:1/x"}}}})";

// A request of a client, and what it is answered.
class FakeExchange final : public Exchange {
 public:
  using Fields = std::map<std::string, std::string, std::less<>>;
  FakeExchange(std::string_view method, std::string_view target, Fields fields, std::string body)
      : line_(parse_target(method, target).value()),
        fields_(std::move(fields)),
        body_(std::move(body)) {}

  [[nodiscard]] const RequestLine& line() const override { return line_; }
  [[nodiscard]] std::string_view header(std::string_view name) const override {
    const auto found = fields_.find(name);
    return found == fields_.end() ? std::string_view() : found->second;
  }
  [[nodiscard]] bool has_repeated(std::string_view /*name*/) const override { return false; }
  [[nodiscard]] const std::string& id() const override { return id_; }
  Async<Outcome<std::string>> body(std::size_t /*limit*/) override { co_return body_; }
  Async<Outcome<std::span<const std::byte>>> read() override {
    co_return std::span<const std::byte>();
  }
  void answer(HttpAnswer answer) override {
    CHECK_FALSE(begun_);
    begun_ = ended = true;
    given = std::move(answer);
  }
  Async<> begin(HttpAnswer head) override {
    CHECK_FALSE(begun_);
    begun_ = true;
    given = std::move(head);
    co_return;
  }
  Async<> write(std::string_view piece) override {
    CHECK(begun_);
    given.body += piece;
    co_return;
  }
  Async<> end() override {
    ended = true;
    co_return;
  }
  [[nodiscard]] bool begun() const override { return begun_; }

  [[nodiscard]] std::string field(std::string_view name) const {
    for (const auto& [field, value] : given.headers) {
      if (field == name) {
        return value;
      }
    }
    return "";
  }

  HttpAnswer given;
  bool ended = false;

 private:
  RequestLine line_;
  Fields fields_;
  std::string body_;
  std::string id_ = "1";
  bool begun_ = false;
};

}  // namespace msb::server::testing
