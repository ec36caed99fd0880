// SPDX-License-Identifier: Apache-2.0
#include "oci/decompressor.hpp"

#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include <limits>
#include <new>
#include <utility>
#include <vector>

namespace msb::oci {
namespace {

constexpr std::size_t kOutputSize = std::size_t{256}
                                    << 10;  // bytes; stays in the second-level cache

// What both decompressors share: input that is fetched when it is used up.
class Input {
 public:
  explicit Input(PieceSource& source) : source_(source) {}

  // Whether there are bytes, after fetching some if need be.
  Result<bool> fill() {
    if (bytes_.empty()) {
      auto piece = source_.next();
      if (!piece) {
        return std::unexpected(std::move(piece.error()));
      }
      bytes_ = *piece;
    }
    return !bytes_.empty();
  }

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  void consume(std::size_t count) { bytes_ = bytes_.subspan(count); }

 private:
  PieceSource& source_;
  std::span<const std::byte> bytes_;
};

class Plain final : public PieceSource {
 public:
  explicit Plain(PieceSource& source) : source_(source) {}
  Result<std::span<const std::byte>> next() override { return source_.next(); }

 private:
  PieceSource& source_;
};

class Gzip final : public PieceSource {
 public:
  explicit Gzip(PieceSource& source) : input_(source), output_(kOutputSize) { start_member(); }

  Result<std::span<const std::byte>> next() override {
    for (;;) {
      const auto more = input_.fill();
      if (!more) {
        return std::unexpected(more.error());
      }
      if (state_.block_state == ISAL_BLOCK_FINISH) {
        if (!*more) {
          return std::span<const std::byte>();
        }
        start_member();
      }
      auto produced = inflate(*more);
      if (!produced || !produced->empty()) {
        return produced;
      }
    }
  }

 private:
  void start_member() {
    isal_inflate_init(&state_);
    state_.crc_flag = ISAL_GZIP_NO_HDR_VER;
    isal_gzip_header_init(&header_);
    in_header_ = true;
  }

  Result<std::span<const std::byte>> inflate(bool more) {
    const auto offered = input_.bytes();
    // The library does not write to its input.
    state_.next_in = reinterpret_cast<std::uint8_t*>(const_cast<std::byte*>(offered.data()));
    state_.avail_in = static_cast<std::uint32_t>(offered.size());
    state_.next_out = reinterpret_cast<std::uint8_t*>(output_.data());
    state_.avail_out = static_cast<std::uint32_t>(output_.size());
    // isal_inflate() would forget, between two pieces of a header, what fields are in it.
    const bool header = in_header_;
    const int outcome = header ? isal_read_gzip_header(&state_, &header_) : isal_inflate(&state_);
    in_header_ = header && outcome != ISAL_DECOMP_OK;
    if (outcome == ISAL_INCORRECT_CHECKSUM) {
      return fail("the gzip checksum is wrong");
    }
    if (outcome != ISAL_DECOMP_OK && outcome != ISAL_END_INPUT && outcome != ISAL_OUT_OVERFLOW) {
      return fail("the gzip data is broken");
    }
    input_.consume(offered.size() - state_.avail_in);
    const std::size_t produced = output_.size() - state_.avail_out;
    if (produced == 0 && !more && state_.block_state != ISAL_BLOCK_FINISH) {
      return fail("the gzip data ends early");
    }
    return std::span<const std::byte>(output_).first(produced);
  }

  Input input_;
  std::vector<std::byte> output_;
  inflate_state state_;
  isal_gzip_header header_;
  bool in_header_ = false;
};

class Zstd final : public PieceSource {
 public:
  explicit Zstd(PieceSource& source)
      : input_(source), output_(kOutputSize), stream_(ZSTD_createDStream()) {
    if (!stream_) {
      throw std::bad_alloc();
    }
  }

  Result<std::span<const std::byte>> next() override {
    for (;;) {
      const auto more = input_.fill();
      if (!more) {
        return std::unexpected(more.error());
      }
      if (!*more && between_frames_) {
        return std::span<const std::byte>();
      }
      const auto offered = input_.bytes();
      ZSTD_inBuffer in{offered.data(), offered.size(), 0};
      ZSTD_outBuffer out{output_.data(), output_.size(), 0};
      const std::size_t outcome = ZSTD_decompressStream(stream_.get(), &out, &in);
      if (ZSTD_isError(outcome) != 0) {
        return fail("the zstd data is broken: {}", ZSTD_getErrorName(outcome));
      }
      between_frames_ = outcome == 0;
      input_.consume(in.pos);
      if (out.pos > 0) {
        return std::span<const std::byte>(output_).first(out.pos);
      }
      if (!*more && !between_frames_) {
        return fail("the zstd data ends early");
      }
    }
  }

 private:
  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };

  Input input_;
  std::vector<std::byte> output_;
  std::unique_ptr<ZSTD_DStream, Free> stream_;
  bool between_frames_ = false;
};

}  // namespace

std::unique_ptr<PieceSource> make_decompressor(Compression compression, PieceSource& packed) {
  switch (compression) {
    case Compression::kGzip:
      return std::make_unique<Gzip>(packed);
    case Compression::kZstd:
      return std::make_unique<Zstd>(packed);
    case Compression::kNone:
      break;
  }
  return std::make_unique<Plain>(packed);
}

}  // namespace msb::oci
