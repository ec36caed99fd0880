// SPDX-License-Identifier: Apache-2.0
#include "cli/copy_words.hpp"

#include "sandbox/identity.hpp"

namespace msb::cli {

CopyWord parse_copy_word(const std::string& word) {
  const std::size_t colon = word.find(':');
  if (colon == std::string::npos || !sandbox::check_name(word.substr(0, colon))) {
    return {"", word};
  }
  return {word.substr(0, colon), word.substr(colon + 1)};
}

CopyPath parse_copy_path(std::string_view path) {
  CopyPath parsed;
  const auto strip = [&] {
    while (path.size() > 1 && path.ends_with('/')) {
      path.remove_suffix(1);
      parsed.directory = true;
    }
  };
  strip();
  while (path.ends_with("/.")) {
    parsed.content = parsed.directory = true;
    path.remove_suffix(path.size() == 2 ? 1 : 2);
    strip();
  }
  parsed.path = path;
  parsed.name = name_of(parsed.path);
  // These have no name that a copy could get.
  if (parsed.name.empty() || parsed.name == "." || parsed.name == "..") {
    parsed.content = parsed.directory = true;
  }
  if (parsed.content) {
    parsed.name.clear();
  }
  return parsed;
}

Result<CopyPlace> choose_copy_place(const CopyPath& source, CopyKind source_kind,
                                    const CopyPath& destination, CopyKind destination_kind,
                                    std::string_view shown) {
  const bool is_tree = source_kind == CopyKind::kDirectory;
  if (source.directory && !is_tree) {
    return fail("'{}' is no directory", source.path);
  }
  switch (destination_kind) {
    case CopyKind::kDirectory:
      if (source.content) {
        return CopyPlace{destination.path, true};
      }
      return CopyPlace{
          fmt::format("{}/{}", destination.path == "/" ? "" : destination.path, source.name),
          false};
    case CopyKind::kOther:
      if (is_tree || destination.directory) {
        return fail("{} is no directory", shown);
      }
      break;
    case CopyKind::kMissing:
      if (!is_tree && destination.directory) {
        return fail("there is no directory {}", shown);
      }
      break;
  }
  return CopyPlace{destination.path, is_tree};
}

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) {
    return ".";
  }
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string name_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

}  // namespace msb::cli
