// SPDX-License-Identifier: Apache-2.0
#include "oci/registry/http.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <new>
#include <optional>

#include "oci/config_file.hpp"
#include "oci/image_spec.hpp"
#include "oci/printable.hpp"

namespace msb::oci {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxHeaderBytes = 64 * 1024;  // of one exchange, with trailers
constexpr std::size_t kMaxHeaderLines = 256;
constexpr std::size_t kMaxBuffered = 1U << 20;  // bytes of a body that were not asked for yet
constexpr long kReadSize = 256 * 1024;          // bytes; curl's buffer
constexpr std::size_t kMaxDiscarded = 64 * 1024;
constexpr std::size_t kMaxIdleChannels = 16;
constexpr int kHeadTimeoutFactor = 4;   // of the stall timeout
constexpr int kRestTimeoutFactor = 10;  // of the stall timeout
constexpr int kLongestPoll = 60'000;    // ms
constexpr const char* kUserAgent = "microsandbox/" MSB_VERSION;
// How OpenSSL calls the first bytes of something else than TLS.
constexpr std::string_view kNotTls = "wrong version number";
constexpr const char* kCertificateDirectory = "/etc/ssl/certs";

// CURL and CURLM are both void.
struct FreeEasy {
  void operator()(CURL* easy) const { ::curl_easy_cleanup(easy); }
};
struct FreeMulti {
  void operator()(CURLM* multi) const { ::curl_multi_cleanup(multi); }
};
struct FreeList {
  void operator()(curl_slist* list) const { ::curl_slist_free_all(list); }
};

void initialize_curl() {
  static const CURLcode code = ::curl_global_init(CURL_GLOBAL_DEFAULT);
  if (code != CURLE_OK) {
    throw std::bad_alloc();
  }
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return lower;
}

// How a transfer of curl's that failed is to be taken.
Failure::Kind kind_of(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
      return Failure::Kind::kUnreachable;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_OUT_OF_MEMORY:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
      return Failure::Kind::kFinal;
    default:
      return Failure::Kind::kTransient;
  }
}

bool is_verification_failure(CURLcode code) {
  return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_ISSUER_ERROR ||
         code == CURLE_SSL_INVALIDCERTSTATUS;
}

}  // namespace

// A handle of curl's with the connections that it keeps, and the one transfer that it carries.
struct HttpChannel {
  // In this order, since the multi handle must go last.
  std::unique_ptr<CURLM, FreeMulti> multi{::curl_multi_init()};
  std::unique_ptr<CURL, FreeEasy> easy{::curl_easy_init()};

  std::unique_ptr<curl_slist, FreeList> headers;
  std::string form;
  std::string authority;
  std::chrono::milliseconds stall_timeout{};
  std::stop_token stop;
  std::array<char, CURL_ERROR_SIZE> error_text{};

  HttpHead head;
  bool head_complete = false;
  std::size_t header_bytes = 0;
  std::size_t header_lines = 0;
  std::vector<std::byte> buffer;  // arrived, not asked for yet
  std::vector<std::byte> shown;   // what next() gave last
  bool paused = false;
  bool header_refused = false;
  std::optional<CURLcode> outcome;  // once the transfer has ended
  Clock::time_point last_byte;

  void prepare(const HttpRequest& request, const HttpOptions& options);
  void clear();
  // Lets the transfer go on until `done` or its end. Fails when it fails, stalls or is to stop.
  Attempt<void> run_until(const std::function<bool()>& done, Clock::time_point deadline);
  [[nodiscard]] Failure failure() const;

  static std::size_t on_header(char* data, std::size_t size, std::size_t count, void* channel);
  static std::size_t on_body(char* data, std::size_t size, std::size_t count, void* channel);
  bool take_header(std::string_view line);
};

