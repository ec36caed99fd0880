// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/resolver.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "base/fd.hpp"

namespace msb::launcher {

namespace {

constexpr std::size_t kServers = 3;       // MAXNS of <resolv.h>
constexpr std::size_t kSearchText = 256;  // what resolvers in guests have room for
constexpr std::size_t kMaxFile = 65536;

std::string_view take_word(std::string_view& line) {
  constexpr std::string_view kSpace = " \t\r";
  line.remove_prefix(std::min(line.find_first_not_of(kSpace), line.size()));
  const std::string_view word = line.substr(0, line.find_first_of(kSpace));
  line.remove_prefix(word.size());
  return word;
}

// What a guest takes (initramfs/boot_network.c).
bool is_domain(std::string_view word) {
  constexpr std::string_view kCharacters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
  return !word.empty() && word != "." && word.size() <= kSearchText &&
         word.find_first_not_of(kCharacters) == std::string_view::npos;
}

std::vector<std::string> take_domains(std::string_view line, std::size_t most) {
  std::vector<std::string> domains;
  std::size_t size = 0;
  for (std::string_view word = take_word(line); !word.empty() && domains.size() < most;
       word = take_word(line)) {
    if (is_domain(word) && size + word.size() + 1 <= kSearchText) {
      domains.emplace_back(word);
      size += word.size() + 1;
    }
  }
  return domains;
}

// Whether both are of the same file with the same content.
bool is_same(const struct stat& one, const struct stat& other) {
  return one.st_dev == other.st_dev && one.st_ino == other.st_ino && one.st_size == other.st_size &&
         one.st_mtim.tv_sec == other.st_mtim.tv_sec && one.st_mtim.tv_nsec == other.st_mtim.tv_nsec;
}

}  // namespace

ResolverConfig parse_resolvers(std::string_view text) {
  ResolverConfig config;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.starts_with('#') || line.starts_with(';')) {
      continue;
    }
    const std::string_view key = take_word(line);
    if (key == "nameserver" && config.servers.size() < kServers) {
      if (const auto server = parse_address(take_word(line), 0)) {
        config.servers.push_back(*server);
      }
    } else if (key == "search") {  // of these two, the last one counts
      config.search = take_domains(line, line.size());
    } else if (key == "domain") {
      config.search = take_domains(line, 1);
    }
  }
  if (config.servers.empty()) {
    config.servers.push_back(*parse_address("127.0.0.1", 0));
  }
  return config;
}

ResolverConfig read_resolvers(const std::string& path) {
  std::string text;
  // Whatever else may lie there is not waited for.
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  char buffer[4096];
  ssize_t size = 0;
  while (file && text.size() < kMaxFile && (size = ::read(file.get(), buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<std::size_t>(size));
  }
  return parse_resolvers(text);
}

const ResolverConfig& Resolvers::now() {
  struct stat status{};
  if (::stat(path_.c_str(), &status) != 0) {
    status = {};
  }
  if (!config_ || !is_same(status, status_)) {
    status_ = status;
    config_ = read_resolvers(path_);
  }
  return *config_;
}

}  // namespace msb::launcher
