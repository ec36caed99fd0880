// SPDX-License-Identifier: Apache-2.0
#include "server/keys.hpp"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <system_error>

#include "oci/base64.hpp"
#include "oci/digest.hpp"
#include "oci/printable.hpp"
#include "sandbox/files.hpp"
#include "sandbox/identity.hpp"
#include "sandbox/locked_file.hpp"

namespace msb::server {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kList = "keys";
constexpr std::string_view kPrefix = "msb_";
constexpr const char* kOwnId = "own";  // of what accept() took: no other key has it
constexpr std::size_t kIdBytes = 4;
constexpr std::size_t kSecretBytes = 32;
constexpr std::size_t kHashDigits = 2 * oci::Digest::kSize;
constexpr std::size_t kMaxShown = 4096;  // bytes, of what a client shows
constexpr std::size_t kMaxName = 128;    // bytes
constexpr std::size_t kMaxFile = 1024 * 1024;

template <std::size_t size>
Result<std::string> random_bytes() {
  std::string bytes(size, '\0');
  // So few come whole, once the kernel's generator is seeded, which is waited for (getrandom(2)).
  while (::getrandom(bytes.data(), size, 0) != static_cast<ssize_t>(size)) {
    if (errno != EINTR) {
      return fail_errno(errno, "cannot get random numbers for a key");
    }
  }
  return bytes;
}

// RFC 4648, section 5, without padding.
std::string encode_base64url(std::string_view bytes) {
  std::string text = oci::encode_base64(bytes);
  text.erase(std::min(text.find('='), text.size()));
  std::ranges::replace(text, '+', '-');
  std::ranges::replace(text, '/', '_');
  return text;
}

// A plain hash will do: passwords need a slow one because they can be guessed, and nobody guesses
// 256 random bits.
std::string hash_of(std::string_view text) {
  return oci::Digest::of(std::as_bytes(std::span(text))).hex();
}

bool is_hexadecimal(std::string_view text, std::size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == text.npos;
}

bool is_space(std::string_view word) {
  return word == kAllNamespaces || sandbox::check_name(word);
}

Json to_json(const Key& key, const std::string& hash) {
  Json entry = {{"id", key.id}};
  if (!key.name.empty()) {
    entry["name"] = key.name;
  }
  entry["namespace"] = key.scope.space;
  entry["read_only"] = key.scope.read_only;
  for (const auto& [name, limit] : {std::pair{"max_sandboxes", key.scope.max_sandboxes},
                                    std::pair{"max_memory_mib", key.scope.max_memory_mib},
                                    std::pair{"max_lifetime_s", key.scope.max_lifetime_s}}) {
    if (limit) {
      entry[name] = *limit;
    }
  }
  entry["created_ms"] = key.created_ms;
  if (key.expires_ms) {
    entry["expires_ms"] = *key.expires_ms;
  }
  entry["hash"] = hash;
  return entry;
}

// A member of an entry; false when it is of another type than the key's.
bool take(const Json& value, std::string& text) {
  if (value.is_string()) {
    value.get_to(text);
  }
  return value.is_string();
}

bool take(const Json& value, bool& flag) {
  if (value.is_boolean()) {
    value.get_to(flag);
  }
  return value.is_boolean();
}

bool take(const Json& value, std::int64_t& number) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() && value.get<std::uint64_t>() > kMost)) {
    return false;
  }
  number = value.get<std::int64_t>();
  return true;
}

bool take(const Json& value, std::optional<std::int64_t>& number) {
  return take(value, number.emplace());
}

bool take(const Json& value, std::optional<std::uint32_t>& limit) {
  if (!value.is_number_unsigned() ||
      value.get<std::uint64_t>() > std::numeric_limits<std::uint32_t>::max()) {
    return false;
  }
  limit = value.get<std::uint32_t>();
  return true;
}

