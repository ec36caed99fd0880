// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: the documents of an image. The first byte chooses which one the rest is, or
// that it is several, with zero bytes between them: indexes, a manifest and a configuration.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "oci/digest.hpp"
#include "oci/image.hpp"
#include "oci/image_spec.hpp"

namespace msb::oci {
namespace {

enum class Document : std::uint8_t {
  kMarker,
  kIndex,
  kManifest,
  kConfig,
  kImage,
  kDigest,
  kMediaType,
  kNested
};
constexpr unsigned kDocuments = 8;

void require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

// A refusal is one sentence in one line, whatever the document has in it.
template <typename T>
void check_refusal(const Result<T>& result) {
  if (!result) {
    require(!result.error().message.empty());
    require(result.error().message.find_first_of("\n\x1b") == std::string::npos);
  }
}

void check_digest(std::string_view text) {
  const auto digest = Digest::parse(text);
  check_refusal(digest);
  require(!digest || digest->to_string() == text);
}

void check_index(std::string_view json) {
  const auto index = parse_index(json);
  check_refusal(index);
  require(!index || index->entries.size() <= kMaxIndexEntries);
}

// Gives the documents that zero bytes stand between, one after the other, whatever it is asked for.
class Documents final : public ImageSource {
 public:
  explicit Documents(std::string_view text) : rest_(text) {}

  Result<std::string> document(const Descriptor& /*descriptor*/) override {
    const auto zero = rest_.find('\0');
    std::string next(rest_.substr(0, zero));
    rest_ = zero == std::string_view::npos ? std::string_view() : rest_.substr(zero + 1);
    return next;
  }

  Result<std::unique_ptr<PieceSource>> blob(const Descriptor& descriptor) override {
    return fail("no blob {}", descriptor.digest.to_string());
  }

 private:
  std::string_view rest_;
};

void check_image(ImageSource& source, const Descriptor& manifest) {
  const auto image = load_image(source, manifest);
  check_refusal(image);
  if (image) {
    require(image->layers.size() <= kMaxLayers);
    require(image->layers.size() == image->config.diff_ids.size());
    require(image->config.os.empty() || image->config.os == kOs);
    require(image->config.architecture.empty() || image->config.architecture == kArchitecture);
  }
}

Descriptor descriptor_of(std::string_view media_type) {
  return {std::string(media_type), Digest::of({}), 0};
}

void check_nested(std::string_view text) {
  Documents source(text);
  const auto manifest =
      find_manifest(source, descriptor_of("application/vnd.oci.image.index.v1+json"));
  if (manifest) {
    require(is_manifest(manifest->media_type));
    check_image(source, *manifest);
  }
}

}  // namespace
}  // namespace msb::oci

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace msb::oci;
  if (size == 0) {
    return 0;
  }
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (static_cast<Document>(*data % kDocuments)) {
    case Document::kMarker:
      check_refusal(check_layout_marker(text));
      break;
    case Document::kIndex:
      check_index(text);
      break;
    case Document::kManifest:
      check_refusal(parse_manifest(text));
      break;
    case Document::kConfig:
      check_refusal(parse_config(text));
      break;
    case Document::kImage: {
      Documents source(text);
      check_image(source, descriptor_of("application/vnd.oci.image.manifest.v1+json"));
      break;
    }
    case Document::kNested:
      check_nested(text);
      break;
    case Document::kDigest:
      check_digest(text);
      break;
    case Document::kMediaType:
      check_refusal(layer_compression(text));
      require(!is_index(text) || !is_manifest(text));
      break;
  }
  return 0;
}
