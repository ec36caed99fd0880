// SPDX-License-Identifier: Apache-2.0
#include "server/http_request.hpp"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/address.hpp>
#include <charconv>
#include <cstring>
#include <limits>
#include <utility>

#include "server/sandboxes.hpp"

namespace msb::server {

namespace asio = boost::asio;

namespace {

using boost::system::error_code;

constexpr unsigned kBadRequest = 400;
constexpr unsigned kUriTooLong = 414;
constexpr unsigned kFieldsTooLarge = 431;  // RFC 6585 section 5

// Of a chunk's line so much is no extension: the largest size, and CR LF.
constexpr std::size_t kSizeLine = 18;

std::unexpected<BadHead> bad(Problem problem) {
  return std::unexpected(BadHead{kBadRequest, std::move(problem)});
}

std::unexpected<BadHead> bad(std::string message) {
  return bad(Problem{Reason::kInvalid, std::move(message), std::nullopt});
}

bool is_digits(std::string_view text) {
  return text.find_first_not_of("0123456789") == std::string_view::npos;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') {
      c = static_cast<char>(c - 'A' + 'a');
    }
  }
  return result;
}

// Of lines Beast would read more than the standard has servers read: a folded field as one (RFC
// 9112 section 5.2 leaves the choice, and others choose otherwise).
std::optional<std::string> judge_line(std::string_view line, bool first) {
  if (!line.ends_with('\r') || line.find('\r') != line.size() - 1) {
    return "a line of the request's head does not end with CR LF, or has a CR within";
  }
  if (!first && (line.front() == ' ' || line.front() == '\t')) {
    return "a line of the request's head begins with a blank: a field has one line";
  }
  return std::nullopt;
}

// What makes two readers of one request disagree about where it ends (RFC 9112 section 11.2) is
// refused, also where one reading would be right.
Outcome<void> check_framing(const RequestParser& parser) {
  const auto& request = parser.get();
  const bool newest = request.version() == 11;
  const auto hosts = request.count(http::field::host);
  if (hosts > 1 || (newest && hosts != 1)) {
    return refuse(Reason::kInvalid, "a request has one Host field");
  }
  const auto lengths = request.count(http::field::content_length);
  const auto encodings = request.count(http::field::transfer_encoding);
  const bool good_length = is_digits(view(request[http::field::content_length]));
  const bool good_encoding =
      encodings == 0 ||
      (newest && beast::iequals(request[http::field::transfer_encoding], "chunked"));
  if (lengths + encodings > 1 || !good_length || !good_encoding) {
    return refuse(Reason::kInvalid,
                  "a request's length is said once: by Content-Length, or by Transfer-Encoding: "
                  "chunked");
  }
  return {};
}

// A target with a scheme and an authority, as proxies get it, is taken too, and becomes one in
// origin form (RFC 9112 section 3.2.2). The Host field has to say the same (section 3.2).
Outcome<void> to_origin_form(RequestParser& parser) {
  constexpr std::string_view kScheme = "http://";
  auto& request = parser.get();
  const std::string_view target = view(request.target());
  if (lower(target.substr(0, kScheme.size())) != kScheme) {
    return {};
  }
  const std::string_view rest = target.substr(kScheme.size());
  const std::size_t end = std::min(rest.find_first_of("/?"), rest.size());
  if (lower(rest.substr(0, end)) != lower(view(request[http::field::host]))) {
    return refuse(Reason::kInvalid, "the request's target names another host than its Host field");
  }
  std::string origin(rest.substr(end));
  if (!origin.starts_with('/')) {
    origin.insert(0, "/");
  }
  request.target(origin);
  return {};
}

std::unexpected<Problem> bad_chunks(std::string_view what) {
  return refuse(Reason::kInvalid, "the body is not in chunks as it was announced: {}", what);
}

}  // namespace

HeadReader::HeadReader(RequestParser& parser, std::size_t limit) : parser_(parser), limit_(limit) {
  // Of ours, which counts the whole head, and of bodies who takes them knows.
  parser_.header_limit(std::numeric_limits<std::uint32_t>::max());
  parser_.body_limit(boost::none);
}

std::expected<std::size_t, BadHead> HeadReader::read(std::string_view bytes) {
  const std::string_view all = bytes.substr(0, limit_);
  // A client that speaks TLS, say, waits for an answer before it sends any line.
  if (!all.empty() && (all.front() <= ' ' || all.front() > '~')) {
    return bad("what came is no request of HTTP/1.1: use http://, not https://");
  }
  while (true) {
    const std::size_t end = all.find('\n', searched_);
    if (end == std::string_view::npos) {
      break;
    }
    const std::string_view line = all.substr(line_, end - line_);
    if (auto wrong = judge_line(line, line_ == 0)) {
      return bad(std::move(*wrong));
    }
    line_ = searched_ = end + 1;
    if (line.size() > 1) {
      continue;
    }
    error_code error;
    parser_.put(asio::buffer(all.data(), line_), error);
    if (error || !parser_.is_header_done()) {
      return bad("the request cannot be read: " +
                 (error ? error : error_code(http::error::need_more)).message());
    }
    if (auto good = check_framing(parser_); !good) {
      return bad(std::move(good.error()));
    }
    if (auto good = to_origin_form(parser_); !good) {
      return bad(std::move(good.error()));
    }
    return line_;
  }
  searched_ = all.size();
  if (all.size() < limit_) {
    return 0;
  }
  const bool first = line_ == 0;
  return std::unexpected(
      BadHead{first ? kUriTooLong : kFieldsTooLarge,
              {Reason::kTooLarge,
               fmt::format("the request's {} more than {} bytes",
                           first ? "first line has" : "line and fields have", limit_),
               std::nullopt}});
}

