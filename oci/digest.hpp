// SPDX-License-Identifier: Apache-2.0
// Content digests (OCI image-spec, descriptor.md, "Digests"). Only sha256 is accepted: it is what
// every registry and builder writes, and a second algorithm would give the same content two names.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace msb::oci {

// A SHA-256 digest. A value of this type is always well-formed, so its hex() can be a file name.
class Digest {
 public:
  static constexpr std::size_t kSize = 32;  // bytes

  // Accepts exactly "sha256:" and 64 lowercase hexadecimal digits; fails with a sentence that
  // quotes the text.
  static Result<Digest> parse(std::string_view text);
  static Digest of(std::span<const std::byte> content);
  static Digest from_bytes(const std::array<std::byte, kSize>& bytes) { return Digest(bytes); }

  [[nodiscard]] const std::array<std::byte, kSize>& bytes() const { return bytes_; }
  [[nodiscard]] std::string hex() const;        // 64 characters
  [[nodiscard]] std::string to_string() const;  // "sha256:" and hex()

  auto operator<=>(const Digest&) const = default;

 private:
  explicit Digest(const std::array<std::byte, kSize>& bytes) : bytes_(bytes) {}

  std::array<std::byte, kSize> bytes_;
};

// Computes the digest of content that arrives in pieces.
class Hasher {
 public:
  Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  ~Hasher();

  void update(std::span<const std::byte> piece);
  // The digest of all pieces so far. Afterwards the hasher is as new.
  Digest finish();

 private:
  struct Free {
    void operator()(void* context) const;
  };
  std::unique_ptr<void, Free> context_;
};

}  // namespace msb::oci
