// SPDX-License-Identifier: Apache-2.0
#include "sandbox/sandboxfile_edit.hpp"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "oci/printable.hpp"
#include "sandbox/dependency_order.hpp"
#include "sandbox/identity.hpp"
#include "sandbox/sandboxfile.hpp"
#include "sandbox/spec_yaml.hpp"
#include "sandbox/yaml_tree.hpp"

namespace msb::sandbox {

namespace {

using YamlKind = YamlNode::Kind;
constexpr std::string_view kSandboxes = "sandboxes";

// A text with its meaning.
struct Parsed {
  std::string text;
  YamlNode root;
  Sandboxfile file;

  [[nodiscard]] const YamlMember* sandboxes() const { return root.find(kSandboxes); }
};

Result<Parsed> parse(std::string text) {
  auto root = parse_yaml(text);
  if (!root) {
    return std::unexpected(error_at("Sandboxfile", root.error()));
  }
  auto file = read_sandboxfile(*root);
  if (!file) {
    return std::unexpected(error_at("Sandboxfile", file.error()));
  }
  return Parsed{std::move(text), std::move(*root), std::move(*file)};
}

// Each with its end.
std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1);
    lines.push_back(text.substr(0, end + 1));
    text.remove_prefix(end + 1);
  }
  return lines;
}

std::size_t indent_of(std::string_view line) {
  return std::min(line.find_first_not_of(' '), line.size());
}

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n") == line.npos;
}

bool is_comment(std::string_view line) {
  return line.substr(indent_of(line)).starts_with('#');
}

std::size_t line_of(const YamlNode& node) {
  return node.position.line - 1;
}

// The lines below a key of the root, up to the next one or the end of the document.
struct Block {
  std::size_t begin;
  std::size_t end;
};

std::size_t end_of_document(const std::vector<std::string_view>& lines, std::size_t from) {
  while (from < lines.size() && !lines[from].starts_with("...") &&
         !lines[from].starts_with("---")) {
    ++from;
  }
  return from;
}

Block block_of(const YamlNode& root, const YamlMember& member,
               const std::vector<std::string_view>& lines) {
  Block block{line_of(member.key) + 1, 0};
  block.end = end_of_document(lines, block.begin);
  for (const YamlMember& other : root.members) {
    if (other.key.position.line > member.key.position.line) {
      block.end = std::min(block.end, line_of(other.key));
    }
  }
  block.end = std::max(block.begin, block.end);
  return block;
}

// Goes up from `end` over blank lines, and comments that are not further in than `indent`.
std::size_t skip_back(const std::vector<std::string_view>& lines, std::size_t begin,
                      std::size_t end, std::size_t indent) {
  while (end > begin && (is_blank(lines[end - 1]) ||
                         (is_comment(lines[end - 1]) && indent_of(lines[end - 1]) <= indent))) {
    --end;
  }
  return end;
}

// The first line of an entry, with the comment that belongs to it.
std::size_t head_of(const std::vector<std::string_view>& lines, const Block& block,
                    const YamlNode& key) {
  std::size_t head = line_of(key);
  const std::size_t indent = key.position.column - 1;
  while (head > block.begin && is_comment(lines[head - 1]) &&
         indent_of(lines[head - 1]) == indent) {
    --head;
  }
  return head;
}

std::string_view line_end_of(std::string_view text) {
  const std::size_t end = text.find('\n');
  return end != text.npos && end > 0 && text[end - 1] == '\r' ? "\r\n" : "\n";
}

std::string with_lines(const std::vector<std::string_view>& lines, std::size_t at,
                       std::string_view added) {
  std::string text;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    text += i == at ? added : "";
    text += lines[i];
  }
  if (at >= lines.size()) {
    text += text.empty() || text.ends_with('\n') ? "" : line_end_of(text);
    text += added;
  }
  return text;
}

// Where the members of `before` that are not in `changed` are, and mean the same.
bool keeps(const YamlNode* before, const YamlNode* after,
           const std::set<std::string_view>& changed) {
  const auto others = [&changed](const YamlNode* node) {
    std::vector<const YamlMember*> members;
    for (std::size_t i = 0; node != nullptr && i < node->members.size(); ++i) {
      if (!changed.contains(node->members[i].key.text)) {
        members.push_back(&node->members[i]);
      }
    }
    return members;
  };
  return std::ranges::equal(others(before), others(after),
                            [](const YamlMember* a, const YamlMember* b) {
                              return a->key.text == b->key.text && a->value.same(b->value);
                            });
}

bool keeps(const Parsed& before, const Parsed& after, const std::set<std::string_view>& changed) {
  const auto value = [](const Parsed& parsed) {
    const YamlMember* member = parsed.sandboxes();
    return member == nullptr ? nullptr : &member->value;
  };
  return keeps(&before.root, &after.root, {kSandboxes}) &&
         keeps(value(before), value(after), changed);
}

