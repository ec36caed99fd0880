// SPDX-License-Identifier: Apache-2.0
#include "server/rpc.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "base/nearest_word.hpp"
#include "oci/printable.hpp"
#include "server/client_spec.hpp"
#include "server/run_results.hpp"
#include "server/schema.hpp"

namespace msb::server {

namespace {

// JSON-RPC 2.0 section 5.1.
constexpr int kInvalidRequest = -32600;
constexpr int kUnknownMethod = -32601;
constexpr int kInvalidParams = -32602;
constexpr int kInternalError = -32603;
constexpr int kServerError = -32000;
constexpr int kParseError = -32700;

int code_of(Reason reason) {
  switch (reason) {
    case Reason::kInvalid:
    case Reason::kTooLarge:
      return kInvalidParams;
    case Reason::kNoMethod:
      return kUnknownMethod;
    case Reason::kInternal:
      return kInternalError;
    default:
      return kServerError;
  }
}

HttpAnswer rpc_error(int code, const Problem& problem, const Json& id) {
  const ReasonInfo& reason = info(problem.reason);
  HttpAnswer answer = json_answer(
      {{"jsonrpc", "2.0"},
       {"error",
        {{"code", code}, {"message", problem.message}, {"data", {{"code", reason.number}}}}},
       {"id", id}},
      reason.status);
  if (problem.retry_after) {
    answer.headers.emplace_back("Retry-After", fmt::format("{}", *problem.retry_after));
  }
  constexpr unsigned kUnauthorized = 401;
  if (reason.status == kUnauthorized) {
    answer.headers.emplace_back("WWW-Authenticate", "Bearer");
  }
  return answer;
}

// The parameters of each method. "config" is config_schema(), put in its place once.
constexpr const char* kSchemas = R"({
  "sandbox.start": {"type": "object", "additionalProperties": false, "required": ["sandbox"],
    "properties": {"sandbox": {"$ref": "#/$defs/name"}, "namespace": {"$ref": "#/$defs/space"},
      "config": {"$ref": "#/$defs/config"}}},
  "sandbox.stop": {"type": "object", "additionalProperties": false, "required": ["sandbox"],
    "properties": {"sandbox": {"$ref": "#/$defs/name"}, "namespace": {"$ref": "#/$defs/space"}}},
  "sandbox.metrics.get": {"type": "object", "additionalProperties": false,
    "properties": {"sandbox": {"type": ["string", "null"], "maxLength": 63},
      "namespace": {"$ref": "#/$defs/space"}}},
  "sandbox.repl.run": {"type": "object", "additionalProperties": false,
    "required": ["sandbox", "language", "code"],
    "properties": {"sandbox": {"$ref": "#/$defs/name"}, "namespace": {"$ref": "#/$defs/space"},
      "language": {"type": "string", "maxLength": 64}, "code": {"type": "string"},
      "timeout": {"$ref": "#/$defs/timeout"}}},
  "sandbox.command.run": {"type": "object", "additionalProperties": false,
    "required": ["sandbox", "command"],
    "properties": {"sandbox": {"$ref": "#/$defs/name"}, "namespace": {"$ref": "#/$defs/space"},
      "command": {"type": "string", "minLength": 1},
      "args": {"type": ["array", "null"], "maxItems": 65536, "items": {"type": "string"}},
      "timeout": {"$ref": "#/$defs/timeout"}}},
  "$defs": {
    "name": {"type": "string", "minLength": 1, "maxLength": 63},
    "space": {"type": ["string", "null"], "maxLength": 63},
    "timeout": {"type": ["number", "null"], "minimum": 0.001, "maximum": 31536000}}
})";

const Json& schemas() {
  static const Json all = [] {
    Json document = Json::parse(kSchemas);
    document["$defs"]["config"] = config_schema();
    return document;
  }();
  return all;
}

std::string text_of(const Json& params, const char* name) {
  const auto found = params.find(name);
  return found != params.end() && found->is_string() ? found->get<std::string>() : "";
}

// 0.2.6 clients always send one; later ones never do.
std::string space_of(const Json& params, const Key& key) {
  std::string space = text_of(params, "namespace");
  return space.empty() ? default_space(key) : space;
}