void HttpChannel::prepare(const HttpRequest& request, const HttpOptions& options) {
  authority = request.url.authority;
  stall_timeout = options.stall_timeout;
  stop = options.stop;
  form = request.form;
  for (const std::string& header : request.headers) {
    curl_slist* longer = ::curl_slist_append(headers.get(), header.c_str());
    if (longer == nullptr) {
      throw std::bad_alloc();
    }
    // It belongs to the longer list now.
    [[maybe_unused]] const auto* kept = headers.release();
    headers.reset(longer);
  }
  CURL* curl = easy.get();
  ::curl_easy_setopt(curl, CURLOPT_URL, request.url.text.c_str());
  ::curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  // A paused HTTP/2 stream may have a window of many MiB in memory, and blobs in parallel have a
  // connection each anyway.
  ::curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
  ::curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  ::curl_easy_setopt(curl, CURLOPT_USERAGENT, kUserAgent);
  ::curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
  ::curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  ::curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, kReadSize);
  ::curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
  ::curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(stall_timeout.count()));
  ::curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error_text.data());
  ::curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &HttpChannel::on_header);
  ::curl_easy_setopt(curl, CURLOPT_HEADERDATA, this);
  ::curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &HttpChannel::on_body);
  ::curl_easy_setopt(curl, CURLOPT_WRITEDATA, this);
  if (request.method == HttpRequest::Method::kHead) {
    ::curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
  } else if (request.method == HttpRequest::Method::kPost) {
    ::curl_easy_setopt(curl, CURLOPT_POST, 1L);
    ::curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(form.size()));
    ::curl_easy_setopt(curl, CURLOPT_POSTFIELDS, form.c_str());
  }
  if (options.insecure) {
    ::curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
    ::curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
  }
  // curl's program reads these two variables, its library does not.
  const std::string file = absolute_path_from_environment("SSL_CERT_FILE");
  const std::string directory = absolute_path_from_environment("SSL_CERT_DIR");
  if (!file.empty()) {
    ::curl_easy_setopt(curl, CURLOPT_CAINFO, file.c_str());
  }
  if (!options.certificates.empty()) {
    curl_blob blob{const_cast<char*>(options.certificates.data()), options.certificates.size(),
                   CURL_BLOB_COPY};
    ::curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &blob);
    // The text takes the place of the system's file.
    ::curl_easy_setopt(curl, CURLOPT_CAPATH, kCertificateDirectory);
  }
  if (!directory.empty()) {
    ::curl_easy_setopt(curl, CURLOPT_CAPATH, directory.c_str());
  }
  if (::curl_multi_add_handle(multi.get(), curl) != CURLM_OK) {
    throw std::bad_alloc();
  }
}

void HttpChannel::clear() {
  ::curl_multi_remove_handle(multi.get(), easy.get());
  ::curl_easy_reset(easy.get());
  headers.reset();
  form.clear();
  error_text.fill('\0');
  head = {};
  head_complete = false;
  header_bytes = 0;
  header_lines = 0;
  buffer.clear();
  shown.clear();
  paused = false;
  header_refused = false;
  outcome.reset();
}

Attempt<void> HttpChannel::run_until(const std::function<bool()>& done,
                                     Clock::time_point deadline) {
  // curl_multi_wakeup() is the one function that another thread may call.
  const std::stop_callback wake(stop, [this] { ::curl_multi_wakeup(multi.get()); });
  last_byte = Clock::now();
  while (true) {
    int running = 0;
    ::curl_multi_perform(multi.get(), &running);
    int left = 0;
    while (const CURLMsg* message = ::curl_multi_info_read(multi.get(), &left)) {
      if (message->msg == CURLMSG_DONE) {
        outcome = message->data.result;
      }
    }
    if (done()) {
      return {};
    }
    if (outcome) {
      return *outcome == CURLE_OK ? Attempt<void>() : std::unexpected(failure());
    }
    if (stop.stop_requested()) {
      return fail_as(Failure::Kind::kFinal, "the transfer from '{}' was cancelled", authority);
    }
    const auto give_up = std::min(last_byte + stall_timeout, deadline);
    const auto wait = std::chrono::ceil<std::chrono::milliseconds>(give_up - Clock::now()).count();
    if (wait <= 0) {
      return fail_as(Failure::Kind::kTransient, "'{}' sent nothing, or too little, for {} s",
                     authority, std::chrono::duration<double>(stall_timeout).count());
    }
    ::curl_multi_poll(multi.get(), nullptr, 0,
                      static_cast<int>(std::min<std::int64_t>(wait, kLongestPoll)), nullptr);
  }
}

