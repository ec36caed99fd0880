// SPDX-License-Identifier: Apache-2.0
#include "cli/running.hpp"

#include <fmt/ranges.h>

#include <chrono>
#include <utility>

#include "cli/starting.hpp"
#include "cli/target.hpp"
#include "cli/text.hpp"
#include "oci/printable.hpp"
#include "sandbox/control_client.hpp"
#include "sandbox/disk.hpp"
#include "sandbox/files.hpp"
#include "sandbox/state_directory.hpp"

namespace msb::cli {

namespace {

using sandbox::Json;
using sandbox::Running;

// The sandboxes of the names, all of which run.
Result<std::vector<Running>> find_all(const NamedWords& words) {
  const auto targets = Targets::look(words.file);
  if (!targets) {
    return std::unexpected(targets.error());
  }
  std::vector<Running> found;
  for (const std::string& name : words.names) {
    const auto target = targets->find_running(name);
    if (!target) {
      return std::unexpected(target.error());
    }
    found.push_back(*target->running);
  }
  return found;
}

Result<Json> status_of(const Running& running) {
  auto client = control(running);
  return client ? client->call("status") : std::unexpected(client.error());
}

std::string address_of(const Json& port) {
  const std::string address = sandbox::text_member(port, "address").value_or("");
  const bool six = address.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", six ? "[" : "", address, six ? "]" : "",
                     sandbox::number_member(port, "host_port").value_or(0));
}

Json published(const Json& status) {
  const auto network = status.find("network");
  if (network == status.end() || !network->is_object()) {
    return Json::array();
  }
  const auto ports = network->find("published");
  return ports != network->end() && ports->is_array() ? *ports : Json::array();
}

std::string ports_text(const Json& status) {
  std::vector<std::string> texts;
  for (const Json& port : published(status)) {
    texts.push_back(fmt::format("{}->{}/{}", address_of(port),
                                sandbox::number_member(port, "guest_port").value_or(0),
                                sandbox::text_member(port, "protocol").value_or("")));
  }
  return fmt::format("{}", fmt::join(texts, ", "));
}

std::string age_text(const Json& status) {
  const std::int64_t uptime = sandbox::number_member(status, "uptime_ms").value_or(0);
  return format_duration(std::chrono::seconds(uptime / 1000));
}

// As its Sandboxfile says it: what runs is one image of that name, by its digest.
std::string image_name(const Running& running, const Json& status) {
  if (!running.who.state.empty()) {
    const auto pinned = sandbox::StateDirectory(running.who.state).image();
    if (pinned && *pinned) {
      return (*pinned)->reference;
    }
  }
  return sandbox::text_member(status, "image").value_or("-");
}

Json describe(const Running& running) {
  return {{"id", running.id},
          {"name", running.who.name},
          {"kind", sandbox::kind_word(running.who.kind)},
          {"project", running.who.project},
          {"state", running.who.state}};
}

}  // namespace

Result<void> ps(Format format) {
  const auto running = sandbox::list_running();
  if (!running) {
    return std::unexpected(running.error());
  }
  Json documents = Json::array();
  std::vector<std::vector<std::string>> rows = {
      {"ID", "NAME", "IMAGE", "STATUS", "UP", "PORTS", "PROJECT"}};
  for (const Running& one : *running) {
    // One that is starting, or hangs, does not keep the others from being shown.
    auto client = sandbox::ControlClient::connect(one.control_socket());
    const auto status = client ? client->call("status", Json::object(), std::chrono::seconds(2))
                               : std::unexpected(client.error());
    Json document = describe(one);
    document["status"] = status ? *status : Json();
    const Json known = status ? *status : Json::object();
    rows.push_back({one.id, one.who.name, oci::printable(image_name(one, known), 40),
                    sandbox::text_member(known, "state").value_or("starting"),
                    status ? age_text(known) : "-", ports_text(known),
                    oci::printable(one.who.project, 60)});
    documents.push_back(std::move(document));
  }
  return format == Format::kJson ? print_json(documents) : print(format_table(rows));
}

