// SPDX-License-Identifier: Apache-2.0
#include <iterator>
#include <ranges>

#include "base/nearest_word.hpp"
#include "oci/printable.hpp"
#include "sandbox/launch.hpp"

namespace msb::sandbox {

namespace {

std::vector<std::string> with(std::vector<std::string> words,
                              const std::vector<std::string>& arguments) {
  std::ranges::copy(arguments, std::back_inserter(words));
  return words;
}

std::string script_file(std::string_view name) {
  return fmt::format("{}/{}", kScriptsDirectory, name);
}

// A shell that nobody types into would end at once.
Task shell_task(const SandboxSpec& spec, const std::vector<std::string>& arguments,
                bool background) {
  return background && arguments.empty() ? Task{{}, false, true}
                                         : Task{with(shell_command(spec), arguments), true, false};
}

}  // namespace

std::vector<std::string> shell_command(const SandboxSpec& spec) {
  if (!spec.shell.empty()) {
    return {spec.shell};
  }
  return {"/bin/sh", "-c",
          R"(if command -v bash >/dev/null; then exec bash "$@"; else exec sh "$@"; fi)", "sh"};
}

Result<Task> choose_task(const SandboxSpec& spec, const TaskWords& words, bool background) {
  if (!words.exec.empty()) {
    return Task{with({words.exec}, words.arguments), true, false};
  }
  if (words.script == "shell" && !spec.scripts.contains("shell")) {
    return shell_task(spec, words.arguments, background);
  }
  if (!words.script.empty()) {
    if (!spec.scripts.contains(words.script)) {
      std::vector<std::string> names;
      std::ranges::copy(std::views::keys(spec.scripts), std::back_inserter(names));
      return fail("there is no script '{}'{}", oci::printable(words.script),
                  did_you_mean(words.script, names));
    }
    return Task{with({script_file(words.script)}, words.arguments), true, false};
  }
  if (spec.scripts.contains("start")) {
    return Task{with({script_file("start")}, words.arguments), true, false};
  }
  if (!spec.command.empty()) {
    return Task{with(spec.command, words.arguments), true, false};
  }
  if (spec.shell.empty()) {
    return Task{words.arguments, false, false};
  }
  return shell_task(spec, words.arguments, background);
}

}  // namespace msb::sandbox