Failure HttpChannel::failure() const {
  if (header_refused) {
    return {.error = fail("'{}' answers with an endless header", authority).error()};
  }
  const CURLcode code = *outcome;
  const std::string reason =
      printable(error_text[0] != '\0' ? error_text.data() : ::curl_easy_strerror(code));
  if (is_verification_failure(code)) {
    return {.error = fail("the certificate of '{}' is not trusted ({}); name the file of its CA "
                          "under 'certificates' in images.json",
                          authority, reason)
                         .error()};
  }
  if (code == CURLE_SSL_CACERT_BADFILE) {
    return {
        .error =
            fail("the CA certificates for '{}' cannot be used ({})", authority, reason).error()};
  }
  if (code == CURLE_SSL_CONNECT_ERROR && reason.find(kNotTls) != std::string::npos) {
    return {.error = fail("'{}' does not speak TLS; if it is to be trusted without, list it under "
                          "'insecure_registries' in images.json",
                          authority)
                         .error(),
            .kind = Failure::Kind::kNoTls};
  }
  long proxy_status = 0;  // of a CONNECT
  ::curl_easy_getinfo(easy.get(), CURLINFO_HTTP_CONNECTCODE, &proxy_status);
  constexpr long kFirstError = 400;
  constexpr long kFirstServerError = 500;
  if (proxy_status >= kFirstError) {
    return {.error = fail("the proxy of the environment does not connect to '{}' ({}); check "
                          "HTTPS_PROXY, or add the host to NO_PROXY",
                          authority, reason)
                         .error(),
            .kind = proxy_status < kFirstServerError ? Failure::Kind::kFinal
                                                     : Failure::Kind::kTransient};
  }
  const Failure::Kind kind = kind_of(code);
  return {
      .error = fail("the connection to '{}' failed ({}){}", authority, reason,
                    kind == Failure::Kind::kUnreachable ? "; check its name and the network" : "")
                   .error(),
      .kind = kind};
}

std::size_t HttpChannel::on_header(char* data, std::size_t size, std::size_t count, void* channel) {
  auto& self = *static_cast<HttpChannel*>(channel);
  self.last_byte = Clock::now();
  if (!self.take_header(std::string_view(data, size * count))) {
    self.header_refused = true;
    return 0;
  }
  return size * count;
}

bool HttpChannel::take_header(std::string_view line) {
  header_bytes += line.size();
  if (header_bytes > kMaxHeaderBytes || ++header_lines > kMaxHeaderLines) {
    return false;
  }
  if (head_complete) {
    return true;  // a trailer
  }
  line = line.substr(0, line.find_last_not_of("\r\n") + 1);
  if (line.starts_with("HTTP/")) {
    head = {};
    return true;
  }
  if (line.empty()) {
    ::curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &head.status);
    constexpr long kFirstFinal = 200;  // what comes before is interim (RFC 9110, section 15.2)
    head_complete = head.status >= kFirstFinal;
    return true;
  }
  const auto colon = line.find(':');
  if (colon != std::string_view::npos) {
    std::string_view value = line.substr(colon + 1);
    value.remove_prefix(std::min(value.find_first_not_of(" \t"), value.size()));
    value = value.substr(0, value.find_last_not_of(" \t") + 1);
    head.fields.emplace_back(lower_case(line.substr(0, colon)), value);
  }
  return true;
}

