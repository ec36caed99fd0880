// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: a request of the JSON-RPC of microsandbox 0.2. Whatever it is, it becomes a
// call of a method that there is, or an error; and its answer is one response of JSON-RPC with its
// id. Seeds: tests/corpus/rpc.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "server/rpc.hpp"

namespace {

using namespace msb;
using namespace msb::server;

constexpr std::array<std::string_view, 5> kMethods = {"sandbox.start", "sandbox.stop",
                                                      "sandbox.metrics.get", "sandbox.repl.run",
                                                      "sandbox.command.run"};

void require(bool condition, const char* what) {
  if (!condition) {
    std::fprintf(stderr, "%s\n", what);
    std::abort();
  }
}

// JSON-RPC 2.0 section 5. Gives the response.
Json check_response(const HttpAnswer& answer) {
  require(answer.type == "application/json", "an answer is JSON");
  Json response = Json::parse(answer.body, nullptr, false);
  require(response.is_object() && response.value("jsonrpc", "") == "2.0", "and of version 2.0");
  require(response.contains("result") != response.contains("error"), "a result, or an error");
  require(response.contains("id"), "an answer has an id");
  const Json& id = response["id"];
  require(id.is_string() || id.is_number() || id.is_null(), "of a type that ids have");
  return response;
}

void check_error(const HttpAnswer& answer) {
  const Json response = check_response(answer);
  require(response.contains("error") && answer.status >= 400, "an error has a status of errors");
  const Json& error = response["error"];
  require(error.is_object() && error["code"].is_number_integer(), "an error has a code");
  require(error["data"]["code"].is_number_integer(), "and that of the 0.2 line");
  const auto message = error["message"].get<std::string>();
  require(!message.empty() && !message.contains('\n'), "and says in one line what is wrong");
}

void check_call(const RpcCall& call, std::string_view only) {
  require(std::ranges::find(kMethods, call.method) != kMethods.end(), "a call's method is there");
  require(only.empty() || call.method == only, "and allowed at its path");
  require(call.params.is_object(), "its parameters have names");
  for (const Json& result : {Json("done"), Json{{"status", "success"}}}) {
    const Json response = check_response(rpc_answer(call, result, only));
    require(response["result"] == result, "a result is as the method gave it");
    // An id that is no UTF-8 would not have been parsed.
    require(to_text(response["id"]) == to_text(call.id), "an answer has its call's id");
    require(response.contains("message") == (!only.empty() && result.is_string()),
            "the later clients read a message where they look for one");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  for (const std::string_view only : {"", "sandbox.start", "sandbox.stop", "sandbox.command.run"}) {
    const auto call = read_rpc_call(body, only);
    if (call) {
      check_call(*call, only);
    } else {
      check_error(call.error());
    }
  }
  return 0;
}
