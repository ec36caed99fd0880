// SPDX-License-Identifier: Apache-2.0
#include "oci/store/catalog.hpp"

#include <sqlite3.h>
#include <sys/stat.h>

#include <utility>

namespace msb::oci {
namespace {

constexpr int kVersion = 1;              // of the schema, in `PRAGMA user_version`
constexpr int kBusyTimeout = 60 * 1000;  // milliseconds to wait for another process's transaction

// EXTRA: a transaction survives a power cut (sqlite.org, "PRAGMA synchronous"). The database is
// nobody else's, but it may have been damaged, so nothing in it is trusted to be called.
constexpr const char* kSettings =
    "PRAGMA synchronous = EXTRA; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;"
    "PRAGMA cell_size_check = ON;";

constexpr const char* kSchema =
    "CREATE TABLE image ("
    "  manifest TEXT PRIMARY KEY,"  // digest
    "  media_type TEXT NOT NULL,"
    "  manifest_size INTEGER NOT NULL,"
    "  config TEXT NOT NULL,"  // digest
    "  created TEXT NOT NULL,"
    "  pulled INTEGER NOT NULL,"
    "  size INTEGER NOT NULL"
    ") STRICT;"
    "CREATE TABLE layer ("
    "  manifest TEXT NOT NULL REFERENCES image ON DELETE CASCADE,"
    "  position INTEGER NOT NULL,"
    "  blob TEXT NOT NULL,"     // digest
    "  diff_id TEXT NOT NULL,"  // digest
    "  PRIMARY KEY (manifest, position)"
    ") STRICT;"
    "CREATE TABLE name ("
    "  reference TEXT PRIMARY KEY,"
    "  manifest TEXT NOT NULL REFERENCES image ON DELETE CASCADE,"
    "  target TEXT NOT NULL,"  // digest
    "  pulled INTEGER NOT NULL"
    ") STRICT;"
    "CREATE INDEX name_manifest ON name (manifest);"
    "PRAGMA user_version = 1;";

constexpr std::string_view kSelect =
    "SELECT coalesce(n.reference, ''), coalesce(n.target, i.manifest), i.manifest, i.media_type,"
    "  i.manifest_size, i.created, coalesce(n.pulled, i.pulled), i.size,"
    "  (SELECT count(*) FROM layer l WHERE l.manifest = i.manifest)"
    " FROM image i LEFT JOIN name n ON n.manifest = i.manifest ";
constexpr std::string_view kOrder =
    " ORDER BY n.reference IS NULL, n.reference, i.pulled, i.manifest";

}  // namespace

// A prepared statement. Errors of preparing and binding show when it is stepped.
class Catalog::Statement {
 public:
  Statement(const Catalog& catalog, std::string_view sql) : catalog_(catalog) {
    sqlite3_stmt* statement = nullptr;
    sqlite3_prepare_v2(catalog.database_.get(), sql.data(), static_cast<int>(sql.size()),
                       &statement, nullptr);
    statement_.reset(statement);
  }

  Statement& bind(std::string_view text) {
    sqlite3_bind_text(statement_.get(), ++bound_, text.data(), static_cast<int>(text.size()),
                      SQLITE_TRANSIENT);
    return *this;
  }
  Statement& bind(std::int64_t number) {
    sqlite3_bind_int64(statement_.get(), ++bound_, number);
    return *this;
  }

  // Whether there is another row.
  Result<bool> step() {
    const int outcome = statement_ ? sqlite3_step(statement_.get()) : SQLITE_ERROR;
    if (outcome != SQLITE_ROW && outcome != SQLITE_DONE) {
      return catalog_.failure("cannot be used");
    }
    return outcome == SQLITE_ROW;
  }

  [[nodiscard]] std::string text(int column) const {
    const auto* bytes = sqlite3_column_text(statement_.get(), column);
    return bytes == nullptr ? "" : reinterpret_cast<const char*>(bytes);
  }
  [[nodiscard]] std::int64_t number(int column) const {
    return sqlite3_column_int64(statement_.get(), column);
  }
  [[nodiscard]] Result<Digest> digest(int column) const {
    auto digest = Digest::parse(text(column));
    if (!digest) {
      return std::unexpected(digest.error().within(
          fmt::format("the index of the image store '{}' is damaged", catalog_.path_)));
    }
    return digest;
  }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  const Catalog& catalog_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  int bound_ = 0;
};

// Everything between its begin and commit() happens, or nothing does.
class Catalog::Transaction {
 public:
  explicit Transaction(Catalog& catalog) : catalog_(catalog) {}
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction() {
    if (open_) {
      static_cast<void>(catalog_.execute("ROLLBACK"));
    }
  }

