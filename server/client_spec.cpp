// SPDX-License-Identifier: Apache-2.0
#include "server/client_spec.hpp"

#include <cmath>
#include <ctime>

#include "sandbox/spec_json.hpp"
#include "sandbox/spec_words.hpp"

namespace msb::server {

namespace {

using sandbox::SandboxSpec;

constexpr const char* kSchema = R"({
  "type": ["object", "null"],
  "additionalProperties": false,
  "properties": {
    "image": {"type": ["string", "null"], "maxLength": 1024,
      "description": "An OCI image, for example \"python:3.12-slim\" or \"ghcr.io/me/app:1\"."},
    "cpus": {"type": ["number", "null"], "minimum": 0.01, "maximum": 64,
      "description": "Virtual processors; 1 unless said. Rounded up to a whole number."},
    "memory": {"type": ["integer", "string", "null"], "minimum": 1, "maxLength": 20,
      "description": "Memory in MiB, or with a unit: 512, \"1G\". 512 unless said."},
    "disk": {"type": ["integer", "string", "null"], "minimum": 1, "maxLength": 20,
      "description": "The most that it may write, in MiB or with a unit: \"20G\"."},
    "processes": {"type": ["integer", "null"], "minimum": 1,
      "description": "The most processes and threads at a time."},
    "volumes": {"type": ["array", "null"], "maxItems": 60, "items": {"type": "string", "maxLength": 8192},
      "description": "Directories of the server's host that its operator allows: \"/srv/data:/data:ro\"."},
    "ports": {"type": ["array", "null"], "maxItems": 1000, "items": {"type": ["string", "integer"], "maxLength": 100},
      "description": "Published ports, \"HOST:GUEST\": \"8080:80\"; with 0 for HOST a free one is taken."},
    "envs": {"type": ["array", "null"], "maxItems": 4096, "items": {"type": "string", "maxLength": 131072},
      "description": "Variables of its programs: \"NAME=VALUE\"."},
    "depends_on": {"type": ["array", "null"], "maxItems": 0, "description": "For Sandboxfiles alone."},
    "workdir": {"type": ["string", "null"], "maxLength": 4096,
      "description": "Where its programs start, an absolute path."},
    "user": {"type": ["string", "null"], "maxLength": 256, "description": "As whom: USER or USER:GROUP."},
    "shell": {"type": ["string", "null"], "maxLength": 4096, "description": "The program of its shell."},
    "scripts": {"type": ["object", "null"], "additionalProperties": {"type": "string"},
      "description": "Programs by name, on its PATH; \"start\" runs in it, and it ends with that."},
    "exec": {"type": ["string", "null"], "maxLength": 131072,
      "description": "A program to run in it, with whose end it ends."},
    "command": {"type": ["array", "null"], "maxItems": 4096, "items": {"type": "string", "maxLength": 131072},
      "description": "The same with arguments: [\"python3\", \"server.py\"]."},
    "use_image_command": {"type": ["boolean", "null"],
      "description": "Run what the image says, with whose end it ends. Else it is idle until it is used."},
    "scope": {"enum": ["none", "local", "group", "public", "any", null],
      "description": "What it may reach on the network; \"public\" unless said: the internet and nothing local."},
    "network": {"type": ["array", "null"], "maxItems": 256, "items": {"type": "string", "maxLength": 1024},
      "description": "Rules that decide before the scope: \"deny tcp any 25\"; with \"allow\" where the operator allows the scope \"any\"."},
    "timeout": {"type": ["integer", "string", "null"], "minimum": 1, "maxLength": 20,
      "description": "It is stopped after so long: seconds, or \"30m\"."},
    "idle_timeout": {"type": ["integer", "string", "null"], "minimum": 1, "maxLength": 20,
      "description": "It is stopped when nothing was asked of it for so long: seconds, or \"10m\"."}
  }
})";

// The member as a word, whether it was a number or a text; empty when it is not there.
std::string word_of(const Json& config, const char* name) {
  const auto found = config.find(name);
  if (found == config.end() || found->is_null()) {
    return "";
  }
  return found->is_string() ? found->get<std::string>() : found->dump();
}

std::vector<std::string> words_of(const Json& config, const char* name) {
  std::vector<std::string> words;
  if (const auto found = config.find(name); found != config.end() && found->is_array()) {
    for (const Json& word : *found) {
      words.push_back(word.is_string() ? word.get<std::string>() : word.dump());
    }
  }
  return words;
}

// Reads members one after the other until one is wrong.
class Reader {
 public:
  explicit Reader(const Json& config) : config_(config) {}

  template <typename T, typename Parse>
  void value(const char* name, T& to, Parse parse) {
    const std::string word = word_of(config_, name);
    if (word.empty() || error_) {
      return;
    }
    auto parsed = parse(word);
    if (parsed) {
      to = *parsed;
    } else {
      error_ = parsed.error().within(name);
    }
  }
  template <typename Check>
  void text(const char* name, std::string& to, Check check) {
    const std::string word = word_of(config_, name);
    keep(name, word.empty() ? Result<void>() : check(word));
    to = word;
  }
  template <typename Check>
  void texts(const char* name, std::vector<std::string>& to, Check check) {
    to = words_of(config_, name);
    for (std::size_t i = 0; i < to.size(); ++i) {
      keep(fmt::format("{}[{}]", name, i), check(to[i]));
    }
  }
  void keep(const std::string& name, const Result<void>& checked) {
    if (!checked && !error_) {
      error_ = checked.error().within(name);
    }
  }
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

