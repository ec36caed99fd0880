// SPDX-License-Identifier: Apache-2.0
#include "server/mcp_content.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "oci/base64.hpp"
#include "server/utf8.hpp"

namespace msb::server {

namespace {

// What a model can look at.
constexpr std::array<std::string_view, 4> kImages = {"image/png", "image/jpeg", "image/webp",
                                                     "image/gif"};
// What it can read, that which it reads best first.
constexpr std::array<std::string_view, 5> kTexts = {
    "text/markdown", "text/latex", "application/json", "text/html", "image/svg+xml"};

Json image_content(std::string_view type, std::string_view base64) {
  return {{"type", "image"}, {"data", base64}, {"mimeType", type}};
}

// Clients refuse a whole result for an image that is no base64.
std::optional<std::string> clean_base64(std::string text) {
  std::erase_if(text, [](char c) { return c == '\n' || c == '\r'; });
  return oci::decode_base64(text) ? std::optional(std::move(text)) : std::nullopt;
}

// Whether the plain text, which the output has, says something itself; else it is as
// "<Table object at 0x7f3a>".
bool is_plain(const CodeValue& value) {
  const auto found = value.data.find("text/plain");
  return found != value.data.end() && !found->second.starts_with('<');
}

// The value beyond its plain text; nothing when it is no more than that.
std::optional<Json> value_content(const CodeValue& value) {
  for (const std::string_view type : kImages) {
    if (const auto found = value.data.find(type); found != value.data.end()) {
      auto base64 = clean_base64(found->second);
      return base64 ? image_content(type, *base64)
                    : text_content(fmt::format("({} was shown, which is no base64)", type));
    }
  }
  if (is_plain(value)) {
    return std::nullopt;
  }
  for (const std::string_view type : kTexts) {
    if (const auto found = value.data.find(type); found != value.data.end()) {
      return text_content(fmt::format("{}:\n{}", type, found->second));
    }
  }
  return std::nullopt;
}

std::size_t size_of(const Json& content) {
  const auto& bytes = content[content["type"] == "image" ? "data" : "text"];
  return bytes.get_ref<const std::string&>().size();
}

// What kind of image begins so; empty when it is none of kImages.
std::string_view image_type(std::string_view bytes) {
  constexpr std::size_t kRiffHeader = 8;  // "RIFF" and a length
  if (bytes.starts_with("\x89PNG\r\n\x1a\n")) {
    return "image/png";
  }
  if (bytes.starts_with("\xff\xd8\xff")) {
    return "image/jpeg";
  }
  if (bytes.starts_with("GIF87a") || bytes.starts_with("GIF89a")) {
    return "image/gif";
  }
  return bytes.starts_with("RIFF") &&
                 bytes.substr(std::min(kRiffHeader, bytes.size())).starts_with("WEBP")
             ? "image/webp"
             : "";
}

}  // namespace

Json text_content(std::string_view text) {
  return {{"type", "text"}, {"text", text}};
}

Json document_content(const Json& document) {
  constexpr int kIndent = 2;
  return text_content(document.dump(kIndent, ' ', false, Json::error_handler_t::replace));
}

Json code_content(const CodeResult& result) {
  Json content = Json::array({document_content(result.document)});
  std::size_t size = size_of(content[0]);
  std::size_t left_out = 0;
  for (const CodeValue& value : result.values) {
    auto one = value_content(value);
    if (!one) {
      continue;
    }
    if (size + size_of(*one) > kMaxContent) {
      ++left_out;
      continue;
    }
    size += size_of(*one);
    content.push_back(std::move(*one));
  }
  if (left_out > 0) {
    content.push_back(text_content(
        fmt::format("({} more were shown, and are left out: a result has at most {} MiB)", left_out,
                    kMaxContent >> 20)));
  }
  return content;
}

Json file_content(FilePiece piece) {
  bool more = piece.offset + piece.bytes.size() < piece.size;
  Json content = Json::array();
  const std::string_view image =
      piece.offset == 0 && !more ? image_type(piece.bytes) : std::string_view();
  // A character that the piece ends in the middle of is for the next one.
  const std::size_t length = piece.bytes.size();
  std::string text = WholeCharacters().add(piece.bytes);
  const bool whole = text.size() == length || (more && !text.empty());
  if (!image.empty()) {
    content.push_back(image_content(image, oci::encode_base64(piece.bytes)));
  } else if (whole && !text.contains('\0') && is_utf8(text)) {
    piece.bytes.resize(text.size());
    content.push_back(text_content(text));
  } else {
    content.push_back({{"type", "resource"},
                       {"resource",
                        {{"uri", piece.uri},
                         {"mimeType", "application/octet-stream"},
                         {"blob", oci::encode_base64(piece.bytes)}}}});
  }
  if (more) {
    const std::uint64_t next = piece.offset + piece.bytes.size();
    content.push_back(
        text_content(fmt::format("(bytes {} to {} of {}; the rest comes with \"offset\": {})",
                                 piece.offset, next, piece.size, next)));
  }
  return content;
}

}  // namespace msb::server
