// SPDX-License-Identifier: Apache-2.0
// The keys that clients show: "msb_ID_SECRET". Only a hash of the secret is kept, in a file that
// is replaced as a whole (mode 0600) and read anew when it has changed, so that keys which another
// process makes or revokes count at once. Every operation fails with a sentence that names the file
// when that is damaged, another user's, or open to other users.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "server/problem.hpp"

namespace msb::server {

inline constexpr std::string_view kAllNamespaces = "*";
inline constexpr std::size_t kMaxKeys = 1000;

// What a key may do, and the most that it may have.
struct Scope {
  std::string space{kAllNamespaces};            // a namespace, or all of them
  bool read_only = false;                       // looks, and changes nothing
  std::optional<std::uint32_t> max_sandboxes;   // running at a time, of this key
  std::optional<std::uint32_t> max_memory_mib;  // of all of them together
  std::optional<std::uint32_t> max_lifetime_s;  // of each
  bool operator==(const Scope&) const = default;
};

struct Key {
  std::string id;    // 8 hexadecimal digits, which may be shown; empty: no key is asked for (--dev)
  std::string name;  // for people; may be empty
  Scope scope;
  std::int64_t created_ms = 0;             // since 1970
  std::optional<std::int64_t> expires_ms;  // since 1970; absent: never
};

// Now, as check() takes it.
std::int64_t key_time();

class Keys {
 public:
  // `path`: of the file, which need not exist.
  explicit Keys(std::string path) : path_(std::move(path)) {}

  struct Created {
    Key key;
    std::string text;  // what a client shows; nobody can tell it again
  };
  // `key`: its name, scope and expiry. Fails for a name that is not fit to be shown, a namespace
  // that cannot be, and when there are kMaxKeys already.
  Result<Created> create(Key key);
  // Oldest first.
  Result<std::vector<Key>> list();
  // False when there is none of this id.
  Result<bool> revoke(std::string_view id);
  // How many there were.
  Result<std::size_t> revoke_all();

  // Takes this one too, with all rights, as long as this object is there. Fails for what could be
  // guessed.
  Result<void> accept(std::string_view text);
  // The key of the text that a client shows, with or without "Bearer " in front. Takes as long
  // whatever is wrong with it. Fails with kBadKey, kExpiredKey, or, when the file cannot be read,
  // with kInternal and a sentence that tells strangers nothing about this host.
  Outcome<Key> check(std::string_view text, std::int64_t now_ms);
  // Whether a key that check() gave is valid still. Fails as that does.
  Outcome<void> check_again(const Key& key, std::int64_t now_ms);

 private:
  struct Entry {
    Key key;
    std::string hash;  // SHA-256 of the whole text, hexadecimal
  };
  struct Content {
    std::vector<Entry> entries;
    Fd file;  // empty: there is none
    struct stat status{};
  };
  static Outcome<Key> judge(const Entry* found, std::int64_t now_ms);
  Result<void> refresh();  // seen_, from the file when that has changed
  Result<Content> read() const;
  Result<Fd> lock() const;
  // What changes the file holds its lock from before it reads until it has written.
  struct Change {
    Fd locked;
    Content content;
  };
  Result<Change> begin_change() const;
  Result<void> write(const std::vector<Entry>& entries) const;

  std::string path_;
  std::string own_hash_;  // of what accept() took; or empty
  // The file stays open, so that no file that takes its place can have its inode's number.
  std::optional<Content> seen_;
};

// Seconds of "1s", "2m", "3h", "4d", "5w", "6mo", "7y": months have 30 days, years 365. At least
// one second, and at most 100 years.
Result<std::int64_t> parse_expiry(std::string_view word);

}  // namespace msb::server
