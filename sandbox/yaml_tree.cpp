// SPDX-License-Identifier: Apache-2.0
#include "sandbox/yaml_tree.hpp"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "oci/printable.hpp"
#include "sandbox/yaml_text.hpp"

namespace msb::sandbox {

namespace {

constexpr std::size_t kMaxDepth = 16;  // the deepest of a Sandboxfile's is 5
constexpr std::size_t kMaxNodes = 100'000;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

// Ends the library's work from within, which has no other way.
struct Refused {
  YamlFlaw flaw;
};

std::size_t characters_of(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
}

// From the library's offsets, which count bytes, to positions.
class Places {
 public:
  explicit Places(std::string_view text) : text_(text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\n') {
        lines_.push_back(i + 1);
      }
    }
  }
  [[nodiscard]] std::size_t offset(const YAML::Mark& mark) const {
    return std::min(static_cast<std::size_t>(std::max(mark.pos, 0)), text_.size());
  }
  [[nodiscard]] Position at(std::size_t offset) const {
    const auto after = std::ranges::upper_bound(lines_, offset);
    const std::size_t begin = *std::prev(after);
    return {static_cast<std::size_t>(after - lines_.begin()),
            characters_of(text_.substr(begin, offset - begin)) + 1};
  }
  [[nodiscard]] Position at(const YAML::Mark& mark) const { return at(offset(mark)); }
  // Whether the scalar that begins there has the quotation mark at its end that it has at its
  // beginning: of one that has none, the library makes all up to the end of the text one scalar.
  [[nodiscard]] bool is_closed(std::size_t offset) const {
    const char quote = offset < text_.size() ? text_[offset] : '\0';
    if (quote != '"' && quote != '\'') {
      return true;
    }
    for (std::size_t at = offset + 1; at < text_.size(); ++at) {
      const bool doubled = quote == '\'' && text_.substr(at, 2) == "''";
      if (doubled || (quote == '"' && text_[at] == '\\')) {
        ++at;
      } else if (text_[at] == quote) {
        return true;
      }
    }
    return false;
  }

 private:
  std::string_view text_;
  std::vector<std::size_t> lines_ = {0};  // where each begins
};

class Builder : public YAML::EventHandler {
 public:
  explicit Builder(const Places& places) : places_(places) {}

  [[nodiscard]] YamlNode take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) {
      refuse(mark, "there is a second document; a Sandboxfile is one");
    }
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    check(mark, "", anchor);
    add(make(YamlNode::Kind::kNull, mark));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, "an alias is not supported; write out what it stands for");
  }
  void OnAnchor(const YAML::Mark& mark, const std::string&) override {
    refuse(mark, "an anchor is not supported; write out what it stands for where it is used");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check(mark, tag, anchor);
    YamlNode node = make(YamlNode::Kind::kScalar, mark);
    if (!places_.is_closed(node.offset)) {
      refuse(mark, "the quotation mark is never closed");
    }
    node.text = value;
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value style) override {
    check(mark, tag, anchor);
    open(make(YamlNode::Kind::kSequence, mark), style);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value style) override {
    check(mark, tag, anchor);
    open(make(YamlNode::Kind::kMap, mark), style);
  }
  void OnMapEnd() override { close(); }

 private:
  // A sequence or map that is not yet complete.
  struct Open {
    YamlNode node;
    std::optional<YamlNode> key;  // of a map: the one whose value comes next
    std::set<std::string, std::less<>> keys;
  };

  [[noreturn]] void refuse(const Position& position, std::string message) const {
    throw Refused{{position, std::move(message)}};
  }
  [[noreturn]] void refuse(const YAML::Mark& mark, std::string message) const {
    refuse(places_.at(mark), std::move(message));
  }
  // "?" and "!" are what the library says of plain and quoted scalars that have no tag.
  void check(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) {
      OnAnchor(mark, "");
    }
    if (!tag.empty() && tag != "?" && tag != "!") {
      refuse(mark,
             fmt::format("the tag '{}' is not supported; remove it", oci::printable(tag, 64)));
    }
    if (++nodes_ > kMaxNodes) {
      refuse(mark, fmt::format("there are more than {} values", kMaxNodes));
    }
  }
  [[nodiscard]] YamlNode make(YamlNode::Kind kind, const YAML::Mark& mark) const {
    YamlNode node;
    node.kind = kind;
    node.offset = places_.offset(mark);
    node.position = places_.at(node.offset);
    return node;
  }
  void open(YamlNode node, YAML::EmitterStyle::value style) {
    if (open_.size() == kMaxDepth) {
      refuse(node.position, fmt::format("it is nested deeper than {} levels", kMaxDepth));
    }
    node.flow = style == YAML::EmitterStyle::Flow;
    open_.push_back({std::move(node), {}, {}});
  }
  void close() {
    YamlNode node = std::move(open_.back().node);
    open_.pop_back();
    add(std::move(node));
  }
  void add(YamlNode node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Open& top = open_.back();
    if (top.node.kind == YamlNode::Kind::kSequence) {
      top.node.items.push_back(std::move(node));
    } else if (top.key) {
      top.node.members.push_back({std::move(*top.key), std::move(node)});
      top.key.reset();
    } else {
      add_key(top, std::move(node));
    }
  }
  void add_key(Open& map, YamlNode key) const {
    if (key.kind != YamlNode::Kind::kScalar) {
      refuse(key.position, key.kind == YamlNode::Kind::kNull
                               ? "null is no name; write it in quotation marks"
                               : "a list or map is no name");
    }
    if (!map.keys.insert(key.text).second) {
      refuse(key.position,
             fmt::format("\"{}\" is there a second time", oci::printable(key.text, 64)));
    }
    map.key = std::move(key);
  }

  const Places& places_;
  std::vector<Open> open_;
  YamlNode root_;
  std::size_t nodes_ = 0;
  std::size_t documents_ = 0;
};

}  // namespace