  Result<void> begin() {
    auto begun = catalog_.execute("BEGIN IMMEDIATE");
    open_ = begun.has_value();
    return begun;
  }
  Result<void> run(Statement& statement) {
    const auto stepped = statement.step();
    return stepped ? Result<void>() : std::unexpected(stepped.error());
  }
  Result<void> commit() {
    auto committed = catalog_.execute("COMMIT");
    open_ = !committed.has_value();
    return committed;
  }

 private:
  Catalog& catalog_;
  bool open_ = false;
};

void Catalog::Close::operator()(sqlite3* database) const {
  sqlite3_close_v2(database);
}

std::unexpected<Error> Catalog::failure(std::string_view what) const {
  sqlite3* database = database_.get();
  const int code = sqlite3_errcode(database);
  const bool damaged = code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
  const int system = code == SQLITE_FULL ? ENOSPC : sqlite3_system_errno(database);
  return std::unexpected(
      Error{fmt::format("the index of the image store '{}' {}: {}{}", path_, what,
                        sqlite3_errmsg(database),
                        damaged ? "; delete that file and pull the images again, their layers are "
                                  "kept and not fetched again"
                                : ""),
            system});
}

Result<Catalog> Catalog::open(const std::string& path) {
  sqlite3* handle = nullptr;
  const int outcome = sqlite3_open_v2(
      path.c_str(), &handle,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_FULLMUTEX,
      nullptr);
  Catalog catalog(path, std::unique_ptr<sqlite3, Close>(handle));
  if (outcome != SQLITE_OK) {
    return catalog.failure("cannot be opened");
  }
  sqlite3_busy_timeout(handle, kBusyTimeout);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  if (auto set = catalog.execute(kSettings); !set) {
    return std::unexpected(set.error());
  }
  if (auto prepared = catalog.prepare_schema(); !prepared) {
    return std::unexpected(prepared.error());
  }
  return catalog;
}

Result<void> Catalog::prepare_schema() {
  const auto version = [&]() -> Result<std::int64_t> {
    Statement statement(*this, "PRAGMA user_version");
    const auto stepped = statement.step();
    return stepped ? Result<std::int64_t>(statement.number(0)) : std::unexpected(stepped.error());
  };
  auto found = version();
  if (found && *found == 0) {
    Transaction transaction(*this);
    if (auto begun = transaction.begin(); !begun) {
      return begun;
    }
    // Another process may have been first.
    found = version();
    if (found && *found == 0) {
      if (auto created = execute(kSchema); !created) {
        return created;
      }
      return transaction.commit();
    }
  }
  if (!found) {
    return std::unexpected(found.error());
  }
  if (*found != kVersion) {
    return fail(
        "the index of the image store '{}' is of version {}, which this program does not know: it "
        "was made by a newer one",
        path_, *found);
  }
  return {};
}

Result<void> Catalog::execute(const char* sql) {
  if (sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
    return failure("cannot be used");
  }
  return {};
}

Result<void> Catalog::record(const std::string& reference, const Digest& target, const Image& image,
                             std::int64_t pulled) {
  const std::string manifest = image.manifest.digest.to_string();
  std::uint64_t size = image.manifest.size + image.config_blob.size;
  for (const Layer& layer : image.layers) {
    size += layer.blob.size;
  }
  Transaction transaction(*this);
  auto done = transaction.begin();
  const auto then = [&](Statement statement) {
    if (done) {
      done = transaction.run(statement);
    }
  };
  then(std::move(Statement(*this,
                           "INSERT INTO image VALUES (?, ?, ?, ?, ?, ?, ?)"
                           " ON CONFLICT (manifest) DO UPDATE SET pulled = excluded.pulled")
                     .bind(manifest)
                     .bind(image.manifest.media_type)
                     .bind(static_cast<std::int64_t>(image.manifest.size))
                     .bind(image.config_blob.digest.to_string())
                     .bind(image.config.created)
                     .bind(pulled)
                     .bind(static_cast<std::int64_t>(size))));
  for (std::size_t i = 0; i < image.layers.size(); ++i) {
    then(std::move(Statement(*this, "INSERT OR IGNORE INTO layer VALUES (?, ?, ?, ?)")
                       .bind(manifest)
                       .bind(static_cast<std::int64_t>(i))
                       .bind(image.layers[i].blob.digest.to_string())
                       .bind(image.layers[i].diff_id.to_string())));
  }
  if (!reference.empty()) {
    then(std::move(Statement(*this, "INSERT OR REPLACE INTO name VALUES (?, ?, ?, ?)")
                       .bind(reference)
                       .bind(manifest)
                       .bind(target.to_string())
                       .bind(pulled)));
  }
  return done ? transaction.commit() : done;
}

Result<std::vector<CatalogEntry>> Catalog::query(std::string_view condition,
                                                 std::string_view value) {
  Statement statement(*this, fmt::format("{}{}{}", kSelect, condition, kOrder));
  if (!condition.empty()) {
    statement.bind(value);
  }
  std::vector<CatalogEntry> entries;
  for (;;) {
    const auto more = statement.step();
    if (!more) {
      return std::unexpected(more.error());
    }
    if (!*more) {
      return entries;
    }
    const auto target = statement.digest(1);
    if (!target) {
      return std::unexpected(target.error());
    }
    const auto manifest = statement.digest(2);
    if (!manifest) {
      return std::unexpected(manifest.error());
    }
    entries.push_back(CatalogEntry{
        .reference = statement.text(0),
        .target = *target,
        .manifest = {statement.text(3), *manifest, static_cast<std::uint64_t>(statement.number(4))},
        .created = statement.text(5),
        .pulled = statement.number(6),
        .size = static_cast<std::uint64_t>(statement.number(7)),
        .layers = static_cast<std::uint32_t>(statement.number(8))});
  }
}

Result<std::optional<CatalogEntry>> Catalog::find(const std::string& reference) {
  auto entries = query("WHERE n.reference = ?", reference);
  if (!entries) {
    return std::unexpected(entries.error());
  }
  return entries->empty() ? std::nullopt : std::optional(std::move(entries->front()));
}

Result<std::vector<CatalogEntry>> Catalog::find_manifest(const Digest& manifest) {
  return query("WHERE i.manifest = ?", manifest.to_string());
}

Result<std::vector<CatalogEntry>> Catalog::find_prefix(std::string_view hex) {
  // Only hexadecimal digits come here, so nothing in it means anything to GLOB.
  return query("WHERE i.manifest GLOB ?", fmt::format("sha256:{}*", hex));
}

Result<std::vector<CatalogEntry>> Catalog::list() {
  return query("", "");
}

Result<CatalogParts> Catalog::parts(const Digest& manifest) {
  CatalogParts parts{.documents = {manifest}, .layers = {}};
  Statement image(*this, "SELECT config FROM image WHERE manifest = ?");
  const auto found = image.bind(manifest.to_string()).step();
  if (!found) {
    return std::unexpected(found.error());
  }
  if (*found) {
    const auto config = image.digest(0);
    if (!config) {
      return std::unexpected(config.error());
    }
    parts.documents.push_back(*config);
  }
  Statement layers(*this, "SELECT blob, diff_id FROM layer WHERE manifest = ? ORDER BY position");
  layers.bind(manifest.to_string());
  for (;;) {
    const auto more = layers.step();
    if (!more) {
      return std::unexpected(more.error());
    }
    if (!*more) {
      return parts;
    }
    const auto blob = layers.digest(0);
    const auto diff_id = layers.digest(1);
    if (!blob || !diff_id) {
      return std::unexpected(blob ? diff_id.error() : blob.error());
    }
    parts.layers.push_back({*blob, *diff_id});
  }
}

Result<void> Catalog::remove_name(const std::string& reference) {
  const auto done = Statement(*this, "DELETE FROM name WHERE reference = ?").bind(reference).step();
  return done ? Result<void>() : std::unexpected(done.error());
}

Result<void> Catalog::remove_image(const Digest& manifest) {
  const auto done =
      Statement(*this, "DELETE FROM image WHERE manifest = ?").bind(manifest.to_string()).step();
  return done ? Result<void>() : std::unexpected(done.error());
}

}  // namespace msb::oci
