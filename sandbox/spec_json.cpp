// SPDX-License-Identifier: Apache-2.0
#include "sandbox/spec_json.hpp"

#include <exception>
#include <stdexcept>
#include <string>

#include "oci/printable.hpp"
#include "sandbox/spec_words.hpp"

namespace msb::sandbox {

namespace {

// Each member with its name, for writing and for reading alike.
template <typename Spec, typename Visit>
void visit(Spec& spec, Visit&& member) {
  member("image", spec.image);
  member("cpus", spec.cpus);
  member("memory_mib", spec.memory_mib);
  member("disk_mib", spec.disk_mib);
  member("processes", spec.processes);
  member("volumes", spec.volumes);
  member("ports", spec.ports);
  member("envs", spec.envs);
  member("env_files", spec.env_files);
  member("depends_on", spec.depends_on);
  member("workdir", spec.workdir);
  member("user", spec.user);
  member("shell", spec.shell);
  member("scripts", spec.scripts);
  member("command", spec.command);
  member("scope", spec.scope);
  member("network", spec.network);
  member("timeout_s", spec.timeout_s);
  member("idle_timeout_s", spec.idle_timeout_s);
}

struct Writer {
  Json& document;

  template <typename T>
  void operator()(const char* name, const T& value) {
    if (!value.empty()) {
      document[name] = value;
    }
  }
  template <typename T>
  void operator()(const char* name, const std::optional<T>& value) {
    if (value) {
      document[name] = *value;
    }
  }
  void operator()(const char* name, const std::optional<Scope>& value) {
    if (value) {
      document[name] = scope_word(*value);
    }
  }
  void operator()(const char* name, const std::vector<Volume>& volumes) {
    for (const Volume& volume : volumes) {
      document[name].push_back(
          {{"host", volume.host}, {"guest", volume.guest}, {"read_only", volume.read_only}});
    }
  }
};

// Throws, as the library does for what is of another type.
struct Reader {
  const Json& document;
  std::size_t read = 0;  // members that there were

  template <typename T>
  void operator()(const char* name, T& value) {
    if (const auto found = document.find(name); found != document.end()) {
      found->get_to(value);
      ++read;
    }
  }
  template <typename T>
  void operator()(const char* name, std::optional<T>& value) {
    if (const auto found = document.find(name); found != document.end()) {
      value = found->template get<T>();
      ++read;
    }
  }
  void operator()(const char* name, std::optional<Scope>& value) {
    std::optional<std::string> word;
    (*this)(name, word);
    if (word) {
      const auto scope = parse_scope(*word);
      if (!scope) {
        throw std::runtime_error(scope.error().message);
      }
      value = *scope;
    }
  }
  void operator()(const char* name, std::vector<Volume>& volumes) {
    const auto found = document.find(name);
    if (found == document.end()) {
      return;
    }
    for (const Json& volume : *found) {
      volumes.push_back({volume.at("host").get<std::string>(),
                         volume.at("guest").get<std::string>(),
                         volume.at("read_only").get<bool>()});
    }
    ++read;
  }
};

}  // namespace

Json to_json(const SandboxSpec& spec) {
  Json document = Json::object();
  visit(spec, Writer{document});
  return document;
}

Result<SandboxSpec> spec_from_json(const Json& document) {
  SandboxSpec spec;
  Reader reader{document};
  try {
    visit(spec, reader);
  } catch (const std::exception& error) {
    return fail("it is no sandbox's description: {}", oci::printable(error.what()));
  }
  if (!document.is_object() || reader.read != document.size()) {
    return fail("it is no sandbox's description: it has members that are unknown");
  }
  return spec;
}

}  // namespace msb::sandbox