YamlStyle style_of(const Parsed& parsed) {
  YamlStyle style;
  style.line_end = line_end_of(parsed.text);
  const YamlMember* member = parsed.sandboxes();
  if (member != nullptr) {
    style.indent += member->key.position.column - 1;
  } else if (!parsed.root.members.empty()) {
    style.indent += parsed.root.members.front().key.position.column - 1;
  }
  if (member == nullptr || member->value.members.empty()) {
    return style;
  }
  const std::vector<YamlMember>& entries = member->value.members;
  style.indent = entries.front().key.position.column - 1;
  for (const YamlMember& entry : entries) {
    if (!entry.value.flow && !entry.value.members.empty()) {
      style.step = entry.value.members.front().key.position.column - 1 - style.indent;
      break;
    }
  }
  return style;
}

// The text without the null or the empty braces that are the value of "sandboxes" already.
std::string without_value(const Parsed& parsed) {
  const YamlMember* member = parsed.sandboxes();
  std::string text = parsed.text;
  if (member == nullptr || !member->value.members.empty() ||
      member->value.position.line != member->key.position.line) {
    return text;
  }
  const std::size_t begin = member->value.offset;
  const std::string_view rest = std::string_view(text).substr(begin);
  std::size_t length = 0;
  if (rest.starts_with('{')) {
    length = std::min(rest.find('}'), rest.size() - 1) + 1;
  } else {
    for (const std::string_view null : {"~", "null", "Null", "NULL"}) {
      length = rest.starts_with(null) ? null.size() : length;
    }
  }
  const std::size_t kept = text.find_last_not_of(" \t", begin == 0 ? 0 : begin - 1) + 1;
  if (length > 0) {
    text.erase(kept, begin + length - kept);
  }
  return text;
}

// Whether the entries are a blank line apart, so that another one should be too.
bool has_gaps(const std::vector<std::string_view>& lines, const Block& block,
              const std::vector<YamlMember>& entries) {
  if (entries.size() < 2) {
    return false;
  }
  const std::size_t head = head_of(lines, block, entries.back().key);
  return head > block.begin && is_blank(lines[head - 1]);
}

// The texts that adding could make, the best first.
std::vector<std::string> texts_with(const Parsed& parsed, const std::string& name,
                                    const SandboxSpec& spec) {
  const YamlStyle style = style_of(parsed);
  const std::string text = without_value(parsed);
  const std::vector<std::string_view> lines = split_lines(text);
  std::string added = to_yaml(name, spec, style);
  const YamlMember* member = parsed.sandboxes();
  if (member == nullptr) {
    const std::size_t root = parsed.root.members.empty() ? 0 : style.indent - 2;
    const std::size_t from =
        parsed.root.members.empty() ? lines.size() : line_of(parsed.root.members.back().key);
    added = fmt::format("{}{}:{}{}", std::string(root, ' '), kSandboxes, style.line_end, added);
    return {with_lines(lines, end_of_document(lines, from), added)};
  }
  const Block block = block_of(parsed.root, *member, lines);
  const std::size_t end =
      skip_back(lines, block.begin, block.end, style.indent == 0 ? 0 : style.indent - 1);
  const std::string apart(has_gaps(lines, block, member->value.members) ? style.line_end : "");
  // Blank lines at the end of a text ("|+") belong to it.
  return {with_lines(lines, end, apart + added), with_lines(lines, block.end, added)};
}

bool has(const Sandboxfile& file, std::string_view name) {
  return std::ranges::find(file.sandboxes, name, &Sandboxfile::Entry::name) != file.sandboxes.end();
}

Error by_hand(std::string_view what, std::string_view name) {
  return {
      fmt::format("the Sandboxfile is written in a way that cannot be changed safely; {} '{}' by "
                  "hand",
                  what, name),
      0};
}

// Whether the spec by itself comes back as it is.
Result<void> check_spec(const std::string& name, SandboxSpec spec) {
  spec.depends_on.clear();
  const auto alone = parse(fmt::format("{}:\n{}", kSandboxes, to_yaml(name, spec, {})));
  if (!alone) {
    const std::string& message = alone.error().message;
    return fail("cannot add '{}': {}", name, message.substr(message.find(": ") + 2));
  }
  if (alone->file.sandboxes.size() != 1 || alone->file.sandboxes.front().spec != spec) {
    return fail("cannot add '{}': it has a value that a Sandboxfile cannot say", name);
  }
  return {};
}

// Lines [first, last) go.
struct Range {
  std::size_t first;
  std::size_t last;
};

