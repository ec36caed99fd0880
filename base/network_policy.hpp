// SPDX-License-Identifier: Apache-2.0
// What a sandbox may reach, as people write it (docs/network.md).
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/network_config.hpp"
#include "base/result.hpp"

namespace msb {

struct NetworkPolicy {
  std::vector<NetworkRule> rules;
  std::vector<std::string> texts;  // where each rule comes from, for whoever asks why
  bool dns = false;                // names are resolved, by this host's resolvers

  void add(const NetworkRule& rule, std::string text) {
    rules.push_back(rule);
    texts.push_back(std::move(text));
  }
  [[nodiscard]] bool allows_anything() const {
    return dns || std::ranges::any_of(rules, &NetworkRule::allow);
  }
};

// A preset: none, group (or local), public, any. False when there is none of that name.
bool add_preset(std::string_view name, NetworkPolicy& policy);

// Lines of a policy file; `name` is the file's, for messages. Fails on the first line that is none.
Result<NetworkPolicy> parse_policy(std::string_view text, std::string_view name);

// Adds one such line, which is no preset and no comment: "allow tcp 10.0.0.5 443". Fails with the
// rule and what is wrong with it.
Result<void> add_rule(std::string_view rule, NetworkPolicy& policy);

// `word` is a preset, or the path of a file of at most 1 MiB; `rules` are lines that decide before
// it.
Result<NetworkPolicy> read_policy(const std::string& word, std::span<const std::string> rules);

}  // namespace msb
