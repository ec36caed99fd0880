// SPDX-License-Identifier: Apache-2.0
// The bytes of one blob, across as many transfers as it takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/result.hpp"
#include "oci/image_spec.hpp"
#include "oci/piece_source.hpp"
#include "oci/registry/attempt.hpp"
#include "oci/registry/http.hpp"
#include "oci/registry/retries.hpp"
#include "oci/registry/session.hpp"

namespace msb::oci {

// See Registry::blob().
class BlobSource final : public PieceSource {
 public:
  BlobSource(std::shared_ptr<RegistrySession> session, Descriptor blob)
      : session_(std::move(session)), blob_(std::move(blob)), retries_(session_->retries()) {}

  Result<std::span<const std::byte>> next() override;

 private:
  // Starts a transfer of what is missing.
  Attempt<void> open();
  // The next bytes of the transfer; empty at its end.
  Attempt<std::span<const std::byte>> pull();

  std::shared_ptr<RegistrySession> session_;
  Descriptor blob_;
  Retries retries_;
  std::unique_ptr<HttpExchange> exchange_;  // null between transfers
  std::uint64_t received_ = 0;              // bytes given to the reader
  std::uint64_t skip_ = 0;                  // bytes of this transfer that the reader has already
  std::uint64_t progress_ = 0;              // bytes received since the last failure that counted
  bool ended_ = false;
};

}  // namespace msb::oci