// False for what create() does not write: a member that is not known may be a limit, which must not
// be passed over, and one that is missing may have been one.
bool read_entry(const Json& document, Key& key, std::string& hash) {
  if (!document.is_object()) {
    return false;
  }
  std::size_t needed = 0;
  for (const auto& [name, value] : document.items()) {
    bool good = false;
    if (name == "id") {
      good = take(value, key.id) && is_hexadecimal(key.id, 2 * kIdBytes);
      ++needed;
    } else if (name == "name") {
      good = take(value, key.name);
    } else if (name == "namespace") {
      good = take(value, key.scope.space) && is_space(key.scope.space);
      ++needed;
    } else if (name == "read_only") {
      good = take(value, key.scope.read_only);
      ++needed;
    } else if (name == "max_sandboxes") {
      good = take(value, key.scope.max_sandboxes);
    } else if (name == "max_memory_mib") {
      good = take(value, key.scope.max_memory_mib);
    } else if (name == "max_lifetime_s") {
      good = take(value, key.scope.max_lifetime_s);
    } else if (name == "created_ms") {
      good = take(value, key.created_ms);
      ++needed;
    } else if (name == "expires_ms") {
      good = take(value, key.expires_ms);
    } else if (name == "hash") {
      good = take(value, hash) && is_hexadecimal(hash, kHashDigits);
      ++needed;
    }
    if (!good) {
      return false;
    }
  }
  constexpr std::size_t kNeeded = 5;
  return needed == kNeeded;
}

bool is_same(const struct timespec& a, const struct timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

bool is_same(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         is_same(a.st_mtim, b.st_mtim) && is_same(a.st_ctim, b.st_ctim);
}

// Without the scheme, whose case does not matter, and the blanks around (RFC 9110, section 11.4).
std::string_view without_scheme(std::string_view text) {
  constexpr std::string_view kScheme = "bearer";
  static constexpr std::string_view kBlanks = " \t";
  const auto trim = [](std::string_view word) {
    word.remove_prefix(std::min(word.find_first_not_of(kBlanks), word.size()));
    return word.substr(0, word.find_last_not_of(kBlanks) + 1);
  };
  text = trim(text);
  const bool has_scheme =
      text.size() > kScheme.size() && kBlanks.contains(text[kScheme.size()]) &&
      std::ranges::equal(text.substr(0, kScheme.size()), kScheme,
                         [](char a, char b) { return static_cast<char>(a | 0x20) == b; });
  return has_scheme ? trim(text.substr(kScheme.size())) : text;
}

std::unexpected<Problem> refuse_unreadable() {
  return refuse(Reason::kInternal,
                "this server cannot read its keys; whoever runs it learns why by listing them");
}

}  // namespace

std::int64_t key_time() {
  const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(since_1970).count();
}

Result<Keys::Created> Keys::create(Key key) {
  const bool shows = key.name.size() <= kMaxName && std::ranges::none_of(key.name, [](char c) {
                       return (c >= 0 && c < ' ') || c == 0x7f;
                     });
  if (!shows) {
    return fail("the key's name \"{}\" is longer than {} bytes, or has control characters",
                oci::printable(key.name, kMaxName), kMaxName);
  }
  if (!is_space(key.scope.space)) {
    return fail(
        "\"{}\" is no namespace: one has 1 to 63 letters, digits, '-' and '_', and begins with a "
        "letter or digit; \"{}\" is all of them",
        oci::printable(key.scope.space, kMaxName), kAllNamespaces);
  }
  auto change = begin_change();
  if (!change) {
    return std::unexpected(change.error());
  }
  std::vector<Entry>& entries = change->content.entries;
  if (entries.size() >= kMaxKeys) {
    return fail("there are {} keys already; revoke those that are not used any more", kMaxKeys);
  }
  const auto is_taken = [&](const Entry& entry) { return entry.key.id == key.id; };
  do {
    const auto bytes = random_bytes<kIdBytes>();
    if (!bytes) {
      return std::unexpected(bytes.error());
    }
    key.id.clear();
    for (const char byte : *bytes) {
      fmt::format_to(std::back_inserter(key.id), "{:02x}", static_cast<unsigned char>(byte));
    }
  } while (std::ranges::any_of(entries, is_taken));
  const auto secret = random_bytes<kSecretBytes>();
  if (!secret) {
    return std::unexpected(secret.error());
  }
  key.created_ms = key_time();
  std::string text = fmt::format("{}{}_{}", kPrefix, key.id, encode_base64url(*secret));
  entries.push_back({key, hash_of(text)});
  if (auto written = write(entries); !written) {
    return std::unexpected(written.error());
  }
  return Created{std::move(key), std::move(text)};
}

