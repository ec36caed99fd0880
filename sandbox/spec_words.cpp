// SPDX-License-Identifier: Apache-2.0
#include "sandbox/spec_words.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "base/machine_config.hpp"
#include "base/nearest_word.hpp"
#include "base/network_policy.hpp"
#include "base/publish.hpp"
#include "base/share_words.hpp"
#include "oci/printable.hpp"
#include "oci/reference.hpp"

namespace msb::sandbox {

namespace {

// Every scope's own word comes before others for it.
constexpr std::array<std::pair<std::string_view, Scope>, 5> kScopes = {{{"none", Scope::kNone},
                                                                        {"local", Scope::kGroup},
                                                                        {"group", Scope::kGroup},
                                                                        {"public", Scope::kPublic},
                                                                        {"any", Scope::kAny}}};
constexpr std::size_t kMaxWord = 4096;  // PATH_MAX
constexpr std::size_t kShown = 80;

std::string shown(std::string_view word) {
  return fmt::format("\"{}\"", oci::printable(word, kShown));
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_word_letter(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '.' ||
         c == '-';
}

bool has_control(std::string_view word) {
  return std::ranges::any_of(word, [](char c) { return (c >= 0 && c < ' ') || c == 0x7f; });
}

// In decimal without leading zeros, which some readers of YAML take for octal.
std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() ||
      (text.size() > 1 && text.front() == '0')) {
    return std::nullopt;
  }
  return number;
}

// A number with one of the units behind it, or none, which is the first.
struct Unit {
  std::string_view word;
  std::uint64_t factor;
};
std::optional<std::uint64_t> parse_quantity(std::string_view word, std::span<const Unit> units) {
  const std::size_t digits =
      std::min(static_cast<std::size_t>(std::ranges::find_if_not(word, is_digit) - word.begin()),
               word.size());
  const auto number = parse_number(word.substr(0, digits));
  const std::string_view unit = word.substr(digits);
  const auto found = std::ranges::find_if(units, [&](const Unit& one) {
    return one.word.size() == unit.size() && std::ranges::equal(one.word, unit, [](char a, char b) {
             return a == b || a == (b | 0x20);
           });
  });
  std::uint64_t quantity = 0;
  if (!number || found == units.end() ||
      __builtin_mul_overflow(*number, found->factor, &quantity)) {
    return std::nullopt;
  }
  return quantity;
}

constexpr std::array<Unit, 10> kSizes = {{{"", 1},
                                          {"m", 1},
                                          {"mb", 1},
                                          {"mib", 1},
                                          {"g", 1024},
                                          {"gb", 1024},
                                          {"gib", 1024},
                                          {"t", 1024 * 1024},
                                          {"tb", 1024 * 1024},
                                          {"tib", 1024 * 1024}}};
constexpr std::array<Unit, 5> kTimes = {
    {{"", 1}, {"s", 1}, {"m", 60}, {"h", 60 * 60}, {"d", 24 * 60 * 60}}};

std::string mib_text(std::uint64_t mib) {
  constexpr std::uint64_t kGib = 1024;
  return mib % kGib == 0 ? fmt::format("{}G", mib / kGib) : fmt::format("{}M", mib);
}

Result<std::uint64_t> parse_size(std::string_view word, std::uint64_t least, std::uint64_t most) {
  const auto size = parse_quantity(word, kSizes);
  if (!size) {
    return fail("{} is no size; write MiB as a number, or a number with M, G or T, such as 512M",
                shown(word));
  }
  if (*size < least || *size > most) {
    return fail("{} is not from {} to {}", shown(word), mib_text(least), mib_text(most));
  }
  return *size;
}

Result<std::uint32_t> parse_count(std::string_view word, std::uint32_t most) {
  const auto number = parse_number(word);
  if (!number || *number == 0 || *number > most) {
    return fail("{} is no whole number from 1 to {}", shown(word), most);
  }
  return static_cast<std::uint32_t>(*number);
}

Result<void> check_name_value(std::string_view name, std::string_view word) {
  const bool good = !name.empty() && std::ranges::none_of(name, [](char c) {
    return c == ' ' || (c >= 0 && c < ' ') || c == 0x7f;
  });
  return good ? Result<void>() : fail("{} has no name in front of the \"=\"", shown(word));
}

// The volume whose place is the same on both sides.
Result<Volume> parse_same_volume(std::string_view word) {
  Volume volume;
  volume.read_only = word.ends_with(":ro");
  const std::string_view path =
      word.ends_with(":ro") || word.ends_with(":rw") ? word.substr(0, word.size() - 3) : word;
  if (!path.starts_with('/')) {
    return fail(
        "{} says no place in the sandbox; write HOST:GUEST[:ro], such as {}:/work", shown(word),
        path.find(':') == path.npos && !path.empty() ? oci::printable(path, kShown) : "./data");
  }
  const auto place = tidy_place(path);
  if (!place || place->find(':') != place->npos) {
    return fail("{} cannot be a place in the sandbox; write HOST:GUEST[:ro]", shown(word));
  }
  volume.host = path;
  volume.guest = *place;
  return volume;
}

}  // namespace

Result<std::uint32_t> parse_cpus(std::string_view word) {
  return parse_count(word, kMaxVcpus);
}

Result<std::uint32_t> parse_memory(std::string_view word) {
  const auto size = parse_size(word, kMinMemoryMib, kMaxMemoryMib);
  return size ? Result<std::uint32_t>(static_cast<std::uint32_t>(*size))
              : std::unexpected(size.error());
}

