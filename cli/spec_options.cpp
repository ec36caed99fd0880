// SPDX-License-Identifier: Apache-2.0
#include "cli/spec_options.hpp"

#include <optional>
#include <utility>

#include "sandbox/spec_words.hpp"

namespace msb::cli {

namespace {

// An empty one would be as if it were not there: a mere accident of a shell's variable, which may
// have been meant as a limit.
std::string check_value(const std::string& value) {
  return value.empty() ? "it is empty; leave it out, or give it a value" : "";
}

void add_text(CLI::App& command, const std::string& name, std::string& value,
              const std::string& help, const std::string& type) {
  command.add_option(name, value, help)->type_name(type)->check(check_value);
}

void add_list(CLI::App& command, const std::string& name, std::vector<std::string>& values,
              const std::string& help, const std::string& type) {
  command.add_option(name, values, help)
      ->type_name(type)
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all()
      ->check(check_value);
}

// The words of one command line, one after the other, until one is wrong.
class Reader {
 public:
  template <typename T>
  void read(const char* option, const std::string& word, Result<T> (*parse)(std::string_view),
            std::optional<T>& value) {
    if (word.empty() || error_) {
      return;
    }
    auto parsed = parse(word);
    if (parsed) {
      value = *parsed;
    } else {
      error_ = parsed.error().within(option);
    }
  }
  void check(const char* option, const std::string& word, Result<void> (*test)(std::string_view)) {
    if (word.empty() || error_) {
      return;
    }
    if (auto tested = test(word); !tested) {
      error_ = tested.error().within(option);
    }
  }
  void check_all(const char* option, const std::vector<std::string>& words,
                 Result<void> (*test)(std::string_view)) {
    for (const std::string& word : words) {
      check(option, word, test);
    }
  }
  void read_volumes(const std::vector<std::string>& words, std::vector<sandbox::Volume>& volumes) {
    for (const std::string& word : words) {
      std::optional<sandbox::Volume> volume;
      read("--volume", word, sandbox::parse_volume, volume);
      if (volume) {
        volumes.push_back(std::move(*volume));
      }
    }
  }
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

 private:
  std::optional<Error> error_;
};

}  // namespace

void add_spec_options(CLI::App& command, SpecWords& words) {
  add_text(command, "--cpus,--cpu", words.cpus, "Virtual CPUs", "N");
  add_text(command, "--memory", words.memory, "Memory: MiB, or with M or G", "SIZE");
  add_text(command, "--disk", words.disk, "How much it may write: MiB, or with M, G or T", "SIZE");
  add_text(command, "--processes", words.processes, "How many processes it may have at a time",
           "N");
  add_list(command, "-v,--volume", words.volumes, "A directory or file of this host in it",
           "HOST:GUEST[:ro]");
  add_list(command, "-p,--port", words.ports, "A port of this host that leads into it; 0 picks one",
           "[ADDRESS:]HOSTPORT:PORT");
  add_list(command, "--env", words.envs, "A variable", "NAME=VALUE");
  add_list(command, "--env-file", words.env_files, "A file of variables", "FILE");
  add_text(command, "--workdir", words.workdir, "Its working directory", "DIR");
  add_text(command, "--user", words.user, "Its user, and group", "USER[:GROUP]");
  add_text(command, "--shell", words.shell, "Its shell", "PROGRAM");
  add_text(command, "--scope", words.scope, "What it may reach on the network",
           "none|local|public|any");
  add_list(command, "--network", words.network,
           "A rule that decides before the scope: \"allow tcp 10.0.0.5 443\"", "RULE");
  add_text(command, "--timeout", words.timeout, "Stop it after so long: seconds, or with s, m or h",
           "TIME");
  add_text(command, "--idle-timeout", words.idle_timeout,
           "Stop it when nothing happened for so long", "TIME");
}

Result<sandbox::SandboxSpec> make_spec(const std::string& image, const SpecWords& words) {
  Reader reader;
  sandbox::SandboxSpec spec;
  spec.image = image;
  if (image.empty()) {
    return fail("the image is empty; name one, for example alpine");
  }
  reader.check("the image", image, sandbox::check_image);
  reader.read("--cpus", words.cpus, sandbox::parse_cpus, spec.cpus);
  reader.read("--memory", words.memory, sandbox::parse_memory, spec.memory_mib);
  reader.read("--disk", words.disk, sandbox::parse_disk, spec.disk_mib);
  reader.read("--processes", words.processes, sandbox::parse_processes, spec.processes);
  reader.read_volumes(words.volumes, spec.volumes);
  reader.check_all("--port", words.ports, sandbox::check_port);
  spec.ports = words.ports;
  reader.check_all("--env", words.envs, sandbox::check_env);
  spec.envs = words.envs;
  reader.check_all("--env-file", words.env_files, sandbox::check_path);
  spec.env_files = words.env_files;
  reader.check("--workdir", words.workdir, sandbox::check_workdir);
  spec.workdir = words.workdir;
  reader.check("--user", words.user, sandbox::check_user);
  spec.user = words.user;
  reader.check("--shell", words.shell, sandbox::check_shell);
  spec.shell = words.shell;
  reader.read("--scope", words.scope, sandbox::parse_scope, spec.scope);
  reader.check_all("--network", words.network, sandbox::check_rule);
  spec.network = words.network;
  reader.read("--timeout", words.timeout, sandbox::parse_duration, spec.timeout_s);
  reader.read("--idle-timeout", words.idle_timeout, sandbox::parse_duration, spec.idle_timeout_s);
  if (reader.error()) {
    return std::unexpected(*reader.error());
  }
  return spec;
}

}  // namespace msb::cli
