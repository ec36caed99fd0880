// SPDX-License-Identifier: Apache-2.0
// Images for the tests of the store, and a source of them that counts and can be made to fail.
#pragma once

#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "oci/archive_documents.hpp"
#include "oci/image.hpp"
#include "oci/test_support.hpp"

namespace msb::oci::testing {

// Gives what was added to it.
class MemorySource final : public ImageSource {
 public:
  // Adds an image of these layers; `user` makes its configuration differ from others.
  Descriptor add(const std::vector<PackedLayer>& layers, std::string_view user = "") {
    std::string diff_ids;
    std::vector<Descriptor> blobs;
    for (const PackedLayer& packed : layers) {
      diff_ids +=
          fmt::format(R"({}"{}")", diff_ids.empty() ? "" : ",", packed.layer.diff_id.to_string());
      blobs.push_back(packed.layer.blob);
      contents_[packed.layer.blob.digest] = packed.blob;
    }
    const Descriptor config = add_document(
        kConfigMediaType,
        fmt::format(R"({{"os":"linux","architecture":"amd64","config":{{"User":"{}"}},)"
                    R"("rootfs":{{"type":"layers","diff_ids":[{}]}}}})",
                    user, diff_ids));
    return add_document(kManifestMediaType, write_manifest(config, blobs));
  }

  Descriptor add_document(std::string_view media_type, const std::string& content) {
    const Digest digest = digest_of(content);
    contents_[digest] = content;
    return {std::string(media_type), digest, content.size()};
  }

  // What the source gives in place of a blob.
  void replace(const Digest& digest, std::string content) {
    contents_[digest] = std::move(content);
  }

  [[nodiscard]] int blobs_given() const { return blobs_given_; }

  Result<std::string> document(const Descriptor& descriptor) override {
    const auto found = contents_.find(descriptor.digest);
    if (found == contents_.end()) {
      return fail("there is no document {}", descriptor.digest.to_string());
    }
    return found->second;
  }

  Result<std::unique_ptr<PieceSource>> blob(const Descriptor& descriptor) override {
    const auto found = contents_.find(descriptor.digest);
    if (found == contents_.end()) {
      return fail("there is no blob {}", descriptor.digest.to_string());
    }
    ++blobs_given_;
    constexpr std::size_t kPiece = 4096;
    return std::make_unique<Pieces>(found->second, kPiece);
  }

 private:
  std::map<Digest, std::string> contents_;
  std::atomic<int> blobs_given_ = 0;
};

inline PackedLayer layer_of(const std::string& name, std::size_t size = 100,
                            Compression compression = Compression::kGzip) {
  std::string content;
  for (std::size_t i = 0; content.size() < size; ++i) {
    content += fmt::format("{} {}\n", name, i * 2654435761U);
  }
  content.resize(size);
  return pack(Tar().file(name, content).bytes(), compression);
}

}  // namespace msb::oci::testing
