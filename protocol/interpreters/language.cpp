// SPDX-License-Identifier: Apache-2.0
#include "protocol/interpreters/language.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "protocol/interpreters/drivers.hpp"

namespace msb::protocol {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kLabelPrefix = "session:";
constexpr std::size_t kMaxName = 64;

constexpr std::array<std::pair<std::string_view, Language>, 6> kNames = {{
    {"python", Language::kPython},
    {"javascript", Language::kJavascript},
    {"shell", Language::kShell},
    {"node", Language::kJavascript},
    {"sh", Language::kShell},
    {"bash", Language::kShell},
}};

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxName && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

std::string framed(const Json& message) {
  // Invalid UTF-8 is an error of encode_run(), found before; what dump() would throw at.
  const std::string body = message.dump();
  std::string bytes;
  for (unsigned shift = 0; shift < 32; shift += 8) {
    bytes.push_back(static_cast<char>(body.size() >> shift & 0xff));
  }
  return bytes + body;
}

bool is_utf8(std::string_view text) {
  // The library's own check, so that dump() above cannot disagree with it.
  try {
    (void)Json(std::string(text)).dump();
    return true;
  } catch (const Json::type_error&) {
    return false;
  }
}

// For %b of printf, in a line and in single quotes.
std::string escaped_for_printf(std::string_view code) {
  std::string text;
  for (const char c : code) {
    switch (c) {
      case '\\':
        text += "\\\\";
        break;
      case '\n':
        text += "\\n";
        break;
      case '\'':
        text += "\\0047";
        break;
      default:
        text.push_back(c);
    }
  }
  return text;
}

}  // namespace

Result<Language> language_named(std::string_view name) {
  const auto* known = std::ranges::find(kNames, name, [](const auto& n) { return n.first; });
  if (known == kNames.end()) {
    return fail("no sessions of the language \"{}\"; there are python, javascript and shell", name);
  }
  return known->second;
}

std::string_view name_of(Language language) {
  return std::ranges::find(kNames, language, [](const auto& n) { return n.second; })->first;
}

std::vector<std::string> session_arguments(Language language) {
  switch (language) {
    case Language::kPython:
      return {"python3", "-u", "-c", std::string(kPythonDriver)};
    case Language::kJavascript:
      return {"node", "--no-force-async-hooks-checks", "-e", std::string(kNodeDriver)};
    case Language::kShell:
      return {"sh", "-c", std::string(kShellStart), "sh", std::string(kShellDriver)};
  }
  std::unreachable();
}

std::string session_greeting(Language language) {
  return language == Language::kShell ? "eval \"$MSB_DRIVER\"\n" : "";
}

std::string encode_hello(Language language, std::uint32_t id) {
  return language == Language::kShell ? fmt::format("__msb_hello {}\n", id)
                                      : framed({{"op", "hello"}, {"id", id}});
}

Result<std::string> encode_run(Language language, std::uint32_t id, std::string_view code) {
  const std::size_t most = language == Language::kShell ? kMaxShellCode : kMaxCode;
  if (code.size() > most) {
    return fail("the code has {} bytes; a {} session takes up to {}", code.size(),
                name_of(language), most);
  }
  if (language == Language::kShell) {
    if (code.contains('\0')) {
      return fail("the code has a NUL byte, which no shell can read");
    }
    // Not in a function of the driver: `declare` and `set --` would hold for that function only.
    return fmt::format(
        "__msb_begin {} '{}'; \\command eval \"$__msb_code\" </dev/null >&8 2>&9 8>&- 9>&-; "
        "__msb_end \"$?\"\n",
        id, escaped_for_printf(code));
  }
  if (!is_utf8(code)) {
    return fail("the code is not UTF-8");
  }
  return framed({{"op", "run"}, {"id", id}, {"code", code}});
}

InterruptBy interrupted_by(Language language) {
  switch (language) {
    case Language::kPython:
      return InterruptBy::kSignal;
    case Language::kJavascript:
      return InterruptBy::kMessage;
    case Language::kShell:
      return InterruptBy::kGroupSignal;
  }
  std::unreachable();
}

std::string encode_interrupt(std::uint32_t id) {
  return framed({{"op", "interrupt"}, {"id", id}});
}

Result<std::string> encode_label(Language language, std::string_view name) {
  if (!is_name(name)) {
    return fail(
        "\"{}\" is no name for a session: 1 to {} letters, digits, dots, underscores or "
        "hyphens are",
        name, kMaxName);
  }
  return fmt::format("{}{}:{}", kLabelPrefix, name_of(language), name);
}

std::optional<SessionLabel> parse_label(std::string_view label) {
  if (!label.starts_with(kLabelPrefix)) {
    return std::nullopt;
  }
  label.remove_prefix(kLabelPrefix.size());
  const auto colon = label.find(':');
  if (colon == std::string_view::npos || !is_name(label.substr(colon + 1))) {
    return std::nullopt;
  }
  const auto language = language_named(label.substr(0, colon));
  if (!language || name_of(*language) != label.substr(0, colon)) {
    return std::nullopt;
  }
  return SessionLabel{*language, std::string(label.substr(colon + 1))};
}

}  // namespace msb::protocol
