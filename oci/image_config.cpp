// SPDX-License-Identifier: Apache-2.0
// The configuration of an image (config.md).
#include <utility>

#include "oci/image_spec.hpp"
#include "oci/json_document.hpp"

namespace msb::oci {
namespace {

Result<void> parse_labels(const Json& execution, ImageConfig& config) {
  const auto labels = typed_member(execution, "Labels", Json::value_t::object, false);
  if (!labels) {
    return std::unexpected(labels.error());
  }
  if (*labels == nullptr) {
    return {};
  }
  for (const auto& [name, value] : (*labels)->items()) {
    if (!value.is_string()) {
      return fail("field 'Labels' has a value that is not a string");
    }
    config.labels.emplace(name, value.get_ref<const std::string&>());
  }
  return {};
}

Result<void> parse_history(const Json& document, ImageConfig& config) {
  const auto history = typed_member(document, "history", Json::value_t::array, false);
  if (!history) {
    return std::unexpected(history.error());
  }
  if (*history == nullptr) {
    return {};
  }
  if ((*history)->size() > kMaxStrings) {
    return fail("field 'history' has more than {} elements", kMaxStrings);
  }
  for (const Json& element : **history) {
    if (!element.is_object()) {
      return fail("field 'history' has an element that is not an object");
    }
    HistoryEntry entry;
    for (const Text& field :
         {Text{"created", &entry.created}, Text{"created_by", &entry.created_by},
          Text{"comment", &entry.comment}}) {
      if (auto read = read_text(element, field); !read) {
        return std::unexpected(read.error().within("field 'history'"));
      }
    }
    const Json* empty = find(element, "empty_layer");
    if (empty != nullptr && !empty->is_boolean()) {
      return fail("field 'history': field 'empty_layer' is not true or false");
    }
    entry.empty_layer = empty != nullptr && empty->get<bool>();
    config.history.push_back(std::move(entry));
  }
  return {};
}

Result<void> parse_diff_ids(const Json& document, ImageConfig& config) {
  const auto rootfs = typed_member(document, "rootfs", Json::value_t::object, true);
  if (!rootfs) {
    return std::unexpected(rootfs.error());
  }
  const auto diff_ids = string_list(**rootfs, "diff_ids");
  if (!diff_ids) {
    return std::unexpected(diff_ids.error());
  }
  for (const std::string& text : *diff_ids) {
    const auto digest = Digest::parse(text);
    if (!digest) {
      return std::unexpected(digest.error().within("field 'diff_ids'"));
    }
    config.diff_ids.push_back(*digest);
  }
  return {};
}

// config.md, "config".
Result<void> parse_execution(const Json& execution, ImageConfig& config) {
  for (const Text& field : {Text{"WorkingDir", &config.working_dir}, Text{"User", &config.user},
                            Text{"StopSignal", &config.stop_signal}}) {
    if (auto read = read_text(execution, field); !read) {
      return read;
    }
  }
  struct List {
    std::string_view name;
    Result<std::vector<std::string>> (*read)(const Json&, std::string_view);
    std::vector<std::string>* into;
  };
  for (const List& field :
       {List{"Env", string_list, &config.env}, List{"Entrypoint", string_list, &config.entrypoint},
        List{"Cmd", string_list, &config.cmd}, List{"Volumes", string_set, &config.volumes},
        List{"ExposedPorts", string_set, &config.exposed_ports}}) {
    auto list = field.read(execution, field.name);
    if (!list) {
      return std::unexpected(list.error());
    }
    *field.into = std::move(*list);
  }
  return parse_labels(execution, config);
}

}  // namespace

Result<ImageConfig> parse_config(std::string_view json) {
  const auto document = parse_object(json);
  if (!document) {
    return std::unexpected(document.error());
  }
  ImageConfig config;
  if (auto parsed = parse_diff_ids(*document, config); !parsed) {
    return std::unexpected(parsed.error());
  }
  if (auto parsed = parse_history(*document, config); !parsed) {
    return std::unexpected(parsed.error());
  }
  const auto execution = typed_member(*document, "config", Json::value_t::object, false);
  if (!execution) {
    return std::unexpected(execution.error());
  }
  static const Json kEmpty = Json::object();
  const Json& defaults = *execution == nullptr ? kEmpty : **execution;
  if (auto parsed = parse_execution(defaults, config); !parsed) {
    return std::unexpected(parsed.error());
  }
  for (const Text& field : {Text{"os", &config.os}, Text{"architecture", &config.architecture},
                            Text{"created", &config.created}, Text{"author", &config.author}}) {
    if (auto read = read_text(*document, field); !read) {
      return std::unexpected(read.error());
    }
  }
  return config;
}

}  // namespace msb::oci