std::chrono::milliseconds timeout_of(const Json& params) {
  constexpr double kMilliseconds = 1000;
  const auto found = params.find("timeout");
  return std::chrono::milliseconds(
      found != params.end() && found->is_number()
          ? static_cast<std::int64_t>(found->get<double>() * kMilliseconds)
          : 0);
}

using Method = Async<Outcome<Json>> (*)(App&, Key, Json);

Async<Outcome<Json>> start(App& app, Key key, Json params) {
  CreateWords words;
  words.space = space_of(params, key);
  words.name = text_of(params, "sandbox");
  auto record = read_config(params.contains("config") ? params["config"] : Json());
  if (!record) {
    co_return std::unexpected(record.error());
  }
  words.record = std::move(*record);
  const auto started =
      co_await app.sandboxes.start_or_create(key, std::move(words), PullProgress());
  if (!started) {
    co_return std::unexpected(started.error());
  }
  co_return Json(fmt::format("Sandbox {} started successfully", (*started)->name));
}

Async<Outcome<Json>> stop(App& app, Key key, Json params) {
  const auto served = app.sandboxes.find(key, space_of(params, key), text_of(params, "sandbox"));
  if (!served) {
    co_return std::unexpected(served.error());
  }
  const auto stopped = co_await app.sandboxes.stop(key, *served);
  if (!stopped) {
    co_return std::unexpected(stopped.error());
  }
  co_return Json(fmt::format("Sandbox {} stopped successfully", (*served)->name));
}

Async<Outcome<Json>> get_metrics(App& app, Key key, Json params) {
  std::string space = space_of(params, key);
  std::string name = text_of(params, "sandbox");
  co_return co_await metrics_result(app.sandboxes, std::move(key), std::move(space),
                                    std::move(name));
}

// The sandbox of a call that runs something in it.
Outcome<Served> to_be_used(App& app, const Key& key, const Json& params) {
  return find_usable(app.sandboxes, key, space_of(params, key), text_of(params, "sandbox"));
}

Async<Outcome<Json>> run_repl(App& app, Key key, Json params) {
  const auto served = to_be_used(app, key, params);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  const auto language = code_language(text_of(params, "language"));
  if (!language) {
    co_return std::unexpected(language.error());
  }
  CodeWords words;
  words.language = *language;
  words.code = text_of(params, "code");
  words.timeout = timeout_of(params);
  auto result = co_await run_code(*served, std::move(words), OnText());
  if (!result) {
    co_return std::unexpected(result.error());
  }
  result->document["language"] = text_of(params, "language");  // as its client knows it
  co_return std::move(result->document);
}

Async<Outcome<Json>> run(App& app, Key key, Json params) {
  const auto served = to_be_used(app, key, params);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  CommandWords words;
  words.command = text_of(params, "command");
  if (const auto args = params.find("args"); args != params.end() && args->is_array()) {
    for (const Json& word : *args) {
      words.args.push_back(word.get<std::string>());
    }
  }
  words.timeout = timeout_of(params);
  co_return co_await run_command(*served, std::move(words), OnText());
}

struct NamedMethod {
  std::string_view name;
  Method method;
};
constexpr std::array<NamedMethod, 5> kMethods = {{{"sandbox.start", start},
                                                  {"sandbox.stop", stop},
                                                  {"sandbox.metrics.get", get_metrics},
                                                  {"sandbox.repl.run", run_repl},
                                                  {"sandbox.command.run", run}}};

// The method that a path alone allows, "" where it allows all; nothing for no path of ours.
std::optional<std::string_view> method_of_path(const RequestLine& line) {
  if (line.path_text == "/api/v1/rpc") {
    return "";
  }
  if (line.path_text == "/api/v1/sandbox/start") {
    return "sandbox.start";
  }
  if (line.path_text == "/api/v1/sandbox/stop") {
    return "sandbox.stop";
  }
  if (line.path_text == "/api/v1/sandbox/command/run") {
    return "sandbox.command.run";
  }
  return std::nullopt;
}

}  // namespace

HttpAnswer rpc_error_answer(const Problem& problem, const Json& id) {
  return rpc_error(code_of(problem.reason), problem, id);
}