Result<std::vector<Key>> Keys::list() {
  if (auto fresh = refresh(); !fresh) {
    return std::unexpected(fresh.error());
  }
  std::vector<Key> keys;
  for (const Entry& entry : seen_->entries) {
    keys.push_back(entry.key);
  }
  std::ranges::stable_sort(keys, {}, &Key::created_ms);
  return keys;
}

Result<bool> Keys::revoke(std::string_view id) {
  auto change = begin_change();
  if (!change) {
    return std::unexpected(change.error());
  }
  std::vector<Entry>& entries = change->content.entries;
  if (std::erase_if(entries, [id](const Entry& entry) { return entry.key.id == id; }) == 0) {
    return false;
  }
  if (auto written = write(entries); !written) {
    return std::unexpected(written.error());
  }
  return true;
}

Result<std::size_t> Keys::revoke_all() {
  const auto change = begin_change();
  if (!change) {
    return std::unexpected(change.error());
  }
  const std::size_t count = change->content.entries.size();
  if (count > 0) {
    if (auto written = write({}); !written) {
      return std::unexpected(written.error());
    }
  }
  return count;
}

Result<void> Keys::accept(std::string_view text) {
  constexpr std::size_t kLeast = 16;
  if (text.size() < kLeast || text.size() > kMaxShown) {
    return fail("a key of your own has {} to {} characters; `msb server keygen` makes better ones",
                kLeast, kMaxShown);
  }
  own_hash_ = hash_of(text);
  return {};
}

Outcome<Key> Keys::check(std::string_view text, std::int64_t now_ms) {
  if (!refresh()) {
    return refuse_unreadable();
  }
  const Entry* found = nullptr;
  if (text.size() <= kMaxShown) {
    const std::string hash = hash_of(without_scheme(text));
    const auto is_it = [&hash](const std::string& kept) {
      return CRYPTO_memcmp(kept.data(), hash.data(), kHashDigits) == 0;
    };
    // To the end, also when it is found: how long it takes says nothing about the keys.
    for (const Entry& entry : seen_->entries) {
      if (is_it(entry.hash)) {
        found = &entry;
      }
    }
    if (found == nullptr && !own_hash_.empty() && is_it(own_hash_)) {
      return Key{
          .id = kOwnId, .name = "", .scope = {}, .created_ms = 0, .expires_ms = std::nullopt};
    }
  }
  return judge(found, now_ms);
}

Outcome<void> Keys::check_again(const Key& key, std::int64_t now_ms) {
  if (key.id == kOwnId) {
    return {};
  }
  if (!refresh()) {
    return refuse_unreadable();
  }
  const auto is_it = [&key](const Entry& entry) { return entry.key.id == key.id; };
  const auto found = std::ranges::find_if(seen_->entries, is_it);
  const auto valid = judge(found == seen_->entries.end() ? nullptr : &*found, now_ms);
  return valid ? Outcome<void>() : std::unexpected(valid.error());
}

Outcome<Key> Keys::judge(const Entry* found, std::int64_t now_ms) {
  if (found == nullptr) {
    return refuse(Reason::kBadKey,
                  "there is no such key, or not any more; ask whoever runs this server for one");
  }
  if (found->key.expires_ms && *found->key.expires_ms <= now_ms) {
    return refuse(Reason::kExpiredKey,
                  "the key {} has expired; ask whoever runs this server for a new one",
                  found->key.id);
  }
  return found->key;
}

Result<void> Keys::refresh() {
  if (seen_) {
    struct stat status{};
    const bool is_there = ::lstat(path_.c_str(), &status) == 0;
    const bool is_gone = !is_there && errno == ENOENT;
    if (seen_->file ? is_there && is_same(status, seen_->status) : is_gone) {
      return {};
    }
  }
  auto content = read();
  if (!content) {
    return std::unexpected(content.error());
  }
  seen_ = std::move(*content);
  return {};
}

