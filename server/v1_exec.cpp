// SPDX-License-Identifier: Apache-2.0
// Starting processes: those that run to their end for one request, and those that the guest keeps.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "oci/base64.hpp"
#include "sandbox/spec_words.hpp"
#include "server/v1.hpp"
#include "server/v1_exits.hpp"
#include "server/v1_streams.hpp"

namespace msb::server::v1 {

namespace {

using protocol::Exited;

constexpr std::size_t kMaxOutput = std::size_t{8} << 20;  // of each stream, in one document

std::uint32_t read_timeout(const Json& body) {
  constexpr double kMilliseconds = 1000;
  return static_cast<std::uint32_t>(std::ceil(body.value("timeout", 0.0) * kMilliseconds));
}

Outcome<protocol::ProcessSpec> read_spec(const Json& body) {
  protocol::ProcessSpec spec;
  spec.arguments = body.value("command", std::vector<std::string>());
  spec.environment = body.value("envs", std::vector<std::string>());
  spec.directory = body.value("workdir", "");
  spec.user = body.value("user", "");
  spec.timeout_ms = read_timeout(body);
  spec.create_directory = spec.directory.empty();  // the image's own may be missing
  spec.input = false;
  for (const std::string& variable : spec.environment) {
    if (auto good = sandbox::check_env(variable); !good) {
      return refuse(Reason::kInvalid, good.error().within("envs"));
    }
  }
  return spec;
}

// Nothing when the command gets no input.
Outcome<std::optional<std::string>> read_input(const Json& body) {
  const bool text = body.contains("stdin");
  if (!body.contains("stdin_base64")) {
    return text ? std::optional(body.value("stdin", "")) : std::nullopt;
  }
  if (text) {
    return refuse(Reason::kInvalid, "\"body\" has \"stdin\" or \"stdin_base64\", and not both");
  }
  auto bytes = oci::decode_base64(body.value("stdin_base64", ""));
  if (!bytes) {
    return refuse(Reason::kInvalid,
                  "\"body.stdin_base64\" is no base64 (RFC 4648, section 4, with padding)");
  }
  return bytes;
}

// A process of the sandbox of a call, which has started.
struct NewProcess {
  Served served;
  std::unique_ptr<GuestProcess> process;
  GuestProcess::Started started;
};

// `input`: all that it gets, when that is known.
Async<Outcome<NewProcess>> begin(Call& call, protocol::ProcessSpec spec,
                                 std::optional<std::string> input) {
  const auto served = find_running_sandbox(call);
  if (!served) {
    co_return std::unexpected(served.error());
  }
  auto process = (*served)->guest->start(std::move(spec));
  if (!process) {
    co_return std::unexpected(process.error());
  }
  if (input) {
    (*process)->send_input(std::as_bytes(std::span(*input)));
    (*process)->end_input();
  }
  const auto event = co_await (*process)->next();
  if (const auto* problem = std::get_if<Problem>(&event)) {
    co_return std::unexpected(*problem);
  }
  const auto* started = std::get_if<GuestProcess::Started>(&event);
  if (started == nullptr) {
    co_return refuse(Reason::kFailed, "the sandbox's agent said no start");
  }
  NewProcess begun{*served, std::move(*process), *started};
  co_return begun;
}

Async<Outcome<HttpAnswer>> collect_execution(GuestProcess& process) {
  std::array<std::string, 2> texts;
  bool truncated = false;
  while (true) {
    auto event = co_await process.next();
    if (auto* problem = std::get_if<Problem>(&event)) {
      co_return std::unexpected(std::move(*problem));
    }
    if (const auto* exited = std::get_if<Exited>(&event)) {
      Json document = describe_exit(*exited);
      document["stdout"] = std::move(texts[MSB_STREAM_STDOUT]);
      document["stderr"] = std::move(texts[MSB_STREAM_STDERR]);
      document["truncated"] = truncated;
      co_return json_answer(document);
    }
    if (const auto* output = std::get_if<GuestProcess::Output>(&event)) {
      std::string& text = texts.at(output->stream);
      const std::size_t taken = std::min(output->bytes.size(), kMaxOutput - text.size());
      text.append(reinterpret_cast<const char*>(output->bytes.data()), taken);
      truncated = truncated || taken < output->bytes.size();
    }
  }
}

Async<> stream_execution(EventStream& stream, GuestProcess& process,
                         GuestProcess::Started started) {
  Json first = {{"event", "started"}, {"id", started.process}, {"pid", started.pid}};
  co_await stream.send(std::move(first));
  OutputEvents outputs;
  while (true) {
    auto event = co_await process.next();
    if (const auto* output = std::get_if<GuestProcess::Output>(&event)) {
      if (auto told = outputs.add(output->stream, output->bytes, output->offset)) {
        co_await stream.send(std::move(*told));
      }
      continue;
    }
    co_await stream.send_all(outputs.rest());
    if (const auto* exited = std::get_if<Exited>(&event)) {
      Json last = exited_event(*exited);
      co_return co_await stream.send(std::move(last));
    }
    if (auto* problem = std::get_if<Problem>(&event)) {
      co_return co_await stream.send_failure(std::move(*problem));
    }
  }
}

}  // namespace

Async<Outcome<HttpAnswer>> execute(Call& call) {
  auto spec = read_spec(call.body);
  if (!spec) {
    co_return std::unexpected(spec.error());
  }
  auto input = read_input(call.body);
  if (!input) {
    co_return std::unexpected(input.error());
  }
  spec->input = input->has_value();
  const auto begun = co_await begin(call, std::move(*spec), std::move(*input));
  if (!begun) {
    co_return std::unexpected(begun.error());
  }
  const auto format = stream_format(call.exchange.header("Accept"));
  if (!format) {
    co_return co_await collect_execution(*begun->process);
  }
  EventStream stream(call.exchange, *format);
  co_await stream.begin();
  co_await stream_execution(stream, *begun->process, begun->started);
  co_await stream.end();
  co_return HttpAnswer{};
}

Async<Outcome<HttpAnswer>> start_process(Call& call) {
  auto spec = read_spec(call.body);
  if (!spec) {
    co_return std::unexpected(spec.error());
  }
  spec->label = call.body.value("label", "");
  spec->keep = call.body.value("keep", 0U);
  if (const auto terminal = call.body.find("terminal"); terminal != call.body.end()) {
    spec->terminal = protocol::TerminalSize{terminal->value("rows", std::uint16_t{0}),
                                            terminal->value("columns", std::uint16_t{0})};
  }
  spec->input = spec->terminal.has_value() || call.body.value("input", false);
  std::optional<std::string> later;
  const auto begun = co_await begin(call, std::move(*spec), std::move(later));
  if (!begun) {
    co_return std::unexpected(begun.error());
  }
  const GuestProcess::Started& started = begun->started;
  HttpAnswer answer = json_answer({{"id", started.process}, {"pid", started.pid}}, kCreated);
  answer.headers.emplace_back(
      "Location", fmt::format("/v1/sandboxes/{}/processes/{}?namespace={}", begun->served->name,
                              started.process, begun->served->space));
  co_return answer;
}

}  // namespace msb::server::v1
