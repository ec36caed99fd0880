// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/blob_source.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "oci/printable.hpp"
#include "oci/registry/header_fields.hpp"
#include "oci/registry/status.hpp"

namespace msb::oci {
namespace {

// Less than this between two failures is no progress: a server must not keep a client busy by the
// byte.
constexpr std::uint64_t kProgress = 64 * 1024;
constexpr std::array<long, 1> kExpected = {kStatusRangeNotSatisfiable};

}  // namespace

Result<std::span<const std::byte>> BlobSource::next() {
  while (!ended_) {
    auto piece = pull();
    if (piece && !piece->empty()) {
      received_ += piece->size();
      progress_ += piece->size();
      return *piece;
    }
    exchange_.reset();
    // A transfer that breaks after the last byte has brought everything.
    const bool refused = !piece && piece.error().kind == Failure::Kind::kFinal;
    if (received_ == blob_.size && !refused) {
      ended_ = true;
      break;
    }
    const Failure failure =
        piece
            ? Failure{.error = fail("the transfer ends after {} of {} bytes", received_, blob_.size)
                                   .error(),
                      .kind = Failure::Kind::kTransient}
            : std::move(piece.error());
    if (progress_ >= kProgress) {
      retries_.made_progress();
      progress_ = 0;
    }
    if (auto waited = retries_.wait_after(failure); !waited) {
      return std::unexpected(
          waited.error().within(fmt::format("blob {}", blob_.digest.to_string())));
    }
  }
  return std::span<const std::byte>();
}

Attempt<void> BlobSource::open() {
  RegistryRequest request{
      .method = HttpRequest::Method::kGet,
      .path = fmt::format("/v2/{}/blobs/{}", session_->repository(), blob_.digest.to_string()),
      .headers = {},
      .subject = fmt::format("blob {} of '{}/{}'", blob_.digest.to_string(), session_->registry(),
                             session_->repository())};
  if (received_ > 0) {
    request.headers.push_back(fmt::format("Range: bytes={}-", received_));
  }
  auto exchange = session_->attempt(request, kExpected);
  if (!exchange) {
    return std::unexpected(exchange.error());
  }
  const HttpHead& head = (*exchange)->head();
  const std::string* length_field = head.find("content-length");
  const std::string* range_field = head.find("content-range");
  std::uint64_t start = 0;
  if (head.status == kStatusRangeNotSatisfiable) {
    return fail_as(Failure::Kind::kFinal, "the registry has only {} of its {} bytes", received_,
                   blob_.size);
  }
  if (head.status == kStatusPartialContent) {
    const auto range = range_field == nullptr ? std::nullopt : parse_content_range(*range_field);
    if (!range || range->first != received_) {
      return fail_as(Failure::Kind::kFinal,
                     "the registry answers with the range '{}' where bytes from {} on were asked "
                     "for",
                     range_field == nullptr ? "" : printable(*range_field), received_);
    }
    start = received_;
  }
  if (const auto length =
          length_field == nullptr ? std::nullopt : parse_content_length(*length_field);
      length && *length > blob_.size - start) {
    return fail_as(Failure::Kind::kFinal, "the registry has more than its {} bytes", blob_.size);
  }
  skip_ = received_ - start;
  exchange_ = std::move(*exchange);
  return {};
}

Attempt<std::span<const std::byte>> BlobSource::pull() {
  if (!exchange_) {
    if (auto opened = open(); !opened) {
      return std::unexpected(opened.error());
    }
  }
  while (true) {
    auto piece = exchange_->next();
    if (!piece || piece->empty()) {
      return piece;
    }
    const auto skipped = static_cast<std::size_t>(std::min<std::uint64_t>(skip_, piece->size()));
    skip_ -= skipped;
    const auto fresh = piece->subspan(skipped);
    if (fresh.size() > blob_.size - received_) {
      return fail_as(Failure::Kind::kFinal, "the registry sends more than its {} bytes",
                     blob_.size);
    }
    if (!fresh.empty()) {
      return fresh;
    }
  }
}

}  // namespace msb::oci
