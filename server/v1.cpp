// SPDX-License-Identifier: Apache-2.0
#include "server/v1.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <map>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "oci/printable.hpp"
#include "server/client_spec.hpp"
#include "server/openapi.hpp"
#include "server/run_results.hpp"
#include "server/schema.hpp"

namespace msb::server {

namespace v1 {

namespace {

constexpr std::string_view kNamespace = "namespace";

constexpr auto kRoutes = std::to_array<Route>({
    {"GET", "/v1/health", get_health},
    {"GET", "/v1/openapi.json", get_openapi},
    {"GET", "/v1/server", get_server},
    {"GET", "/v1/metrics", list_metrics},

    {"POST", "/v1/sandboxes", create_sandbox},
    {"GET", "/v1/sandboxes", list_sandboxes},
    {"GET", "/v1/sandboxes/{name}", get_sandbox},
    {"DELETE", "/v1/sandboxes/{name}", remove_sandbox},
    {"POST", "/v1/sandboxes/{name}/start", start_sandbox},
    {"POST", "/v1/sandboxes/{name}/stop", stop_sandbox},
    {"POST", "/v1/sandboxes/{name}/pause", pause_sandbox},
    {"POST", "/v1/sandboxes/{name}/resume", resume_sandbox},
    {"GET", "/v1/sandboxes/{name}/ports", list_ports},
    {"GET", "/v1/sandboxes/{name}/metrics", get_metrics},
    {"GET", "/v1/sandboxes/{name}/logs", get_logs},

    {"POST", "/v1/sandboxes/{name}/exec", execute},
    {"POST", "/v1/sandboxes/{name}/processes", start_process},
    {"GET", "/v1/sandboxes/{name}/processes", list_processes},
    {"GET", "/v1/sandboxes/{name}/processes/{id}", get_process},
    {"DELETE", "/v1/sandboxes/{name}/processes/{id}", remove_process},
    {"GET", "/v1/sandboxes/{name}/processes/{id}/output", get_process_output},
    {"POST", "/v1/sandboxes/{name}/processes/{id}/stdin", write_process_input},
    {"POST", "/v1/sandboxes/{name}/processes/{id}/resize", resize_process},
    {"POST", "/v1/sandboxes/{name}/processes/{id}/signal", signal_process},
    {"GET", "/v1/sandboxes/{name}/processes/{id}/wait", wait_for_process},

    {"POST", "/v1/sandboxes/{name}/code", run_code},
    {"GET", "/v1/sandboxes/{name}/sessions", list_sessions},
    {"DELETE", "/v1/sandboxes/{name}/sessions/{language}/{session}", close_session},
    {"POST", "/v1/sandboxes/{name}/sessions/{language}/{session}/interrupt", interrupt_session},

    {"GET", "/v1/sandboxes/{name}/files", list_files},
    {"DELETE", "/v1/sandboxes/{name}/files", remove_file},
    {"GET", "/v1/sandboxes/{name}/files/stat", stat_file},
    {"GET", "/v1/sandboxes/{name}/files/content", read_file},
    {"PUT", "/v1/sandboxes/{name}/files/content", write_file},
    {"GET", "/v1/sandboxes/{name}/files/tar", pack_files},
    {"PUT", "/v1/sandboxes/{name}/files/tar", unpack_files},
    {"POST", "/v1/sandboxes/{name}/files/directories", make_directory},
    {"POST", "/v1/sandboxes/{name}/files/move", move_file},

    {"GET", "/v1/images", list_images},
    {"POST", "/v1/images", pull_image},
    {"DELETE", "/v1/images", remove_image},
    {"GET", "/v1/images/{image}", get_image},
});

// The names in a path, if the template is its own.
std::optional<Json> match(std::string_view pattern, const std::vector<std::string>& segments) {
  Json names = Json::object();
  for (const std::string& segment : segments) {
    if (pattern.empty()) {
      return std::nullopt;
    }
    pattern.remove_prefix(1);
    const std::string_view expected = pattern.substr(0, pattern.find('/'));
    if (expected.starts_with('{')) {
      names[std::string(expected.substr(1, expected.size() - 2))] = segment;
    } else if (expected != segment) {
      return std::nullopt;
    }
    pattern.remove_prefix(expected.size());
  }
  return pattern.empty() ? std::optional(std::move(names)) : std::nullopt;
}

struct Match {
  const Route* route = nullptr;
  Json names;
  std::string methods;  // of all routes with this path
};

Match find_route(const RequestLine& line) {
  Match found;
  for (const Route& route : kRoutes) {
    auto names = match(route.path, line.path);
    if (!names) {
      continue;
    }
    found.methods += fmt::format("{}{}", found.methods.empty() ? "" : ", ", route.method);
    if (route.method == line.method) {
      found.route = &route;
      found.names = std::move(*names);
    }
  }
  return found;
}

// What a text of a path or a query is, by its schema; a text where it is nothing else, of which the
// schema then says what is wrong.
Json typed(const std::string& text, const Json& schema) {
  const std::string type = schema.value("type", "string");
  const char* end = text.data() + text.size();
  if (type == "integer") {
    std::int64_t number = 0;
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    return error == std::errc() && rest == end ? Json(number) : Json(text);
  }
  if (type == "boolean" && (text == "true" || text == "false")) {
    return text == "true";
  }
  return text;
}

template <typename Texts>
Json typed_members(const Texts& texts, const Json& schema) {
  static const Json kUnknown = Json::object();
  Json members = Json::object();
  const Json& properties = schema["properties"];
  for (const auto& [name, text] : texts) {
    const auto property = properties.find(name);
    members[name] = typed(text, property == properties.end() ? kUnknown : *property);
  }
  return members;
}

Outcome<void> check(const Json& schema, const Json& value, std::string_view name) {
  if (const auto good = check_schema(schema, value, name, document()); !good) {
    return refuse(good.error().code == kBadSchema ? Reason::kInternal : Reason::kInvalid,
                  good.error());
  }
  return {};
}

bool is_json(std::string_view type) {
  constexpr std::string_view kJson = "application/json";
  type = type.substr(0, type.find(';'));
  while (type.ends_with(' ')) {
    type.remove_suffix(1);
  }
  return std::ranges::equal(type, kJson, [](char a, char b) {
    return (a >= 'A' && a <= 'Z' ? static_cast<char>(a | 0x20) : a) == b;
  });
}

Async<Outcome<Json>> read_body(Exchange& exchange, const Json& schema) {
  const auto type = exchange.header("Content-Type");
  auto text = co_await exchange.body();
  if (!text) {
    co_return std::unexpected(text.error());
  }
  if (!text->empty() && !is_json(type)) {
    co_return refuse(Reason::kInvalid,
                     "the body is to be JSON, and said so by `Content-Type: application/json`");
  }
  auto body = parse_body(*text);
  if (!body) {
    co_return std::unexpected(body.error());
  }
  if (auto good = check(schema, *body, "body"); !good) {
    co_return std::unexpected(good.error());
  }
  co_return std::move(*body);
}

HttpAnswer method_not_allowed(const Exchange& exchange, const Match& match) {
  HttpAnswer answer = error_answer(
      {Reason::kNoMethod,
       fmt::format("{} is no method of {}; it has {}", oci::printable(exchange.line().method),
                   oci::printable(exchange.line().path_text), match.methods),
       std::nullopt},
      exchange.id());
  answer.headers.emplace_back("Allow", match.methods);
  return answer;
}

Async<Outcome<HttpAnswer>> answer_call(App& app, Exchange& exchange) {
  Match match = find_route(exchange.line());
  if (match.route == nullptr) {
    if (!match.methods.empty()) {
      co_return method_not_allowed(exchange, match);
    }
    co_return refuse(Reason::kNotFound,
                     "there is nothing at this path; /v1/openapi.json says what there is");
  }
  if (exchange.key.scope.read_only && match.route->method != "GET") {
    co_return refuse(Reason::kForbidden, "the key {} is read-only: it may use GET, and no {}",
                     exchange.key.id, match.route->method);
  }
  if (app.draining) {
    co_return std::unexpected(about_to_end());
  }
  const Expectation* expected = expectation(match.route->method, match.route->path);
  if (expected == nullptr) {
    co_return refuse(Reason::kInternal, "the document has no {} of {}", match.route->method,
                     match.route->path);
  }
  const auto names = match.names.get<std::map<std::string, std::string>>();
  Call call{app,
            exchange,
            "",
            typed_members(names, expected->path),
            typed_members(exchange.line().query, expected->query),
            Json::object()};
  if (auto good = check(expected->path, call.path, "path"); !good) {
    co_return std::unexpected(good.error());
  }
  if (auto good = check(expected->query, call.query, "query"); !good) {
    co_return std::unexpected(good.error());
  }
  if (!expected->body.is_null()) {
    auto body = co_await read_body(exchange, expected->body);
    if (!body) {
      co_return std::unexpected(body.error());
    }
    call.body = std::move(*body);
  }
  call.space = call.query.value(kNamespace, default_space(exchange.key));
  const Json& naming = call.path.contains("name") ? call.path : call.body;
  if (naming.contains("name")) {
    std::string name = naming["name"].get<std::string>();
    co_await app.sandboxes.refresh(exchange.key, call.space, std::move(name));
  }
  co_return co_await match.route->operation(call);
}

// A member of the document, or what it refers to there.
const Json& resolved(const Json& root, const Json& member) {
  const auto reference = member.find("$ref");
  return reference == member.end()
             ? member
             : root.at(Json::json_pointer(reference->get<std::string>().substr(1)));
}

// The schema of an object that has the parameters of one place ("path", "query") as its members.
Json schema_of(const Json& root, const Json& parameters, std::string_view place) {
  Json schema = {{"type", "object"},
                 {"additionalProperties", false},
                 {"properties", Json::object()},
                 {"required", Json::array()}};
  for (const Json& one : parameters) {
    const Json& parameter = resolved(root, one);
    if (parameter["in"] != place) {
      continue;
    }
    schema["properties"][parameter["name"].get<std::string>()] = parameter["schema"];
    if (parameter.value("required", false)) {
      schema["required"].push_back(parameter["name"]);
    }
  }
  return schema;
}

Expectation expectation_of(const Json& root, const Json& path, const Json& operation) {
  Json parameters = path.value("parameters", Json::array());
  for (const Json& parameter : operation.value("parameters", Json::array())) {
    parameters.push_back(parameter);
  }
  const Json content = operation.value(Json::json_pointer("/requestBody/content"), Json::object());
  const auto json = content.find("application/json");
  return {schema_of(root, parameters, "path"), schema_of(root, parameters, "query"),
          json == content.end() ? Json() : (*json)["schema"]};
}

std::map<std::string, Expectation, std::less<>> read_expectations() {
  std::map<std::string, Expectation, std::less<>> all;
  for (const auto& [path, item] : document()["paths"].items()) {
    for (const auto& [member, operation] : item.items()) {
      if (member != "parameters") {
        std::string method = member;
        std::ranges::transform(method, method.begin(),
                               [](char c) { return static_cast<char>(c & ~0x20); });
        all.emplace(fmt::format("{} {}", method, path),
                    expectation_of(document(), item, operation));
      }
    }
  }
  return all;
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

}  // namespace

std::span<const Route> routes() {
  return kRoutes;
}

const Json& document() {
  static const Json whole = [] {
    Json read = Json::parse(kOpenApi);
    read["info"]["version"] = MSB_VERSION;
    read["components"]["schemas"]["Config"] = config_schema();
    return read;
  }();
  return whole;
}

const Expectation* expectation(std::string_view method, std::string_view path) {
  static const auto all = read_expectations();
  const auto found = all.find(fmt::format("{} {}", method, path));
  return found == all.end() ? nullptr : &found->second;
}

Outcome<Served> find_sandbox(const Call& call) {
  return call.app.sandboxes.find(call.exchange.key, call.space, call.path.value("name", ""));
}

Outcome<Served> find_running_sandbox(const Call& call) {
  return call.app.sandboxes.find_running(call.exchange.key, call.space,
                                         call.path.value("name", ""));
}

HttpAnswer no_content() {
  constexpr unsigned kNoContent = 204;
  return {kNoContent, "", "", {}};
}

Async<Outcome<HttpAnswer>> get_health(Call& /*call*/) {
  co_return json_answer({{"message", "Service is healthy"}});
}

Async<Outcome<HttpAnswer>> get_openapi(Call& /*call*/) {
  static const std::string text = to_text(document());
  HttpAnswer answer;
  answer.body = text;
  co_return answer;
}

Async<Outcome<HttpAnswer>> get_server(Call& call) {
  const Settings& settings = call.app.sandboxes.settings();
  const Key& key = call.exchange.key;
  const Json limits = {{"sandboxes", settings.max_sandboxes},
                       {"memory_mib", or_null(settings.max_memory_mib)},
                       {"sandbox_memory_mib", settings.max_sandbox_memory_mib},
                       {"sandbox_cpus", settings.max_cpus},
                       {"sandbox_disk_mib", settings.max_disk_mib},
                       {"sandbox_processes", or_null(settings.max_processes)},
                       {"sandbox_lifetime_s", or_null(settings.max_lifetime_s)},
                       {"body_bytes", kMaxBody}};
  const Json shown = {{"id", key.id},
                      {"name", key.name},
                      {"namespace", key.scope.space},
                      {"read_only", key.scope.read_only},
                      {"max_sandboxes", or_null(key.scope.max_sandboxes)},
                      {"max_memory_mib", or_null(key.scope.max_memory_mib)},
                      {"max_lifetime_s", or_null(key.scope.max_lifetime_s)},
                      {"expires_at", key.expires_ms ? Json(format_time(*key.expires_ms)) : Json()}};
  co_return json_answer({{"version", MSB_VERSION}, {"limits", limits}, {"key", shown}});
}

}  // namespace v1

Async<> serve_v1(App& app, Exchange& exchange) {
  auto answer = co_await v1::answer_call(app, exchange);
  if (!exchange.begun()) {
    exchange.answer(answer ? std::move(*answer) : error_answer(answer.error(), exchange.id()));
  }
}

}  // namespace msb::server