BodyReader::BodyReader(const RequestParser& parser, std::size_t limit)
    : limit_(limit), chunked_(parser.is_header_done() && parser.chunked()) {
  if (chunked_) {
    state_ = State::kSize;
  } else if (parser.is_header_done()) {
    left_ = parser.content_length().value_or(0);
    state_ = left_ > 0 ? State::kData : State::kDone;
  }
}

std::optional<std::uint64_t> BodyReader::left() const {
  return chunked_ && !done() ? std::nullopt : std::optional(left_);
}

Outcome<BodyReader::Taken> BodyReader::take(std::string_view bytes, std::span<std::byte> into) {
  Taken taken;
  while (!done() && taken.bytes < bytes.size()) {
    const std::string_view rest = bytes.substr(taken.bytes);
    if (state_ == State::kData) {
      taken.length = take_data(rest, into);
      taken.bytes += taken.length;
      return taken;
    }
    const auto line = take_line(rest);
    if (!line) {
      return std::unexpected(line.error());
    }
    if (*line == 0) {
      return taken;
    }
    taken.bytes += *line;
  }
  return taken;
}

std::size_t BodyReader::take_data(std::string_view bytes, std::span<std::byte> into) {
  const std::size_t length = std::min({bytes.size(), into.size(), std::size_t{left_}});
  std::memcpy(into.data(), bytes.data(), length);
  left_ -= length;
  if (left_ == 0) {
    state_ = chunked_ ? State::kDataEnd : State::kDone;
  }
  return length;
}

Outcome<std::size_t> BodyReader::take_line(std::string_view bytes) {
  constexpr std::string_view kEnd = "\r\n";
  if (state_ == State::kDataEnd && !kEnd.starts_with(bytes.substr(0, kEnd.size()))) {
    return bad_chunks("a chunk has more bytes than its size");
  }
  const std::size_t end = bytes.find('\n');
  const bool whole = end != std::string_view::npos;
  const std::size_t length = whole ? end + 1 : bytes.size();
  const std::size_t free = state_ == State::kFields ? 0 : kSizeLine;
  const std::size_t beside = beside_ + length - std::min(length, free);
  if (beside > limit_) {
    return refuse(Reason::kTooLarge, "the body's chunks have more than {} bytes beside their data",
                  limit_);
  }
  if (!whole) {
    return 0;
  }
  beside_ = beside;
  const std::string_view line = bytes.substr(0, end);
  if (!line.ends_with('\r') || line.find('\r') != line.size() - 1) {
    return bad_chunks("a line does not end with CR LF, or has a CR within");
  }
  if (auto good = read_line(line.substr(0, line.size() - 1)); !good) {
    return std::unexpected(good.error());
  }
  return length;
}

Outcome<void> BodyReader::read_line(std::string_view line) {
  if (state_ == State::kDataEnd) {
    state_ = State::kSize;
  } else if (state_ == State::kSize) {
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), left_, 16);
    std::string_view rest(end, line.data() + line.size());
    rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
    // Blanks are there for an extension alone (section 7.1.1).
    const bool bare = end == line.data() + line.size();
    if (error != std::errc() || !(bare || rest.starts_with(';'))) {
      return bad_chunks("a chunk's size is none");
    }
    state_ = left_ > 0 ? State::kData : State::kFields;
  } else if (line.empty()) {
    state_ = State::kDone;
  } else if (const std::size_t colon = line.find(':'); colon == 0 || colon == line.npos) {
    return bad_chunks("what follows the last chunk is no field");
  }
  return {};
}

std::optional<HostField> parse_host(std::string_view field) {
  HostField host;
  std::string_view port;
  error_code error;
  if (field.starts_with('[')) {
    const std::size_t end = field.find(']');
    if (end == std::string_view::npos) {
      return std::nullopt;
    }
    host.name = lower(field.substr(1, end - 1));
    host.address = true;
    port = field.substr(end + 1);
    // Without a zone, which is of the client's own machine (RFC 6874 section 1).
    if (host.name.find_first_not_of("0123456789abcdef:.") != std::string::npos) {
      return std::nullopt;
    }
    asio::ip::make_address_v6(host.name, error);
  } else {
    const std::size_t colon = field.find(':');
    host.name = lower(field.substr(0, colon));
    port = colon == std::string_view::npos ? std::string_view() : field.substr(colon);
    if (host.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-._") !=
        std::string::npos) {
      return std::nullopt;
    }
    error_code no_address;
    asio::ip::make_address_v4(host.name, no_address);
    host.address = !no_address;
    if (host.name.ends_with('.')) {
      host.name.pop_back();  // the same name, said to be complete
    }
  }
  const bool good_port =
      port.empty() || (port.front() == ':' && port.size() <= 6 && is_digits(port.substr(1)));
  return good_port && !error && !host.name.empty() ? std::optional(std::move(host)) : std::nullopt;
}

std::optional<AppHost> parse_app_host(const HostField& host) {
  constexpr std::string_view kEnd = ".localhost";
  if (host.address || !host.name.ends_with(kEnd)) {
    return std::nullopt;
  }
  const std::string_view name(host.name.data(), host.name.size() - kEnd.size());
  AppHost app;
  // What is no app is none of the API's names either, and has port 0, which no app has.
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), app.port);
  if (error != std::errc() || end == name.data() + name.size() || *end != '-') {
    app.port = 0;
    return app;
  }
  const std::string_view rest(end + 1, name.data() + name.size());
  const std::size_t dot = rest.find('.');
  app.sandbox = rest.substr(0, dot);
  app.space = dot == std::string_view::npos ? std::string(kDefaultNamespace)
                                            : std::string(rest.substr(dot + 1));
  return app;
}

}  // namespace msb::server
