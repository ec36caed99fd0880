// SPDX-License-Identifier: Apache-2.0
#include "oci/base64.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <limits>

namespace msb::oci {
namespace {

constexpr std::size_t kBytes = 3;  // become
constexpr std::size_t kDigits = 4;
// EVP counts in int.
constexpr std::size_t kMaxLength = std::numeric_limits<int>::max() / 2;

const unsigned char* as_bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

}  // namespace

std::string encode_base64(std::string_view bytes) {
  bytes = bytes.substr(0, kMaxLength);
  // EVP ends it with a zero byte.
  std::string text((bytes.size() + kBytes - 1) / kBytes * kDigits + 1, '\0');
  const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), as_bytes(bytes),
                                     static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(length));
  return text;
}

std::optional<std::string> decode_base64(std::string_view text) {
  if (text.size() % kDigits != 0 || text.size() > kMaxLength) {
    return std::nullopt;
  }
  std::string bytes(text.size() / kDigits * kBytes, '\0');
  const int length = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()), as_bytes(text),
                                     static_cast<int>(text.size()));
  if (length < 0) {
    return std::nullopt;
  }
  // EVP counts the padding as zero bytes.
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  bytes.resize(static_cast<std::size_t>(length) - std::min<std::size_t>(padding, length));
  // EVP skips white space and takes '=' anywhere; only what it would write itself is accepted.
  if (encode_base64(bytes) != text) {
    return std::nullopt;
  }
  return bytes;
}

}  // namespace msb::oci
