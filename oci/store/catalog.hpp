// SPDX-License-Identifier: Apache-2.0
// Which images a store holds, by which names, and what belongs to them: one SQLite database. What
// it says is true after any crash; the files that it speaks of are written before it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "oci/image.hpp"

struct sqlite3;

namespace msb::oci {

// A name of an image, or an image that has none any more.
struct CatalogEntry {
  std::string reference;  // as Reference::to_string() gives it; empty for an image without a name
  Digest target;          // what the name stood for where it came from: an index or the manifest
  Descriptor manifest;
  std::string created;       // of the image, RFC 3339, or empty
  std::int64_t pulled = 0;   // seconds since 1970
  std::uint64_t size = 0;    // bytes of all blobs
  std::uint32_t layers = 0;  // their number
};

// A layer of an image, as far as files belong to it.
struct CatalogLayer {
  Digest blob;
  Digest diff_id;
};

// What belongs to an image.
struct CatalogParts {
  std::vector<Digest> documents;  // manifest and configuration
  std::vector<CatalogLayer> layers;
};

class Catalog {
 public:
  // Opens the database, creating it when it is missing. Fails when it cannot be read or written,
  // is damaged, or was made by a newer version.
  static Result<Catalog> open(const std::string& path);

  // Records an image under a name, which may be empty, in one step; a name that stood for another
  // image moves.
  Result<void> record(const std::string& reference, const Digest& target, const Image& image,
                      std::int64_t pulled);

  [[nodiscard]] Result<std::optional<CatalogEntry>> find(const std::string& reference);
  // All names of the image, or the image without one.
  [[nodiscard]] Result<std::vector<CatalogEntry>> find_manifest(const Digest& manifest);
  // The images whose manifest's digest starts with these hexadecimal digits.
  [[nodiscard]] Result<std::vector<CatalogEntry>> find_prefix(std::string_view hex);
  // All names, ordered, then the images without one.
  [[nodiscard]] Result<std::vector<CatalogEntry>> list();
  [[nodiscard]] Result<CatalogParts> parts(const Digest& manifest);

  // Forgets a name; its image stays.
  Result<void> remove_name(const std::string& reference);
  // Forgets an image and all its names.
  Result<void> remove_image(const Digest& manifest);

 private:
  struct Close {
    void operator()(sqlite3* database) const;
  };
  class Statement;
  class Transaction;

  Catalog(std::string path, std::unique_ptr<sqlite3, Close> database)
      : path_(std::move(path)), database_(std::move(database)) {}

  Result<void> prepare_schema();
  Result<void> execute(const char* sql);
  [[nodiscard]] std::unexpected<Error> failure(std::string_view what) const;
  Result<std::vector<CatalogEntry>> query(std::string_view condition, std::string_view value);

  std::string path_;
  std::unique_ptr<sqlite3, Close> database_;
};

}  // namespace msb::oci
