// SPDX-License-Identifier: Apache-2.0
#include "oci/layer.hpp"

#include <memory>
#include <vector>

#include "oci/decompressor.hpp"
#include "oci/erofs_writer.hpp"
#include "oci/file_source.hpp"
#include "oci/layer_tree.hpp"
#include "oci/printable.hpp"
#include "oci/tar_reader.hpp"

namespace msb::oci {
namespace {

// Passes pieces on while it counts and hashes them, and stops at a limit.
class VerifiedSource final : public PieceSource {
 public:
  VerifiedSource(PieceSource& source, std::uint64_t limit, std::string_view what)
      : source_(source), limit_(limit), what_(what) {}

  Result<std::span<const std::byte>> next() override {
    auto piece = source_.next();
    if (!piece) {
      return piece;
    }
    size_ += piece->size();
    if (size_ > limit_) {
      return fail("{} is longer than {} bytes", what_, limit_);
    }
    hasher_.update(*piece);
    return piece;
  }

  // Reads on to the end.
  Result<void> drain() {
    return for_each_piece(*this, [](std::span<const std::byte>) { return Result<void>(); });
  }

  [[nodiscard]] std::uint64_t size() const { return size_; }
  Digest digest() { return hasher_.finish(); }

 private:
  PieceSource& source_;
  std::uint64_t limit_;
  std::string_view what_;
  std::uint64_t size_ = 0;
  Hasher hasher_;
};

// One conversion. Its parts refer to each other, so it stays where it is.
class Conversion {
 public:
  Conversion(PieceSource& blob, const Layer& layer, int output_fd, const LayerLimits& limits)
      : layer_(layer),
        limits_(limits),
        blob_(blob, layer.blob.size, "the blob"),
        decompressor_(make_decompressor(layer.compression, blob_)),
        tar_(*decompressor_, limits.tar_bytes, "the unpacked layer"),
        reader_(tar_),
        tree_(limits.entries),
        writer_(output_fd) {}

  Result<LayerStatistics> run() {
    if (auto converted = convert_entries(); !converted) {
      return std::unexpected(explain(converted.error()));
    }
    if (auto checked = check_blob(); !checked) {
      return std::unexpected(checked.error());
    }
    if (const Digest found = tar_.digest(); found != layer_.diff_id) {
      return fail("its content has the diff ID {} instead of {}", found.to_string(),
                  layer_.diff_id.to_string());
    }
    const auto image = writer_.finish(tree_, layer_.diff_id);
    if (!image) {
      return std::unexpected(image.error());
    }
    return LayerStatistics{.blob_bytes = blob_.size(),
                           .tar_bytes = tar_.size(),
                           .image_bytes = image->length,
                           .entries = image->names,
                           .implied_directories = image->implied_directories};
  }

 private:
  Result<void> convert_entries();
  Result<void> convert_entry(const TarEntry& entry);
  Result<RegularContent> copy_content(const TarEntry& entry, std::size_t xattrs_size);
  Result<void> skip_content();
  Result<void> check_blob();
  Error explain(const Error& error);

  const Layer& layer_;
  const LayerLimits& limits_;
  VerifiedSource blob_;
  std::unique_ptr<PieceSource> decompressor_;
  VerifiedSource tar_;
  TarReader reader_;
  LayerTree tree_;
  ErofsWriter writer_;
  std::uint64_t content_bytes_ = 0;  // of all files, holes included
};

Result<void> Conversion::convert_entries() {
  for (;;) {
    const auto entry = reader_.next_entry();
    if (!entry) {
      return std::unexpected(entry.error());
    }
    if (!*entry) {
      // What follows the end-of-archive marker belongs to the diff ID.
      return tar_.drain();
    }
    if (auto converted = convert_entry(**entry); !converted) {
      return converted;
    }
  }
}

Result<void> Conversion::convert_entry(const TarEntry& entry) {
  if (entry.hard_link) {
    if (auto added = tree_.add_hard_link(entry.entry.path, *entry.hard_link); !added) {
      return added;
    }
    return skip_content();
  }
  const auto inode = tree_.add(entry.entry);
  if (!inode) {
    return std::unexpected(inode.error());
  }
  if (!*inode) {
    return skip_content();
  }
  const auto content = copy_content(entry, tree_.inode(**inode).xattrs.length);
  if (!content) {
    return std::unexpected(
        content.error().within(fmt::format("entry '{}'", printable(entry.entry.path))));
  }
  tree_.set_content(**inode, *content);
  return {};
}

Result<RegularContent> Conversion::copy_content(const TarEntry& entry, std::size_t xattrs_size) {
  // Holes take no bytes in the archive, so its length alone bounds nothing.
  if (entry.size > limits_.tar_bytes - content_bytes_) {
    return fail("the files of the layer are longer than {} bytes", limits_.tar_bytes);
  }
  content_bytes_ += entry.size;
  if (auto begun = writer_.begin_file(entry.size, xattrs_size); !begun) {
    return std::unexpected(begun.error());
  }
  for (;;) {
    const auto data = reader_.next_data();
    if (!data) {
      return std::unexpected(data.error());
    }
    if (!*data) {
      return writer_.end_file();
    }
    if (auto written = writer_.write_file((*data)->offset, (*data)->bytes); !written) {
      return std::unexpected(written.error());
    }
  }
}

// Whiteouts and links may carry content that means nothing.
Result<void> Conversion::skip_content() {
  for (;;) {
    const auto data = reader_.next_data();
    if (!data) {
      return std::unexpected(data.error());
    }
    if (!*data) {
      return {};
    }
  }
}

Result<void> Conversion::check_blob() {
  // Decompressors end where the compressed data ends, plain tars where the reader stopped.
  if (auto drained = blob_.drain(); !drained) {
    return drained;
  }
  if (blob_.size() != layer_.blob.size) {
    return fail("the blob has {} bytes instead of {}", blob_.size(), layer_.blob.size);
  }
  if (const Digest found = blob_.digest(); found != layer_.blob.digest) {
    return fail("the blob does not match its digest: its content is {}", found.to_string());
  }
  return {};
}

// A blob that was damaged on its way fails first as broken data; that it does not match its digest
// says more.
Error Conversion::explain(const Error& error) {
  if (error.code != 0) {
    return error;
  }
  const auto checked = check_blob();
  return checked ? error : checked.error();
}

}  // namespace

Result<LayerStatistics> convert_layer(PieceSource& blob, const Layer& layer, int output_fd,
                                      const LayerLimits& limits) {
  auto statistics = Conversion(blob, layer, output_fd, limits).run();
  if (!statistics) {
    return std::unexpected(
        statistics.error().within(fmt::format("layer {}", layer.blob.digest.to_string())));
  }
  return statistics;
}

}  // namespace msb::oci
