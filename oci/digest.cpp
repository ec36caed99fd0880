// SPDX-License-Identifier: Apache-2.0
#include "oci/digest.hpp"

#include <openssl/evp.h>

#include <new>
#include <optional>
#include <stdexcept>

#include "oci/printable.hpp"

namespace msb::oci {
namespace {

constexpr std::string_view kPrefix = "sha256:";
constexpr std::string_view kHexDigits = "0123456789abcdef";

std::optional<unsigned> hex_value(char digit) {
  const auto position = kHexDigits.find(digit);
  if (position == std::string_view::npos) {
    return std::nullopt;
  }
  return static_cast<unsigned>(position);
}

// OpenSSL fails here only when it is out of memory or built without SHA-256.
void expect(int outcome) {
  if (outcome != 1) {
    throw std::runtime_error("OpenSSL cannot compute SHA-256");
  }
}

EVP_MD_CTX* as_context(void* context) {
  return static_cast<EVP_MD_CTX*>(context);
}

}  // namespace

Result<Digest> Digest::parse(std::string_view text) {
  const auto malformed = [&] {
    return fail("'{}' is not a digest of the form sha256:<64 lowercase hexadecimal digits>",
                printable(text, 128));
  };
  if (!text.starts_with(kPrefix) || text.size() != kPrefix.size() + 2 * kSize) {
    return malformed();
  }
  std::array<std::byte, kSize> bytes{};
  const std::string_view hex = text.substr(kPrefix.size());
  for (std::size_t i = 0; i < kSize; ++i) {
    const auto high = hex_value(hex[2 * i]);
    const auto low = hex_value(hex[2 * i + 1]);
    if (!high || !low) {
      return malformed();
    }
    bytes[i] = static_cast<std::byte>(*high << 4U | *low);
  }
  return Digest(bytes);
}

Digest Digest::of(std::span<const std::byte> content) {
  Hasher hasher;
  hasher.update(content);
  return hasher.finish();
}

std::string Digest::hex() const {
  std::string text;
  text.reserve(2 * kSize);
  for (const std::byte byte : bytes_) {
    text += kHexDigits[std::to_integer<unsigned>(byte) >> 4U];
    text += kHexDigits[std::to_integer<unsigned>(byte) & 0xFU];
  }
  return text;
}

std::string Digest::to_string() const {
  return std::string(kPrefix) + hex();
}

void Hasher::Free::operator()(void* context) const {
  EVP_MD_CTX_free(as_context(context));
}

Hasher::Hasher() : context_(EVP_MD_CTX_new()) {
  if (!context_) {
    throw std::bad_alloc();
  }
  expect(EVP_DigestInit_ex(as_context(context_.get()), EVP_sha256(), nullptr));
}

Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;
Hasher::~Hasher() = default;

void Hasher::update(std::span<const std::byte> piece) {
  expect(EVP_DigestUpdate(as_context(context_.get()), piece.data(), piece.size()));
}

Digest Hasher::finish() {
  std::array<std::byte, Digest::kSize> bytes{};
  EVP_MD_CTX* context = as_context(context_.get());
  expect(EVP_DigestFinal_ex(context, reinterpret_cast<unsigned char*>(bytes.data()), nullptr));
  expect(EVP_DigestInit_ex(context, EVP_sha256(), nullptr));
  return Digest::from_bytes(bytes);
}

}  // namespace msb::oci