std::expected<RpcCall, HttpAnswer> read_rpc_call(std::string_view body, std::string_view only) {
  const auto bad = [](int code, Reason reason, std::string message, const Json& id = nullptr) {
    return std::unexpected(rpc_error(code, {reason, std::move(message), std::nullopt}, id));
  };
  const auto document = parse_json(body);
  if (!document) {
    return std::unexpected(rpc_error(kParseError, document.error(), nullptr));
  }
  const Json& request = *document;
  if (request.is_array()) {
    return bad(kInvalidRequest, Reason::kInvalid, "batches are not taken: send one request");
  }
  if (!request.is_object()) {
    return bad(kInvalidRequest, Reason::kInvalid, "a request is an object");
  }
  Json id = request.contains("id") ? request["id"] : Json();
  if (id.is_structured() || id.is_boolean()) {
    return bad(kInvalidRequest, Reason::kInvalid, "\"id\" is a text, a number or null");
  }
  if (text_of(request, "jsonrpc") != "2.0") {
    return bad(kInvalidRequest, Reason::kInvalid, "\"jsonrpc\" has to be \"2.0\"", id);
  }
  if (!request.contains("method") || !request["method"].is_string()) {
    return bad(kInvalidRequest, Reason::kInvalid, "\"method\" has to be a text", id);
  }
  RpcCall call{text_of(request, "method"),
               request.contains("params") ? request["params"] : Json::object(), std::move(id)};
  std::vector<std::string_view> names;
  for (const NamedMethod& one : kMethods) {
    names.push_back(one.name);
  }
  if (std::ranges::find(names, call.method) == names.end()) {
    return bad(kUnknownMethod, Reason::kNotFound,
               fmt::format("there is no method '{}'{}", oci::printable(call.method),
                           did_you_mean(call.method, names)),
               call.id);
  }
  if (!only.empty() && call.method != only) {
    return bad(kInvalidRequest, Reason::kInvalid, fmt::format("this path is for {}", only),
               call.id);
  }
  if (auto good = check_schema(schemas()[call.method], call.params, "params", schemas()); !good) {
    return bad(kInvalidParams, Reason::kInvalid, good.error().message, call.id);
  }
  return call;
}

HttpAnswer rpc_answer(const RpcCall& call, Json result, std::string_view only) {
  Json answer = {{"jsonrpc", "2.0"}, {"result", result}, {"id", call.id}};
  if (!only.empty() && result.is_string()) {
    answer["message"] = std::move(result);  // what the later clients read there
  }
  return json_answer(answer);
}

Async<> serve_rpc(App& app, Exchange& exchange) {
  const auto only = method_of_path(exchange.line());
  if (!only) {
    exchange.answer(rpc_error_answer(
        {Reason::kNotFound, "there is nothing at this path: calls go to /api/v1/rpc", std::nullopt},
        nullptr));
    co_return;
  }
  if (exchange.line().method != "POST") {
    HttpAnswer answer =
        rpc_error_answer({Reason::kNoMethod, "calls come by POST", std::nullopt}, nullptr);
    answer.headers.emplace_back("Allow", "POST");
    exchange.answer(std::move(answer));
    co_return;
  }
  const auto body = co_await exchange.body();
  if (!body) {
    exchange.answer(rpc_error(kInvalidRequest, body.error(), nullptr));
    co_return;
  }
  const auto call = read_rpc_call(*body, *only);
  if (!call) {
    exchange.answer(call.error());
    co_return;
  }
  if (app.draining) {
    exchange.answer(rpc_error_answer(about_to_end(), call->id));
    co_return;
  }
  if (std::string sandbox = text_of(call->params, "sandbox"); !sandbox.empty()) {
    co_await app.sandboxes.refresh(exchange.key, space_of(call->params, exchange.key),
                                   std::move(sandbox));
  }
  const auto* method = std::ranges::find(kMethods, call->method, &NamedMethod::name);
  auto result = co_await method->method(app, exchange.key, call->params);
  if (!result) {
    exchange.answer(rpc_error_answer(result.error(), call->id));
    co_return;
  }
  exchange.answer(rpc_answer(*call, std::move(*result), *only));
}

}  // namespace msb::server
