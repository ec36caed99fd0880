// SPDX-License-Identifier: Apache-2.0
// What code and files of a sandbox give, as content of a tool's result: text and images that a
// model reads. It is the guest's, and not trusted to be what it says. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "server/exchange.hpp"
#include "server/run_results.hpp"

namespace msb::server {

// Bytes of content in one result, about.
inline constexpr std::size_t kMaxContent = std::size_t{24} << 20;

Json text_content(std::string_view text);
// Indented, as a model reads it.
Json document_content(const Json& document);

// Of a run of code: its document, then of each value its image, or, when its plain text says
// nothing, what a model reads best of its other texts, behind a line with the type. What is too
// large is left out, which the last content tells.
Json code_content(const CodeResult& result);

struct FilePiece {
  std::string uri;    // of the file
  std::string bytes;  // from `offset` on
  std::uint64_t offset = 0;
  std::uint64_t size = 0;  // of the whole file
};
// An image as one, when it is there from its beginning to its end; text as text; and other bytes as
// a blob. When there is more of the file, the last content says where to go on.
Json file_content(FilePiece piece);

}  // namespace msb::server