Result<std::uint64_t> parse_disk(std::string_view word) {
  return parse_size(word, kMinDiskMib, kMaxDiskMib);
}

Result<std::uint32_t> parse_processes(std::string_view word) {
  return parse_count(word, kMaxProcesses);
}

Result<std::uint32_t> parse_duration(std::string_view word) {
  const auto seconds = parse_quantity(word, kTimes);
  if (!seconds) {
    return fail("{} is no duration; write seconds as a number, or a number with s, m, h or d",
                shown(word));
  }
  if (*seconds == 0 || *seconds > kMaxDuration) {
    return fail("{} is not from 1s to 365d", shown(word));
  }
  return static_cast<std::uint32_t>(*seconds);
}

Result<Volume> parse_volume(std::string_view word) {
  if (word.size() > 2 * kMaxWord || has_control(word)) {
    return fail("{} is too long, or has control characters", shown(word));
  }
  if (word == "~" || word.starts_with("~/") || word.starts_with("~:")) {
    return fail("{} begins with \"~\", which is not expanded here; write the whole path",
                shown(word));
  }
  if (word.find(":/") == word.npos) {
    return parse_same_volume(word);
  }
  const auto share = parse_share(word, "");
  if (!share || share->cache != ShareCache::kAuto || word.find(":cache=") != word.npos) {
    return fail(
        "{} is not HOST:GUEST[:ro], with an absolute path in the sandbox that is not / and "
        "has no \"..\"",
        shown(word));
  }
  return Volume{share->host, share->guest, share->read_only};
}

Result<Scope> parse_scope(std::string_view word) {
  std::vector<std::string_view> words;
  for (const auto& [known, scope] : kScopes) {
    if (word == known) {
      return scope;
    }
    words.push_back(known);
  }
  return fail("{} is none of none, local, public and any{}", shown(word),
              did_you_mean(word, words));
}

std::string_view scope_word(Scope scope) {
  return std::ranges::find(kScopes, scope, &std::pair<std::string_view, Scope>::second)->first;
}

Result<void> check_rule(std::string_view word) {
  NetworkPolicy policy;
  return add_rule(word, policy);
}

Result<void> check_image(std::string_view word) {
  if (word.empty()) {
    return fail(
        "it is empty; write a reference, such as python:3.12, or a path that begins with "
        "\"./\" or \"/\"");
  }
  if (word.size() > kMaxWord || has_control(word)) {
    return fail("{} is too long, or has control characters", shown(word));
  }
  if (word.starts_with('/') || word.starts_with("./") || word.starts_with("../")) {
    return {};
  }
  const auto reference = oci::parse_reference(word);
  return reference ? Result<void>() : std::unexpected(reference.error());
}

Result<void> check_port(std::string_view word) {
  if (has_control(word) || word.size() > kShown) {
    return fail("{} is no port", shown(word));
  }
  const auto port = parse_publish(word, "port");
  return port ? Result<void>() : std::unexpected(port.error());
}

Result<void> check_env(std::string_view word) {
  if (auto text = check_text(word); !text) {
    return text;
  }
  const std::size_t equals = word.find('=');
  if (equals == word.npos) {
    return fail(
        "{0} has no value; write {1}=VALUE (it is not taken out of your own environment, where it "
        "may be a secret)",
        shown(word), oci::printable(word, kShown));
  }
  return check_name_value(word.substr(0, equals), word.substr(0, equals + 1));
}

Result<void> check_path(std::string_view word) {
  if (word.empty() || word.size() > kMaxWord || has_control(word)) {
    return fail("{} is no path", shown(word));
  }
  return {};
}

Result<void> check_workdir(std::string_view word) {
  if (!word.starts_with('/') || word.size() > kMaxWord || has_control(word)) {
    return fail("{} is no absolute path in the sandbox", shown(word));
  }
  return {};
}

Result<void> check_user(std::string_view word) {
  const std::size_t colon = word.find(':');
  const auto is_name = [](std::string_view name) {
    return !name.empty() && name.size() <= 64 && std::ranges::all_of(name, is_word_letter);
  };
  if (!is_name(word.substr(0, colon)) || (colon != word.npos && !is_name(word.substr(colon + 1)))) {
    return fail("{} is not USER[:GROUP], by names or numbers", shown(word));
  }
  return {};
}

Result<void> check_shell(std::string_view word) {
  const bool is_path = word.starts_with('/') && word.size() > 1;
  const bool bounded = !word.empty() && word.size() <= 256 && !has_control(word) &&
                       word.find(' ') == word.npos && !word.starts_with('-');
  if (!bounded || (!is_path && word.find('/') != word.npos)) {
    return fail("{} is neither an absolute path in the sandbox nor the name of a program",
                shown(word));
  }
  return {};
}

Result<void> check_script_name(std::string_view word) {
  const bool good = !word.empty() && word.size() <= 64 && word != "." && word != ".." &&
                    std::ranges::all_of(word, is_word_letter);
  return good ? Result<void>()
              : fail(
                    "{} is no name for a script; a name has 1 to 64 letters, digits, '-', '_' and "
                    "'.'",
                    shown(word));
}

Result<void> check_text(std::string_view word) {
  if (word.find('\0') != word.npos) {
    return fail("{} has a NUL character, which no program can be given", shown(word));
  }
  return {};
}

}  // namespace msb::sandbox
