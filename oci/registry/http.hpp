// SPDX-License-Identifier: Apache-2.0
// HTTP over libcurl, one request at a time and without opinions: no redirects, no authentication,
// no retries. Answers are pulled, so that a slow reader slows the sender down.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "oci/registry/attempt.hpp"
#include "oci/registry/url.hpp"

namespace msb::oci {

struct HttpRequest {
  enum class Method : std::uint8_t { kGet, kHead, kPost };

  Method method = Method::kGet;
  Url url;
  std::vector<std::string> headers;  // "Name: value"
  std::string form;                  // of kPost: application/x-www-form-urlencoded
};

// Status and header fields of an answer; at most 64 KiB in 256 lines.
struct HttpHead {
  long status = 0;
  std::vector<std::pair<std::string, std::string>> fields;  // names in lower case

  // The value of the first field of that name (lower case); null when there is none.
  [[nodiscard]] const std::string* find(std::string_view name) const;
};

struct HttpOptions {
  std::chrono::milliseconds stall_timeout{};
  // Whether certificates are not verified.
  bool insecure = false;
  // PEM text of CA certificates that are trusted beside the system's; may be empty.
  std::string certificates;
  std::stop_token stop;
};

// The certificates at `path` as HttpOptions wants them; fails when they cannot be read.
Result<std::string> read_certificates(const std::string& path);

struct HttpChannel;
class HttpClient;

// An answer whose head is there and whose body arrives as it is asked for.
class HttpExchange {
 public:
  HttpExchange(const HttpExchange&) = delete;
  HttpExchange& operator=(const HttpExchange&) = delete;
  ~HttpExchange();  // cuts what has not arrived yet

  [[nodiscard]] const HttpHead& head() const;

  // The next bytes of the body, valid until the next call; empty at its end. Fails when the
  // transfer is cut, brings nothing for the stall timeout, or is to stop.
  Attempt<std::span<const std::byte>> next();

  // The whole rest of the body. Fails as next() does, and when it is longer than `limit` bytes or
  // takes ten times the stall timeout.
  Attempt<std::string> read_rest(std::size_t limit);

  // Reads a short rest, so that the connection can be used again.
  void discard();

 private:
  friend class HttpClient;
  HttpExchange(HttpClient& client, std::unique_ptr<HttpChannel> channel);

  HttpClient& client_;
  std::unique_ptr<HttpChannel> channel_;
};

// Keeps connections and uses them again. Safe to use from several threads; an exchange belongs to
// one thread, and ends before its client.
class HttpClient {
 public:
  explicit HttpClient(HttpOptions options);
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;
  ~HttpClient();

  // Sends the request and waits for the head of the answer, whatever its status.
  Attempt<std::unique_ptr<HttpExchange>> send(const HttpRequest& request);

 private:
  friend class HttpExchange;
  std::unique_ptr<HttpChannel> take_channel();
  void give_back(std::unique_ptr<HttpChannel> channel);

  HttpOptions options_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<HttpChannel>> idle_;
};

}  // namespace msb::oci
