// SPDX-License-Identifier: Apache-2.0
// One request over HTTP and its answer, as what serves it sees them: bodies are streams both ways,
// and bounded where they are taken whole.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/async.hpp"
#include "server/keys.hpp"
#include "server/problem.hpp"

namespace msb::server {

using Json = nlohmann::ordered_json;

// Bytes of a body that is taken whole.
inline constexpr std::size_t kMaxBody = std::size_t{32} << 20;

struct RequestLine {
  std::string method;
  std::vector<std::string> path;  // its segments, decoded; none is empty, "." or ".."
  std::string path_text;          // as it was sent, without the query
  std::map<std::string, std::string, std::less<>> query;  // decoded; of one name the last
};

struct HttpAnswer {
  unsigned status = 200;
  std::string body;
  std::string type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
};

class Exchange {
 public:
  virtual ~Exchange() = default;

  [[nodiscard]] virtual const RequestLine& line() const = 0;
  // Of several of one name the first; empty when there is none.
  [[nodiscard]] virtual std::string_view header(std::string_view name) const = 0;
  [[nodiscard]] virtual bool has_repeated(std::string_view name) const = 0;
  // For the log and for errors.
  [[nodiscard]] virtual const std::string& id() const = 0;

  // The body, whole. Fails when it is larger than `limit`, does not come in time, or is broken.
  virtual Async<Outcome<std::string>> body(std::size_t limit = kMaxBody) = 0;
  // Its next piece, which is there until the next call; empty at its end.
  virtual Async<Outcome<std::span<const std::byte>>> read() = 0;

  // Exactly one answer: this, which is sent when the handler is done, or begin(), any number of
  // write(), and end().
  virtual void answer(HttpAnswer answer) = 0;
  virtual Async<> begin(HttpAnswer head) = 0;
  // Waits while the client does not read; a client that does not for a minute is let go.
  virtual Async<> write(std::string_view piece) = 0;
  virtual Async<> end() = 0;
  // Whether begin() or answer() was called.
  [[nodiscard]] virtual bool begun() const = 0;

  // Whose request it is, once that is known.
  Key key;
};

// {"error": {"code", "number", "message", "request_id"}}: the shape of every error but those of
// JSON-RPC.
Json error_document(const Problem& problem, const std::string& request_id);
HttpAnswer error_answer(const Problem& problem, const std::string& request_id);
// A document as an answer. Bytes that are no UTF-8 become U+FFFD.
HttpAnswer json_answer(const Json& document, unsigned status = 200);
std::string to_text(const Json& document);

// One JSON document: fails when it is none, nests deeper than 64 levels, or has more members or
// values than documents of ours need.
Outcome<Json> parse_json(std::string_view text);
// The same of a body; an empty one is an empty object.
Outcome<Json> parse_body(const std::string& body);

// Percent-decoding (RFC 3986 section 2.1); nothing for what is none, or a NUL.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_blank);
// A target in origin form. Fails for other forms, bad escapes, and segments "", "." and "..".
Outcome<RequestLine> parse_target(std::string_view method, std::string_view target);

}  // namespace msb::server