Result<Keys::Content> Keys::read() const {
  Content content;
  // O_NONBLOCK: a FIFO that somebody put there is not waited for.
  content.file = Fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!content.file) {
    return errno == ENOENT ? Result<Content>(std::move(content))
                           : fail_errno(errno, "cannot open '{}'", path_);
  }
  if (::fstat(content.file.get(), &content.status) != 0) {
    return fail_errno(errno, "cannot look at '{}'", path_);
  }
  if (content.status.st_uid != ::geteuid()) {
    return fail("'{}' belongs to another user; remove it, and make new keys", path_);
  }
  if ((content.status.st_mode & 077) != 0) {
    return fail(
        "'{}' is open to other users; make it yours alone with `chmod 600`, and revoke the keys "
        "that you do not know",
        path_);
  }
  const auto text = sandbox::read_open_file(content.file, path_, kMaxFile);
  if (!text) {
    return std::unexpected(text.error());
  }
  const Json document = Json::parse(*text, nullptr, false);
  bool good = document.is_object() && document.size() == 1 && document.begin().key() == kList &&
              document.begin()->is_array();
  for (std::size_t i = 0; good && i < document.begin()->size(); ++i) {
    Entry& entry = content.entries.emplace_back();
    good = read_entry(document.begin()->at(i), entry.key, entry.hash);
  }
  if (!good) {
    return fail("'{}' is damaged, or of a newer version; mend it, or remove it with all its keys",
                path_);
  }
  return content;
}

Result<Keys::Change> Keys::begin_change() const {
  auto locked = lock();
  if (!locked) {
    return std::unexpected(locked.error());
  }
  auto content = read();
  if (!content) {
    return std::unexpected(content.error());
  }
  return Change{std::move(*locked), std::move(*content)};
}

Result<Fd> Keys::lock() const {
  if (auto made = sandbox::make_directory(std::filesystem::path(path_).parent_path().string());
      !made) {
    return std::unexpected(made.error());
  }
  // Not the file's own lock: another file takes its place.
  return sandbox::wait_for_lock(path_ + ".lock");
}

Result<void> Keys::write(const std::vector<Entry>& entries) const {
  Json keys = Json::array();
  for (const Entry& entry : entries) {
    keys.push_back(to_json(entry.key, entry.hash));
  }
  if (auto written = sandbox::write_json_file(path_, {{kList, std::move(keys)}}); !written) {
    return written;
  }
  // A key that was revoked does not come back when this host loses power.
  return sandbox::sync_directory(std::filesystem::path(path_).parent_path().string());
}

Result<std::int64_t> parse_expiry(std::string_view word) {
  struct Unit {
    std::string_view word;
    std::int64_t seconds;
  };
  constexpr std::int64_t kDay = 24 * 60 * 60;
  constexpr std::int64_t kYear = 365 * kDay;
  constexpr std::int64_t kMost = 100 * kYear;
  constexpr std::size_t kMaxWord = 80;
  static constexpr std::array<Unit, 7> kUnits = {{{"s", 1},
                                                  {"m", 60},
                                                  {"h", 60 * 60},
                                                  {"d", kDay},
                                                  {"w", 7 * kDay},
                                                  {"mo", 30 * kDay},
                                                  {"y", kYear}}};
  std::int64_t number = 0;
  const auto [rest, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  const std::string_view written = word.substr(static_cast<std::size_t>(rest - word.data()));
  const auto unit = std::ranges::find(kUnits, written, &Unit::word);
  if (error == std::errc::invalid_argument || unit == kUnits.end() || word.starts_with('-')) {
    return fail("\"{}\" is no time; write a number with s, m, h, d, w, mo or y, such as 30d",
                oci::printable(word, kMaxWord));
  }
  std::int64_t seconds = 0;
  if (error != std::errc() || __builtin_mul_overflow(number, unit->seconds, &seconds) ||
      seconds == 0 || seconds > kMost) {
    return fail("\"{}\" is not from 1s to 100y", oci::printable(word, kMaxWord));
  }
  return seconds;
}

}  // namespace msb::server