const YamlMember* YamlNode::find(std::string_view key) const {
  const auto found = std::ranges::find(
      members, key, [](const YamlMember& member) -> std::string_view { return member.key.text; });
  return found == members.end() ? nullptr : &*found;
}

bool YamlNode::same(const YamlNode& other) const {
  return kind == other.kind && text == other.text &&
         std::ranges::equal(items, other.items,
                            [](const auto& a, const auto& b) { return a.same(b); }) &&
         std::ranges::equal(members, other.members, [](const auto& a, const auto& b) {
           return a.key.text == b.key.text && a.value.same(b.value);
         });
}

Error error_at(std::string_view name, const YamlFlaw& flaw) {
  constexpr std::size_t kMaxShown = 4096;
  const std::string shown = oci::printable(name, kMaxShown);
  if (flaw.position.line == 0) {
    return {fmt::format("{}: {}", shown, flaw.message), 0};
  }
  return {
      fmt::format("{}:{}:{}: {}", shown, flaw.position.line, flaw.position.column, flaw.message),
      0};
}

std::expected<YamlNode, YamlFlaw> parse_yaml(std::string_view text) {
  if (text.size() > kMaxYaml) {
    return std::unexpected(YamlFlaw{{}, fmt::format("it is larger than {} bytes", kMaxYaml)});
  }
  // The library passes over it and counts from behind it.
  if (text.starts_with(kByteOrderMark)) {
    return std::unexpected(YamlFlaw{{1, 1}, "it begins with a byte order mark; save it without"});
  }
  const Places places(text);
  if (const auto flaw = find_bad_character(text)) {
    return std::unexpected(YamlFlaw{places.at(flaw->offset), flaw->message});
  }
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    Builder builder(places);
    while (parser.HandleNextDocument(builder)) {
    }
    return builder.take();
  } catch (const Refused& refused) {
    return std::unexpected(refused.flaw);
  } catch (const YAML::Exception& error) {
    return std::unexpected(YamlFlaw{error.mark.is_null() ? Position{} : places.at(error.mark),
                                    fmt::format("it is no YAML: {}", oci::printable(error.msg))});
  } catch (const std::exception& error) {
    return std::unexpected(
        YamlFlaw{{}, fmt::format("it is no YAML: {}", oci::printable(error.what()))});
  }
}

}  // namespace msb::sandbox
