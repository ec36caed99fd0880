// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: the text of a network policy. Whatever it is, it becomes rules that a machine
// takes, or one line that says what is wrong. Seeds: tests/corpus/network-policy.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/machine_config.hpp"
#include "base/network_policy.hpp"

namespace {

using namespace msb;

void require(bool condition, const char* what) {
  if (!condition) {
    std::fprintf(stderr, "%s\n", what);
    std::abort();
  }
}

// A line that says something, and of which destinations.
bool is_rule(std::string_view line) {
  line = line.substr(0, line.find('#'));
  line.remove_prefix(std::min(line.find_first_not_of(" \t\r"), line.size()));
  return (line.starts_with("allow") || line.starts_with("deny")) && !line.contains("dns");
}

std::size_t count_rules(std::string_view text) {
  std::size_t count = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    count += is_rule(text.substr(0, end)) ? 1 : 0;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return count;
}

MachineConfig small_machine() {
  MachineConfig config;
  config.memory_mib = kMinMemoryMib;
  config.vcpus = 1;
  config.kernel = 0;
  config.initramfs = 1;
  config.entropy = 2;
  config.network.backend = static_cast<std::uint32_t>(NetworkBackend::kStream);
  return config;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto policy = parse_policy(text, "policy");
  if (!policy) {
    const std::string_view message = policy.error().message;
    require(message.starts_with("policy") && !message.contains('\n'),
            "what is wrong is said in one line");
    return 0;
  }
  require(policy->rules.size() <= kMaxNetworkRules, "there are no more rules than a network has");
  require(policy->texts.size() == policy->rules.size(), "every rule says where it comes from");
  require(policy->rules.size() >= count_rules(text), "no line goes unheard");
  MachineConfig config = small_machine();
  config.network.rules = policy->rules;
  const auto read = MachineConfig::from_json(config.to_json());
  require(read && read->network.rules == policy->rules, "a machine takes the rules as they are");
  return 0;
}