// Those of the entry at `index`. `gaps`: with the blank lines that would be too many.
Range range_of(const Parsed& parsed, const std::vector<std::string_view>& lines, std::size_t index,
               bool gaps) {
  const YamlMember& member = *parsed.sandboxes();
  const std::vector<YamlMember>& entries = member.value.members;
  const Block block = block_of(parsed.root, member, lines);
  const YamlNode& key = entries[index].key;
  const std::size_t limit =
      index + 1 < entries.size() ? head_of(lines, block, entries[index + 1].key) : block.end;
  Range range{head_of(lines, block, key), 0};
  range.last = skip_back(lines, line_of(key) + 1, limit, key.position.column - 1);
  if (!gaps) {
    return range;
  }
  const bool apart = range.first == block.begin || is_blank(lines[range.first - 1]);
  std::size_t next = range.last;
  while (next < limit && is_blank(lines[next])) {
    ++next;
  }
  if (next == lines.size()) {
    while (range.first > block.begin && is_blank(lines[range.first - 1])) {
      --range.first;
    }
  } else if (apart) {
    range.last = next;
  }
  return range;
}

std::string text_without(const Parsed& parsed, const std::set<std::string_view>& names, bool gaps) {
  const std::vector<std::string_view> lines = split_lines(parsed.text);
  const std::vector<YamlMember>& entries = parsed.sandboxes()->value.members;
  std::vector<bool> gone(lines.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (names.contains(entries[i].key.text)) {
      const Range range = range_of(parsed, lines, i, gaps);
      for (std::size_t j = range.first; j < range.last; ++j) {
        gone[j] = true;
      }
    }
  }
  std::string text;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    text += gone[i] ? "" : lines[i];
  }
  return text;
}

Result<void> check_removal(const Parsed& parsed, const std::set<std::string_view>& names) {
  for (const std::string_view name : names) {
    if (!has(parsed.file, name)) {
      return fail("there is no sandbox '{}'", oci::printable(name, 64));
    }
  }
  for (const Sandboxfile::Entry& entry : parsed.file.sandboxes) {
    for (const std::string& other : entry.spec.depends_on) {
      if (names.contains(other) && !names.contains(entry.name)) {
        return fail("'{0}' depends on '{1}'; remove '{0}' too, or its depends_on", entry.name,
                    other);
      }
    }
  }
  return {};
}

}  // namespace

Result<std::string> add_sandbox(std::string_view text, const std::string& name,
                                const SandboxSpec& spec) {
  if (auto good = check_name(name); !good) {
    return std::unexpected(good.error());
  }
  const auto before = parse(std::string(text));
  if (!before) {
    return std::unexpected(before.error());
  }
  if (has(before->file, name)) {
    return fail("there is a sandbox '{}' already", name);
  }
  if (before->file.sandboxes.size() == kMaxSandboxes) {
    return fail("cannot add '{}': there are {} sandboxes already, and no more can be", name,
                kMaxSandboxes);
  }
  if (auto good = check_spec(name, spec); !good) {
    return std::unexpected(good.error());
  }
  Sandboxfile expected = before->file;
  expected.sandboxes.push_back({name, spec, {}});
  if (const auto read = find_dependency_flaw(expected)) {
    return fail("cannot add '{}': {}", name, read->message);
  }
  const YamlMember* member = before->sandboxes();
  const bool braces = before->root.flow ||
                      (member != nullptr && member->value.flow && !member->value.members.empty());
  const auto candidates = braces ? std::vector<std::string>() : texts_with(*before, name, spec);
  for (const std::string& candidate : candidates) {
    const auto after = parse(candidate);
    if (after && !after->file.sandboxes.empty() && after->file.sandboxes.back().name == name &&
        after->file.sandboxes.back().spec == spec && keeps(*before, *after, {name})) {
      return after->text;
    }
  }
  return std::unexpected(by_hand("add", name));
}

Result<std::string> remove_sandboxes(std::string_view text, std::span<const std::string> names) {
  const auto before = parse(std::string(text));
  if (!before) {
    return std::unexpected(before.error());
  }
  const std::set<std::string_view> gone(names.begin(), names.end());
  if (auto good = check_removal(*before, gone); !good) {
    return std::unexpected(good.error());
  }
  if (gone.empty()) {
    return before->text;
  }
  const bool braces = before->root.flow || before->sandboxes()->value.flow;
  for (const bool gaps : {true, false}) {
    if (braces) {
      break;
    }
    const auto after = parse(text_without(*before, gone, gaps));
    if (after && after->file.sandboxes.size() + gone.size() == before->file.sandboxes.size() &&
        keeps(*before, *after, gone)) {
      return after->text;
    }
  }
  return std::unexpected(by_hand("remove", *gone.begin()));
}

Result<std::string> remove_sandbox(std::string_view text, const std::string& name) {
  return remove_sandboxes(text, std::span(&name, 1));
}

}  // namespace msb::sandbox