 private:
  const Json& config_;
  std::optional<Error> error_;
};

void read_volumes(const Json& config, Reader& reader, SandboxSpec& spec) {
  const auto words = words_of(config, "volumes");
  for (std::size_t i = 0; i < words.size(); ++i) {
    auto volume = sandbox::parse_volume(words[i]);
    if (volume) {
      spec.volumes.push_back(std::move(*volume));
    } else {
      reader.keep(fmt::format("volumes[{}]", i), std::unexpected(volume.error()));
    }
  }
}

void read_scripts(const Json& config, Reader& reader, SandboxSpec& spec) {
  const auto scripts = config.find("scripts");
  if (scripts == config.end() || !scripts->is_object()) {
    return;
  }
  for (const auto& [name, body] : scripts->items()) {
    reader.keep("scripts", sandbox::check_script_name(name));
    spec.scripts[name] = body.get<std::string>();
  }
}

}  // namespace

const Json& config_schema() {
  static const Json schema = Json::parse(kSchema);
  return schema;
}

Outcome<Record> read_config(const Json& config) {
  Record record;
  if (config.is_null()) {
    return record;
  }
  SandboxSpec& spec = record.spec;
  Reader reader(config);
  spec.image = word_of(config, "image");
  if (const auto cpus = config.find("cpus"); cpus != config.end() && cpus->is_number()) {
    // 0.2 clients have fractions of a processor, which is what a quota would be.
    spec.cpus = static_cast<std::uint32_t>(std::ceil(cpus->get<double>()));
  }
  reader.value("memory", spec.memory_mib, sandbox::parse_memory);
  reader.value("disk", spec.disk_mib, sandbox::parse_disk);
  reader.value("processes", spec.processes, sandbox::parse_processes);
  read_volumes(config, reader, spec);
  reader.texts("ports", spec.ports, sandbox::check_port);
  reader.texts("envs", spec.envs, sandbox::check_env);
  reader.text("workdir", spec.workdir, sandbox::check_workdir);
  reader.text("user", spec.user, sandbox::check_user);
  reader.text("shell", spec.shell, sandbox::check_shell);
  read_scripts(config, reader, spec);
  reader.text("exec", record.exec, sandbox::check_text);
  reader.texts("command", spec.command, sandbox::check_text);
  reader.value("scope", spec.scope, sandbox::parse_scope);
  reader.texts("network", spec.network, sandbox::check_rule);
  reader.value("timeout", spec.timeout_s, sandbox::parse_duration);
  reader.value("idle_timeout", spec.idle_timeout_s, sandbox::parse_duration);
  record.image_command =
      config.contains("use_image_command") && config["use_image_command"] == true;
  if (reader.error()) {
    return refuse(Reason::kInvalid, *reader.error());
  }
  return record;
}

std::string format_time(std::int64_t since_epoch_ms) {
  constexpr std::int64_t kSecond = 1000;
  const std::time_t seconds = since_epoch_ms / kSecond;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     since_epoch_ms % kSecond);
}

Json describe(const ServedSandbox& served) {
  const SandboxSpec& spec = served.record.spec;
  Json ports = Json::array();
  for (const PublishedPort& port : served.published) {
    ports.push_back({{"protocol", port.protocol},
                     {"address", port.address},
                     {"host_port", port.host_port},
                     {"guest_port", port.guest_port}});
  }
  Json document = {{"name", served.name},
                   {"namespace", served.space},
                   {"state", stage_word(served.stage)},
                   {"image", spec.image},
                   {"labels", served.record.labels},
                   {"ephemeral", served.record.ephemeral},
                   {"created_at", format_time(served.record.created_ms)},
                   {"started_at", nullptr},
                   {"ports", std::move(ports)}};
  if (served.started_ms != 0) {
    document["started_at"] = format_time(served.started_ms);
  }
  // What it was given: a client may have forgotten.
  Json config = sandbox::to_json(spec);
  config.erase("image");
  document["config"] = std::move(config);
  return document;
}

Json describe(const sandbox::ExitRecord& record) {
  Json document = {{"status", record.status}, {"cause", record.cause}};
  if (!record.message.empty()) {
    document["message"] = record.message;
  }
  if (record.ended_ms != 0) {
    document["ended_at"] = format_time(record.ended_ms);
  }
  return document;
}

Json describe(const Usage& usage) {
  const auto value = [](const auto& optional) { return optional ? Json(*optional) : Json(); };
  return {
      {"cpu_percent", value(usage.cpu_percent)},   {"memory_bytes", value(usage.memory_bytes)},
      {"memory_total", value(usage.memory_total)}, {"disk_bytes", usage.disk_bytes},
      {"processes", value(usage.processes)},       {"received_bytes", value(usage.received_bytes)},
      {"sent_bytes", value(usage.sent_bytes)}};
}

}  // namespace msb::server
