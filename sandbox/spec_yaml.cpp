// SPDX-License-Identifier: Apache-2.0
#include "sandbox/spec_yaml.hpp"

#include <fmt/format.h>

#include <iterator>
#include <vector>

#include "sandbox/spec_words.hpp"
#include "sandbox/yaml_text.hpp"

namespace msb::sandbox {

namespace {

class Lines {
 public:
  explicit Lines(const YamlStyle& style) : style_(style) {}

  [[nodiscard]] std::string take() { return std::move(text_); }

  void line(std::size_t level, std::string_view content) {
    fmt::format_to(std::back_inserter(text_), "{}{}{}", indent(level), content, style_.line_end);
  }
  void field(std::size_t level, std::string_view name, std::string_view value) {
    line(level, fmt::format("{}: {}", name, value));
  }
  void text(std::string_view name, const std::string& value) {
    if (!value.empty()) {
      field(1, name, yaml_scalar(value));
    }
  }
  template <typename T>
  void number(std::string_view name, const std::optional<T>& value) {
    if (value) {
      field(1, name, fmt::format("{}", *value));
    }
  }
  void list(std::string_view name, const std::vector<std::string>& values,
            std::string (*scalar)(std::string_view) = &yaml_scalar) {
    if (!values.empty()) {
      line(1, fmt::format("{}:", name));
    }
    for (const std::string& value : values) {
      line(2, fmt::format("- {}", scalar(value)));
    }
  }
  // On lines of their own where they are several.
  void script(const std::string& name, const std::string& body) {
    const auto literal = body.find('\n') == body.npos
                             ? std::nullopt
                             : yaml_literal(body, indent(3), style_.line_end);
    field(2, yaml_scalar(name), literal ? *literal : yaml_scalar(body));
  }

 private:
  [[nodiscard]] std::string indent(std::size_t level) const {
    return std::string(style_.indent + level * style_.step, ' ');
  }

  const YamlStyle& style_;
  std::string text_;
};

std::vector<std::string> volume_words(const std::vector<Volume>& volumes) {
  std::vector<std::string> words;
  for (const Volume& volume : volumes) {
    words.push_back(
        fmt::format("{}:{}{}", volume.host, volume.guest, volume.read_only ? ":ro" : ""));
  }
  return words;
}

}  // namespace

std::string to_yaml(const std::string& name, const SandboxSpec& spec, const YamlStyle& style) {
  Lines lines(style);
  lines.line(0, fmt::format("{}:", yaml_scalar(name)));
  lines.text("image", spec.image);
  lines.number("cpus", spec.cpus);
  lines.number("memory", spec.memory_mib);
  lines.number("disk", spec.disk_mib);
  lines.number("processes", spec.processes);
  lines.list("volumes", volume_words(spec.volumes));
  // Some readers of YAML 1.1 take 22:22 for a number to the base 60.
  lines.list("ports", spec.ports, &yaml_quoted);
  lines.list("envs", spec.envs);
  lines.list("env_files", spec.env_files);
  lines.list("depends_on", spec.depends_on);
  lines.text("workdir", spec.workdir);
  lines.text("user", spec.user);
  lines.text("shell", spec.shell);
  if (!spec.scripts.empty()) {
    lines.line(1, "scripts:");
  }
  for (const auto& [script, body] : spec.scripts) {
    lines.script(script, body);
  }
  lines.list("command", spec.command);
  if (spec.scope) {
    lines.field(1, "scope", scope_word(*spec.scope));
  }
  lines.list("network", spec.network);
  lines.number("timeout", spec.timeout_s);
  lines.number("idle_timeout", spec.idle_timeout_s);
  return lines.take();
}

}  // namespace msb::sandbox