std::size_t HttpChannel::on_body(char* data, std::size_t size, std::size_t count, void* channel) {
  auto& self = *static_cast<HttpChannel*>(channel);
  self.last_byte = Clock::now();
  if (self.buffer.size() >= kMaxBuffered) {
    self.paused = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  const auto bytes = std::as_bytes(std::span(data, size * count));
  self.buffer.insert(self.buffer.end(), bytes.begin(), bytes.end());
  return bytes.size();
}

const std::string* HttpHead::find(std::string_view name) const {
  const auto field = std::ranges::find(fields, name, &std::pair<std::string, std::string>::first);
  return field == fields.end() ? nullptr : &field->second;
}

Result<std::string> read_certificates(const std::string& path) {
  auto content = read_config_file(path);
  if (!content) {
    return std::unexpected(content.error().within("CA certificates"));
  }
  if (!*content) {
    return fail("CA certificates: '{}' does not exist", path);
  }
  return std::move(**content);
}

HttpExchange::HttpExchange(HttpClient& client, std::unique_ptr<HttpChannel> channel)
    : client_(client), channel_(std::move(channel)) {}

HttpExchange::~HttpExchange() {
  client_.give_back(std::move(channel_));
}

const HttpHead& HttpExchange::head() const {
  return channel_->head;
}

Attempt<std::span<const std::byte>> HttpExchange::next() {
  HttpChannel& channel = *channel_;
  if (channel.buffer.empty() && !channel.outcome) {
    if (channel.paused) {
      channel.paused = false;
      ::curl_easy_pause(channel.easy.get(), CURLPAUSE_CONT);
    }
    auto arrived =
        channel.run_until([&] { return !channel.buffer.empty(); }, Clock::time_point::max());
    if (!arrived) {
      return std::unexpected(arrived.error());
    }
  }
  channel.shown.clear();
  channel.shown.swap(channel.buffer);
  if (channel.shown.empty() && channel.outcome != CURLE_OK) {
    return std::unexpected(channel.failure());
  }
  return std::span<const std::byte>(channel.shown);
}

Attempt<std::string> HttpExchange::read_rest(std::size_t limit) {
  const auto deadline = Clock::now() + kRestTimeoutFactor * channel_->stall_timeout;
  std::string body;
  while (true) {
    const auto piece = next();
    if (!piece) {
      return std::unexpected(piece.error());
    }
    if (piece->empty()) {
      return body;
    }
    if (piece->size() > limit - body.size()) {
      return fail_as(Failure::Kind::kFinal, "the answer of '{}' is longer than {} bytes",
                     channel_->authority, limit);
    }
    body.append(reinterpret_cast<const char*>(piece->data()), piece->size());
    if (Clock::now() > deadline) {
      return fail_as(Failure::Kind::kTransient, "'{}' takes too long for a short answer",
                     channel_->authority);
    }
  }
}

void HttpExchange::discard() {
  // If it fails, the connection is not used again: that is all.
  [[maybe_unused]] const auto rest = read_rest(kMaxDiscarded);
}

HttpClient::HttpClient(HttpOptions options) : options_(std::move(options)) {
  initialize_curl();
}

HttpClient::~HttpClient() = default;

Attempt<std::unique_ptr<HttpExchange>> HttpClient::send(const HttpRequest& request) {
  auto channel = take_channel();
  channel->prepare(request, options_);
  // Owned by an exchange from here on, which gives it back.
  std::unique_ptr<HttpExchange> exchange(new HttpExchange(*this, std::move(channel)));
  HttpChannel& sending = *exchange->channel_;
  auto answered = sending.run_until([&] { return sending.head_complete; },
                                    Clock::now() + kHeadTimeoutFactor * options_.stall_timeout);
  if (!answered) {
    return std::unexpected(answered.error());
  }
  if (!sending.head_complete) {
    return fail_as(Failure::Kind::kTransient, "'{}' ends the connection without an answer",
                   request.url.authority);
  }
  return exchange;
}

std::unique_ptr<HttpChannel> HttpClient::take_channel() {
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) {
    auto channel = std::make_unique<HttpChannel>();
    if (!channel->multi || !channel->easy) {
      throw std::bad_alloc();
    }
    return channel;
  }
  auto channel = std::move(idle_.back());
  idle_.pop_back();
  return channel;
}

void HttpClient::give_back(std::unique_ptr<HttpChannel> channel) {
  channel->clear();
  const std::lock_guard lock(mutex_);
  if (idle_.size() < kMaxIdleChannels) {
    idle_.push_back(std::move(channel));
  }
}

}  // namespace msb::oci
