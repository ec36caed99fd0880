// SPDX-License-Identifier: Apache-2.0
// Files of a sandbox's state. The directory that they are in may come with a cloned repository, so
// nothing is reached through a symbolic link that is there.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace msb::sandbox {

using Json = nlohmann::ordered_json;

// Opens `path`, which is made (mode 0700, with its parents) when it is missing. Fails when it is
// something else than a directory of this user's.
Result<Fd> make_directory(const std::string& path);
// Nothing when there is none.
Result<std::optional<Fd>> open_directory(const std::string& path);

// At most `limit` bytes of a regular file; nothing when there is none. Fails for a larger one.
Result<std::optional<std::string>> read_file(const std::string& path, std::size_t limit);
// The same of one that is open already; `path`: its name, for errors.
Result<std::string> read_open_file(const Fd& file, const std::string& path, std::size_t limit);
// Replaces it: whoever reads sees the old content or the new one, also after a crash.
Result<void> write_file(const std::string& path, std::string_view content, unsigned mode = 0600);

// The same with an object of JSON; fails with a sentence that names the file when it is none.
Result<std::optional<Json>> read_json_file(const std::string& path);
Result<void> write_json_file(const std::string& path, const Json& document);

// What was made, renamed or removed in a directory stays so when this host loses power.
Result<void> sync_directory(const std::string& path);

// Members of an object from a file that nobody vouches for: nothing, unless they are of that type.
std::optional<std::string> text_member(const Json& document, const char* name);
std::optional<std::int64_t> number_member(const Json& document, const char* name);

// Deletes a directory and what is in it, without following symbolic links.
Result<void> remove_tree(const std::string& path);

}  // namespace msb::sandbox
