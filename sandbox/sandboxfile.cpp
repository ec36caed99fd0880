// SPDX-License-Identifier: Apache-2.0
#include "sandbox/sandboxfile.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <span>
#include <type_traits>
#include <utility>

#include "base/nearest_word.hpp"
#include "base/publish.hpp"
#include "oci/printable.hpp"
#include "sandbox/dependency_order.hpp"
#include "sandbox/identity.hpp"
#include "sandbox/spec_words.hpp"

namespace msb::sandbox {

namespace {

using Entry = Sandboxfile::Entry;
using YamlKind = YamlNode::Kind;
using Read = std::expected<void, YamlFlaw>;

// A field of a map, and what reads its value, which is not null, into `Target`.
template <typename Target>
struct Field {
  std::string_view name;
  Read (*read)(const YamlNode& value, Target& target);
};

// The field whose own fields need no more than their position.
constexpr std::string_view kSandboxes = "sandboxes";
constexpr std::array<std::string_view, 3> kUnsupported = {"modules", "builds", "groups"};

std::unexpected<YamlFlaw> flaw(const YamlNode& node, std::string message) {
  return std::unexpected(YamlFlaw{node.position, std::move(message)});
}

std::string shown(std::string_view word) {
  return oci::printable(word, 80);
}

template <typename Target>
Read refuse_key(const YamlNode& key, std::span<const Field<Target>> fields) {
  if (std::ranges::find(kUnsupported, key.text) != kUnsupported.end()) {
    return flaw(key, fmt::format("\"{}\" is not supported; remove it", key.text));
  }
  std::vector<std::string_view> names;
  for (const Field<Target>& field : fields) {
    names.push_back(field.name);
  }
  return flaw(key, fmt::format("\"{}\" is none of the fields that there are here{}",
                               shown(key.text), did_you_mean(key.text, names)));
}

template <typename Target>
Read read_fields(const YamlNode& map, std::span<const Field<Target>> fields, Target& target) {
  if (map.kind != YamlKind::kMap) {
    return flaw(map, "there have to be fields here, each \"FIELD: VALUE\"");
  }
  for (const YamlMember& member : map.members) {
    const auto field = std::ranges::find(fields, member.key.text, &Field<Target>::name);
    if (field == fields.end()) {
      return refuse_key(member.key, fields);
    }
    if (member.value.kind == YamlKind::kNull) {
      continue;
    }
    if (auto read = field->read(member.value, target); !read) {
      const std::string in = field->name == kSandboxes ? "" : fmt::format("{}: ", field->name);
      return std::unexpected(YamlFlaw{read.error().position, in + read.error().message});
    }
  }
  return {};
}

Read check_scalar(const YamlNode& node) {
  if (node.kind != YamlKind::kScalar) {
    return flaw(node, node.kind == YamlKind::kNull ? "it is null; write it in quotation marks"
                                                   : "it has to be one value, not a list or a map");
  }
  const auto text = check_text(node.text);
  return text ? Read() : flaw(node, text.error().message);
}

// A scalar of which `parse` makes the value.
template <typename T>
Read read_value(const YamlNode& node, T (*parse)(std::string_view), typename T::value_type& value) {
  if (auto scalar = check_scalar(node); !scalar) {
    return scalar;
  }
  auto parsed = parse(node.text);
  if (!parsed) {
    return flaw(node, parsed.error().message);
  }
  value = std::move(*parsed);
  return {};
}

template <typename T>
Read read_optional(const YamlNode& node, Result<T> (*parse)(std::string_view),
                   std::optional<T>& value) {
  T parsed{};
  auto read = read_value(node, parse, parsed);
  if (read) {
    value = parsed;
  }
  return read;
}

// A scalar that `check` finds good, as it is.
Read read_text(const YamlNode& node, Result<void> (*check)(std::string_view), std::string& text) {
  if (auto scalar = check_scalar(node); !scalar) {
    return scalar;
  }
  if (auto checked = check(node.text); !checked) {
    return flaw(node, checked.error().message);
  }
  text = node.text;
  return {};
}

Read check_list(const YamlNode& node) {
  if (node.kind == YamlKind::kSequence) {
    return {};
  }
  return flaw(node, node.kind == YamlKind::kScalar
                        ? fmt::format("it has to be a list; write [\"{}\"]", shown(node.text))
                        : "it has to be a list, with \"- \" before each of its values");
}

Read read_texts(const YamlNode& node, Result<void> (*check)(std::string_view),
                std::vector<std::string>& texts, std::vector<Position>* places = nullptr) {
  if (auto list = check_list(node); !list) {
    return list;
  }
  for (const YamlNode& item : node.items) {
    if (auto read = read_text(item, check, texts.emplace_back()); !read) {
      return read;
    }
    if (places != nullptr) {
      places->push_back(item.position);
    }
  }
  return {};
}

Read read_image(const YamlNode& node, Entry& entry) {
  entry.places.image = node.position;
  return read_text(node, check_image, entry.spec.image);
}

Read read_volumes(const YamlNode& node, Entry& entry) {
  if (auto list = check_list(node); !list) {
    return list;
  }
  std::set<std::string_view> guests;
  entry.spec.volumes.reserve(node.items.size());
  for (const YamlNode& item : node.items) {
    Volume& volume = entry.spec.volumes.emplace_back();
    if (auto read = read_value(item, parse_volume, volume); !read) {
      return read;
    }
    if (!guests.insert(volume.guest).second) {
      return flaw(item, fmt::format("there is another volume at \"{}\"", shown(volume.guest)));
    }
    if (guests.size() > kMaxVolumes) {
      return flaw(item, fmt::format("there are more than {} of them", kMaxVolumes));
    }
    entry.places.volumes.push_back(item.position);
  }
  return {};
}

Read read_ports(const YamlNode& node, Entry& entry) {
  if (auto read = read_texts(node, check_port, entry.spec.ports, &entry.places.ports); !read) {
    return read;
  }
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    const auto words = std::span(entry.spec.ports).first(i + 1);
    if (i == kMaxPublished) {
      return flaw(node.items[i], fmt::format("there are more than {} of them", kMaxPublished));
    }
    if (const auto all = parse_publish(words); !all) {
      return flaw(node.items[i], fmt::format("\"{}\" publishes the same port of this host as one "
                                             "before it",
                                             shown(words.back())));
    }
  }
  return {};
}

Read read_env_files(const YamlNode& node, Entry& entry) {
  if (node.kind == YamlKind::kScalar) {
    entry.places.env_files.push_back(node.position);
    return read_text(node, check_path, entry.spec.env_files.emplace_back());
  }
  return read_texts(node, check_path, entry.spec.env_files, &entry.places.env_files);
}

Read read_scripts(const YamlNode& node, Entry& entry) {
  if (node.kind != YamlKind::kMap) {
    return flaw(node, "it has to be a map, each \"NAME: TEXT\"");
  }
  for (const YamlMember& member : node.members) {
    if (auto good = check_script_name(member.key.text); !good) {
      return flaw(member.key, good.error().message);
    }
    if (auto read = read_text(member.value, check_text, entry.spec.scripts[member.key.text]);
        !read) {
      return read;
    }
  }
  return {};
}

Read read_command(const YamlNode& node, Entry& entry) {
  if (node.kind == YamlKind::kScalar) {
    return flaw(
        node,
        "it has to be a list of words, such as [\"python\", \"app.py\"]; what a shell is to "
        "read belongs into scripts: {start: ...}");
  }
  if (auto read = read_texts(node, check_text, entry.spec.command); !read) {
    return read;
  }
  return entry.spec.command.empty() || !entry.spec.command.front().empty()
             ? Read()
             : flaw(node.items.front(), "the program's name is empty");
}

// What has no effect still has to be of its type, whatever it is read into.
template <typename Target>
Read ignore_text(const YamlNode& node, Target&) {
  return check_scalar(node);
}

template <typename Target>
Read ignore_texts(const YamlNode& node, Target&) {
  std::vector<std::string> texts;
  return read_texts(node, check_text, texts);
}

template <typename Target>
Read ignore_paths(const YamlNode& node, Target&) {
  if (node.kind != YamlKind::kMap) {
    return flaw(node, "it has to be a map, each \"NAME: PATH\"");
  }
  for (const YamlMember& member : node.members) {
    if (auto scalar = check_scalar(member.value); !scalar) {
      return scalar;
    }
  }
  return {};
}

struct Nothing {};

template <typename Target>
Read ignore_meta(const YamlNode& node, Target&) {
  static constexpr std::array<Field<Nothing>, 7> kFields = {{{"authors", &ignore_texts<Nothing>},
                                                             {"description", &ignore_text<Nothing>},
                                                             {"homepage", &ignore_text<Nothing>},
                                                             {"repository", &ignore_text<Nothing>},
                                                             {"readme", &ignore_text<Nothing>},
                                                             {"tags", &ignore_texts<Nothing>},
                                                             {"icon", &ignore_text<Nothing>}}};
  Nothing nothing;
  return read_fields(node, std::span<const Field<Nothing>>(kFields), nothing);
}

constexpr std::array<Field<Entry>, 23> kEntryFields = {{
    {"image", &read_image},
    {"cpus", [](const YamlNode& node,
                Entry& entry) { return read_optional(node, parse_cpus, entry.spec.cpus); }},
    {"memory",
     [](const YamlNode& node, Entry& entry) {
       return read_optional(node, parse_memory, entry.spec.memory_mib);
     }},
    {"disk", [](const YamlNode& node,
                Entry& entry) { return read_optional(node, parse_disk, entry.spec.disk_mib); }},
    {"processes",
     [](const YamlNode& node, Entry& entry) {
       return read_optional(node, parse_processes, entry.spec.processes);
     }},
    {"volumes", &read_volumes},
    {"ports", &read_ports},
    {"envs", [](const YamlNode& node,
                Entry& entry) { return read_texts(node, check_env, entry.spec.envs); }},
    {"env_files", &read_env_files},
    {"depends_on",
     [](const YamlNode& node, Entry& entry) {
       return read_texts(node, check_text, entry.spec.depends_on, &entry.places.depends_on);
     }},
    {"workdir", [](const YamlNode& node,
                   Entry& entry) { return read_text(node, check_workdir, entry.spec.workdir); }},
    {"user", [](const YamlNode& node,
                Entry& entry) { return read_text(node, check_user, entry.spec.user); }},
    {"shell", [](const YamlNode& node,
                 Entry& entry) { return read_text(node, check_shell, entry.spec.shell); }},
    {"scripts", &read_scripts},
    {"command", &read_command},
    {"scope", [](const YamlNode& node,
                 Entry& entry) { return read_optional(node, parse_scope, entry.spec.scope); }},
    {"network", [](const YamlNode& node,
                   Entry& entry) { return read_texts(node, check_rule, entry.spec.network); }},
    {"timeout",
     [](const YamlNode& node, Entry& entry) {
       return read_optional(node, parse_duration, entry.spec.timeout_s);
     }},
    {"idle_timeout",
     [](const YamlNode& node, Entry& entry) {
       return read_optional(node, parse_duration, entry.spec.idle_timeout_s);
     }},
    {"version", &ignore_text<Entry>},
    {"meta", &ignore_meta<Entry>},
    {"imports", &ignore_paths<Entry>},
    {"exports", &ignore_paths<Entry>},
}};

Read read_entry(const YamlMember& member, Entry& entry) {
  entry.name = member.key.text;
  entry.places.name = member.key.position;
  if (auto good = check_name(entry.name); !good) {
    return flaw(member.key, good.error().message);
  }
  if (member.value.kind != YamlKind::kNull) {
    if (auto read = read_fields(member.value, std::span<const Field<Entry>>(kEntryFields), entry);
        !read) {
      return read;
    }
  }
  if (entry.spec.image.empty()) {
    return flaw(member.key, fmt::format("\"{}\" has no image; write one below it, such as \"image: "
                                        "python:3.12\"",
                                        entry.name));
  }
  return {};
}

Read read_sandboxes(const YamlNode& node, Sandboxfile& file) {
  if (node.kind != YamlKind::kMap) {
    return flaw(node,
                "sandboxes has to be a map, each \"NAME:\" with the sandbox's fields below it");
  }
  if (node.members.size() > kMaxSandboxes) {
    return flaw(node.members[kMaxSandboxes].key,
                fmt::format("there are more than {} sandboxes", kMaxSandboxes));
  }
  for (const YamlMember& member : node.members) {
    if (auto read = read_entry(member, file.sandboxes.emplace_back()); !read) {
      return read;
    }
  }
  return {};
}

constexpr std::array<Field<Sandboxfile>, 2> kFields = {
    {{"meta", &ignore_meta<Sandboxfile>}, {kSandboxes, &read_sandboxes}}};

}  // namespace

std::expected<Sandboxfile, YamlFlaw> read_sandboxfile(const YamlNode& root) {
  Sandboxfile file;
  if (root.kind == YamlKind::kNull) {
    return file;
  }
  if (root.kind != YamlKind::kMap) {
    return flaw(root, "a Sandboxfile is a map that begins with \"sandboxes:\"");
  }
  if (auto read = read_fields(root, std::span<const Field<Sandboxfile>>(kFields), file); !read) {
    return std::unexpected(read.error());
  }
  if (auto wrong = find_dependency_flaw(file)) {
    return std::unexpected(std::move(*wrong));
  }
  return file;
}

Result<Sandboxfile> parse_sandboxfile(std::string_view text, std::string_view name) {
  const auto root = parse_yaml(text);
  if (!root) {
    return std::unexpected(error_at(name, root.error()));
  }
  auto file = read_sandboxfile(*root);
  if (!file) {
    return std::unexpected(error_at(name, file.error()));
  }
  return std::move(*file);
}

}  // namespace msb::sandbox