Result<void> inspect(const NamedWords& words) {
  const auto targets = Targets::look(words.file);
  if (!targets) {
    return std::unexpected(targets.error());
  }
  Json documents = Json::array();
  for (const std::string& name : words.names) {
    const auto target = targets->find(name);
    if (!target) {
      return std::unexpected(target.error());
    }
    Json document = target->running ? describe(*target->running)
                                    : Json{{"name", target->who.name},
                                           {"kind", sandbox::kind_word(target->who.kind)},
                                           {"project", target->who.project},
                                           {"state", target->who.state}};
    document["running"] = target->running.has_value();
    if (target->running) {
      const auto status = status_of(*target->running);
      if (!status) {
        return std::unexpected(status.error());
      }
      document["status"] = *status;
    }
    if (!target->who.state.empty()) {
      const sandbox::StateDirectory state(target->who.state);
      document["disk"] = {{"path", state.disk()}, {"space", sandbox::space_of(state.disk())}};
      const auto image = state.image();
      if (image && *image) {
        document["image"] = {{"reference", (*image)->reference}, {"digest", (*image)->digest}};
      }
      if (const auto record = state.exit_record(); record && *record) {
        document["exit"] = {
            {"status", (*record)->status},     {"cause", (*record)->cause},
            {"message", (*record)->message},   {"started_ms", (*record)->started_ms},
            {"ended_ms", (*record)->ended_ms}, {"kernel", (*record)->kernel}};
      }
    }
    documents.push_back(std::move(document));
  }
  return print_json(documents);
}

Result<void> show_ports(const NamedWords& words) {
  const auto found = find_all(words);
  if (!found) {
    return std::unexpected(found.error());
  }
  Json documents = Json::array();
  std::string lines;
  for (const Running& running : *found) {
    const auto status = status_of(running);
    if (!status) {
      return std::unexpected(status.error());
    }
    for (const Json& port : published(*status)) {
      lines += fmt::format("{}/{} -> {}\n", sandbox::number_member(port, "guest_port").value_or(0),
                           sandbox::text_member(port, "protocol").value_or(""), address_of(port));
      documents.push_back(port);
    }
  }
  return words.format == Format::kJson ? print_json(documents) : print(lines);
}

Result<void> stop(const NamedWords& words, const StopWords& how) {
  const auto found = find_all(words);
  return found ? stop_all(*found, how) : std::unexpected(found.error());
}

Result<void> set_paused(const NamedWords& words, const std::string& method) {
  const auto found = find_all(words);
  if (!found) {
    return std::unexpected(found.error());
  }
  for (const Running& running : *found) {
    auto client = control(running);
    const auto done = client ? client->call(method) : std::unexpected(client.error());
    if (!done) {
      return std::unexpected(done.error().within(running.who.name));
    }
  }
  return {};
}

Result<int> wait_for_sandboxes(const NamedWords& words) {
  const auto found = find_all(words);
  if (!found) {
    return std::unexpected(found.error());
  }
  int status = 0;
  for (const Running& running : *found) {
    auto client = control(running);
    const auto subscribed = client ? client->call("subscribe") : std::unexpected(client.error());
    if (!subscribed) {
      return std::unexpected(subscribed.error());
    }
    std::optional<std::int64_t> ended;
    while (true) {
      const auto event = client->next_event();
      if (!event) {
        return std::unexpected(event.error());
      }
      if (!*event) {
        break;
      }
      if (sandbox::text_member(**event, "event") == "stopped") {
        ended = sandbox::number_member(**event, "exit_status");
      }
    }
    if (!ended) {
      return fail("'{}' ended without saying how: its supervisor was killed", running.who.name);
    }
    status = static_cast<int>(*ended);
    if (auto printed = print(fmt::format("{}\n", status)); !printed) {
      return std::unexpected(printed.error());
    }
  }
  return status;
}

Result<int> exec(const NamedWords& words, const ExecWords& how) {
  const auto found = find_all(words);
  return found ? exec_in(found->front(), how) : std::unexpected(found.error());
}

Result<int> attach(const NamedWords& words, bool from_start) {
  const auto found = find_all(words);
  if (!found) {
    return std::unexpected(found.error());
  }
  std::vector<std::string> arguments = {"attach", found->front().agent_socket(), "main"};
  if (from_start) {
    arguments.emplace_back("--from-start");
  }
  return std::unexpected(become_vmm(std::move(arguments)));
}

}  // namespace msb::cli
