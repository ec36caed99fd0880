// SPDX-License-Identifier: Apache-2.0
// What the words of `msb cp` mean: which one is in a sandbox, and where a copy goes (the rules of
// `docker cp`). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace msb::cli {

// NAME:PATH, or a path of this host, for which the name is empty.
struct CopyWord {
  std::string sandbox;
  std::string path;
};
CopyWord parse_copy_word(const std::string& word);

// A path, taken apart.
struct CopyPath {
  std::string path;        // without slashes at its end
  std::string name;        // its last component; empty with `content`
  bool content = false;    // it ended in "/.": what is in the directory, not the directory itself
  bool directory = false;  // it ended in a slash: it has to be one
};
CopyPath parse_copy_path(std::string_view path);

enum class CopyKind : std::uint8_t { kMissing, kDirectory, kOther };

// Where it goes: the path that the copy is to have. `content`: an existing directory, or a new one,
// gets what the source has in it.
struct CopyPlace {
  std::string path;
  bool content = false;
};
// `source_kind`: not kMissing. `shown`: how a sentence names the destination.
Result<CopyPlace> choose_copy_place(const CopyPath& source, CopyKind source_kind,
                                    const CopyPath& destination, CopyKind destination_kind,
                                    std::string_view shown);

// "/a/b" to "/a" and "b"; "b" to "." and "b".
std::string directory_of(const std::string& path);
std::string name_of(const std::string& path);

}  // namespace msb::cli
