// SPDX-License-Identifier: Apache-2.0
#include "sandbox/dependency_order.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "base/nearest_word.hpp"
#include "oci/printable.hpp"

namespace msb::sandbox {

namespace {

using Entry = Sandboxfile::Entry;

// Walks a file's dependencies, whose names are all there. Its recursion is as deep as the chain is
// long, at most kMaxSandboxes.
class Walk {
 public:
  explicit Walk(const Sandboxfile& file) : file_(file) {
    for (std::size_t i = 0; i < file.sandboxes.size(); ++i) {
      indices_.emplace(file.sandboxes[i].name, i);
    }
  }

  [[nodiscard]] std::optional<std::size_t> index(std::string_view name) const {
    const auto found = indices_.find(name);
    return found == indices_.end() ? std::nullopt : std::optional(found->second);
  }
  [[nodiscard]] const std::map<std::size_t, std::size_t>& levels() const { return levels_; }

  // The level of entry `i`: one above the highest that it depends on.
  std::optional<YamlFlaw> visit(std::size_t i) {
    if (levels_.contains(i)) {
      return std::nullopt;
    }
    const Entry& entry = file_.sandboxes[i];
    path_.push_back(i);
    std::size_t level = 0;
    for (std::size_t j = 0; j < entry.spec.depends_on.size(); ++j) {
      const std::size_t next = *index(entry.spec.depends_on[j]);
      if (std::ranges::find(path_, next) != path_.end()) {
        return flaw(i, j, fmt::format("depends_on goes in a circle: {}", circle(next)));
      }
      if (auto found = visit(next)) {
        return found;
      }
      level = std::max(level, levels_.at(next) + 1);
      if (level > kMaxDependencyDepth) {
        return flaw(i, j,
                    fmt::format("\"{}\" depends on others over more than {} steps", entry.name,
                                kMaxDependencyDepth));
      }
    }
    path_.pop_back();
    levels_.emplace(i, level);
    return std::nullopt;
  }

  [[nodiscard]] YamlFlaw flaw(std::size_t i, std::size_t j, std::string message) const {
    const auto& places = file_.sandboxes[i].places.depends_on;
    return {j < places.size() ? places[j] : Position{}, std::move(message)};
  }

 private:
  [[nodiscard]] std::string circle(std::size_t from) const {
    std::string names;
    for (auto i = std::ranges::find(path_, from); i != path_.end(); ++i) {
      names += file_.sandboxes[*i].name + " -> ";
    }
    return names + file_.sandboxes[from].name;
  }

  const Sandboxfile& file_;
  std::map<std::string_view, std::size_t> indices_;
  std::vector<std::size_t> path_;
  std::map<std::size_t, std::size_t> levels_;
};

std::vector<std::string_view> names_of(const Sandboxfile& file) {
  std::vector<std::string_view> names;
  for (const Entry& entry : file.sandboxes) {
    names.push_back(entry.name);
  }
  return names;
}

// Those that say something about themselves, without what others say.
std::optional<YamlFlaw> find_wrong_name(const Sandboxfile& file, const Walk& walk) {
  for (std::size_t i = 0; i < file.sandboxes.size(); ++i) {
    const Entry& entry = file.sandboxes[i];
    std::set<std::string_view> seen;
    for (std::size_t j = 0; j < entry.spec.depends_on.size(); ++j) {
      const std::string& name = entry.spec.depends_on[j];
      const std::string shown = oci::printable(name, 64);
      if (!walk.index(name)) {
        return walk.flaw(i, j,
                         fmt::format("depends_on names \"{}\", which is no sandbox here{}", shown,
                                     did_you_mean(name, names_of(file))));
      }
      if (name == entry.name) {
        return walk.flaw(i, j, fmt::format("\"{}\" depends on itself", shown));
      }
      if (!seen.insert(name).second) {
        return walk.flaw(i, j, fmt::format("depends_on names \"{}\" twice", shown));
      }
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<YamlFlaw> find_dependency_flaw(const Sandboxfile& file) {
  Walk walk(file);
  if (auto flaw = find_wrong_name(file, walk)) {
    return flaw;
  }
  for (std::size_t i = 0; i < file.sandboxes.size(); ++i) {
    if (auto flaw = walk.visit(i)) {
      return flaw;
    }
  }
  return std::nullopt;
}

Result<std::vector<std::vector<std::string>>> dependency_levels(
    const Sandboxfile& file, const std::vector<std::string>& names) {
  Walk walk(file);
  if (const auto flaw = find_wrong_name(file, walk)) {
    return fail("{}", flaw->message);
  }
  std::vector<std::size_t> wanted;
  for (const std::string& name : names) {
    const auto index = walk.index(name);
    if (!index) {
      return fail("there is no sandbox '{}'{}", oci::printable(name, 64),
                  did_you_mean(name, names_of(file)));
    }
    wanted.push_back(*index);
  }
  for (std::size_t i = 0; names.empty() && i < file.sandboxes.size(); ++i) {
    wanted.push_back(i);
  }
  for (const std::size_t i : wanted) {
    if (const auto flaw = walk.visit(i)) {
      return fail("{}", flaw->message);
    }
  }
  std::vector<std::vector<std::string>> levels;
  for (const auto& [i, level] : walk.levels()) {
    levels.resize(std::max(levels.size(), level + 1));
    levels[level].push_back(file.sandboxes[i].name);
  }
  return levels;
}

}  // namespace msb::sandbox
