// SPDX-License-Identifier: Apache-2.0
#include "server/rpc.hpp"

#include <doctest/doctest.h>

#include <string>

#include "server/server_testing.hpp"

namespace msb::server {
namespace {

using testing::Bed;
using testing::FakeExchange;
using testing::json;

HttpAnswer answer_to(Bed& bed, std::string body, Key key = {}) {
  FakeExchange exchange("POST", "/api/v1/rpc", {}, std::move(body));
  exchange.key = std::move(key);
  bed.run(serve_rpc(bed.app, exchange));
  return exchange.given;
}

constexpr const char* kMetrics =
    R"({"jsonrpc":"2.0","id":1,"method":"sandbox.metrics.get","params":{}})";

TEST_CASE("the id of a call is a text, a number or null, and comes back") {
  Bed bed;
  for (const auto* id : {"1", "-1.5", "18446744073709551615", R"("a")", "null"}) {
    CAPTURE(id);
    const auto answer = answer_to(
        bed,
        fmt::format(R"({{"jsonrpc":"2.0","id":{},"method":"sandbox.metrics.get","params":{{}}}})",
                    id));
    CHECK(answer.status == 200);
    CHECK(json(answer.body)["id"] == json(id));
  }
  for (const auto* id : {"true", "[1]", R"({"a":1})"}) {
    CAPTURE(id);
    const auto answer = answer_to(
        bed,
        fmt::format(R"({{"jsonrpc":"2.0","id":{},"method":"sandbox.metrics.get","params":{{}}}})",
                    id));
    CHECK(answer.status == 400);
    CHECK(json(answer.body)["error"]["code"] == -32600);
    CHECK(json(answer.body)["id"] == nullptr);
  }
}

TEST_CASE("a server that is about to end takes no call any more") {
  Bed bed;
  bed.app.draining = true;
  const auto answer = answer_to(bed, kMetrics);
  CHECK(answer.status == 503);
  CHECK(json(answer.body)["id"] == 1);
}

TEST_CASE("a key that is read-only looks, and runs nothing") {
  Bed bed;
  Key key;
  key.scope.read_only = true;
  CHECK(answer_to(bed, kMetrics, key).status == 200);
  for (const auto* call :
       {R"("sandbox.repl.run","params":{"sandbox":"a","language":"python","code":"1"})",
        R"("sandbox.command.run","params":{"sandbox":"a","command":"ls"})",
        R"("sandbox.start","params":{"sandbox":"a","config":{"image":"base"}})"}) {
    CAPTURE(call);
    CHECK(answer_to(bed, fmt::format(R"({{"jsonrpc":"2.0","id":1,"method":{}}})", call), key)
              .status == 403);
  }
}

}  // namespace
}  // namespace msb::server
