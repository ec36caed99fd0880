// SPDX-License-Identifier: Apache-2.0
// The HTTP API /v1. openapi.json says what a client may send, and every request is held against it
// before one of the operations below gets it; their answers are as it says, which tests check.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "server/app.hpp"
#include "server/exchange.hpp"
#include "server/problem.hpp"
#include "server/sandboxes.hpp"

namespace msb::server::v1 {

// A request. All three documents are objects that have passed their schemas; what is optional may
// be missing.
struct Call {
  App& app;
  Exchange& exchange;
  std::string space;  // the namespace that it is about
  Json path;          // what stands for the names in the operation's path
  Json query;
  Json body;  // empty when the operation takes none, or one that is no JSON
};

// Gives the answer, or has given one by Exchange::begin(): then what it returns has no effect.
using Operation = Async<Outcome<HttpAnswer>> (*)(Call& call);

struct Route {
  std::string_view method;
  std::string_view path;  // "/v1/sandboxes/{name}", as in the document
  Operation operation;
};
std::span<const Route> routes();

// The document that is served.
const Json& document();

// The schemas of a request, out of the document.
struct Expectation {
  Json path;
  Json query;
  Json body;  // null: the operation takes none, or one that is no JSON
};
// Null for an operation that the document does not have.
const Expectation* expectation(std::string_view method, std::string_view path);

// The sandbox of the call's path, and the same when it has to run.
Outcome<Served> find_sandbox(const Call& call);
Outcome<Served> find_running_sandbox(const Call& call);

inline constexpr unsigned kCreated = 201;
HttpAnswer no_content();

// v1.cpp
Async<Outcome<HttpAnswer>> get_health(Call& call);
Async<Outcome<HttpAnswer>> get_openapi(Call& call);
Async<Outcome<HttpAnswer>> get_server(Call& call);

// v1_sandboxes.cpp
Async<Outcome<HttpAnswer>> create_sandbox(Call& call);
Async<Outcome<HttpAnswer>> list_sandboxes(Call& call);
Async<Outcome<HttpAnswer>> get_sandbox(Call& call);
Async<Outcome<HttpAnswer>> remove_sandbox(Call& call);
Async<Outcome<HttpAnswer>> start_sandbox(Call& call);
Async<Outcome<HttpAnswer>> stop_sandbox(Call& call);
Async<Outcome<HttpAnswer>> pause_sandbox(Call& call);
Async<Outcome<HttpAnswer>> resume_sandbox(Call& call);
Async<Outcome<HttpAnswer>> list_ports(Call& call);
Async<Outcome<HttpAnswer>> get_metrics(Call& call);
Async<Outcome<HttpAnswer>> list_metrics(Call& call);

// v1_logs.cpp
Async<Outcome<HttpAnswer>> get_logs(Call& call);

// v1_exec.cpp
Async<Outcome<HttpAnswer>> execute(Call& call);
Async<Outcome<HttpAnswer>> start_process(Call& call);

// v1_processes.cpp
Async<Outcome<HttpAnswer>> list_processes(Call& call);
Async<Outcome<HttpAnswer>> get_process(Call& call);
Async<Outcome<HttpAnswer>> get_process_output(Call& call);
Async<Outcome<HttpAnswer>> write_process_input(Call& call);
Async<Outcome<HttpAnswer>> resize_process(Call& call);
Async<Outcome<HttpAnswer>> signal_process(Call& call);
Async<Outcome<HttpAnswer>> wait_for_process(Call& call);
Async<Outcome<HttpAnswer>> remove_process(Call& call);

// v1_code.cpp
Async<Outcome<HttpAnswer>> run_code(Call& call);
Async<Outcome<HttpAnswer>> list_sessions(Call& call);
Async<Outcome<HttpAnswer>> interrupt_session(Call& call);
Async<Outcome<HttpAnswer>> close_session(Call& call);

// v1_files.cpp
Async<Outcome<HttpAnswer>> read_file(Call& call);
Async<Outcome<HttpAnswer>> write_file(Call& call);
Async<Outcome<HttpAnswer>> pack_files(Call& call);
Async<Outcome<HttpAnswer>> unpack_files(Call& call);
Async<Outcome<HttpAnswer>> list_files(Call& call);
Async<Outcome<HttpAnswer>> stat_file(Call& call);
Async<Outcome<HttpAnswer>> make_directory(Call& call);
Async<Outcome<HttpAnswer>> move_file(Call& call);
Async<Outcome<HttpAnswer>> remove_file(Call& call);

// v1_images.cpp
Async<Outcome<HttpAnswer>> list_images(Call& call);
Async<Outcome<HttpAnswer>> get_image(Call& call);
Async<Outcome<HttpAnswer>> pull_image(Call& call);
Async<Outcome<HttpAnswer>> remove_image(Call& call);

}  // namespace msb::server::v1
