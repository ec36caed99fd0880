// SPDX-License-Identifier: Apache-2.0
#include "sandbox/files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

namespace msb::sandbox {

namespace {

constexpr std::size_t kMaxJson = 1024 * 1024;

Result<Fd> check_directory(Fd directory, const std::string& path) {
  struct stat status{};
  if (::fstat(directory.get(), &status) != 0) {
    return fail_errno(errno, "cannot look at '{}'", path);
  }
  if (status.st_uid != ::geteuid()) {
    return fail("'{}' belongs to another user", path);
  }
  return directory;
}

Fd open_no_follow(const std::string& path) {
  return Fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

Result<void> write_all(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t written = ::write(fd, content.data(), content.size());
    if (written < 0 && errno != EINTR) {
      return fail_errno(errno, "write");
    }
    content.remove_prefix(written < 0 ? 0 : static_cast<std::size_t>(written));
  }
  return {};
}

}  // namespace

Result<Fd> make_directory(const std::string& path) {
  Fd directory = open_no_follow(path);
  if (!directory && errno == ENOENT) {
    std::error_code error;
    const auto parent = std::filesystem::path(path).parent_path();
    std::filesystem::create_directories(parent, error);
    if (error || (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)) {
      return fail_errno(error ? error.value() : errno, "cannot make the directory '{}'", path);
    }
    directory = open_no_follow(path);
  }
  if (!directory) {
    return fail_errno(errno, "cannot use '{}' as a directory", path);
  }
  return check_directory(std::move(directory), path);
}

Result<std::optional<Fd>> open_directory(const std::string& path) {
  Fd directory = open_no_follow(path);
  if (!directory) {
    if (errno == ENOENT) {
      return std::nullopt;
    }
    return fail_errno(errno, "cannot use '{}' as a directory", path);
  }
  auto checked = check_directory(std::move(directory), path);
  if (!checked) {
    return std::unexpected(checked.error());
  }
  return std::optional<Fd>(std::move(*checked));
}

Result<std::optional<std::string>> read_file(const std::string& path, std::size_t limit) {
  // O_NONBLOCK: a FIFO that somebody put there is not waited for.
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return std::nullopt;
    }
    return fail_errno(errno, "cannot open '{}'", path);
  }
  auto content = read_open_file(file, path, limit);
  return content ? Result<std::optional<std::string>>(std::move(*content))
                 : std::unexpected(content.error());
}

Result<std::string> read_open_file(const Fd& file, const std::string& path, std::size_t limit) {
  struct stat status{};
  if (::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return fail("'{}' is no regular file", path);
  }
  std::string content;
  char piece[16384];
  ssize_t length = 0;
  while ((length = ::read(file.get(), piece, sizeof piece)) != 0) {
    if (length < 0 && errno != EINTR) {
      return fail_errno(errno, "cannot read '{}'", path);
    }
    content.append(piece, length < 0 ? 0 : static_cast<std::size_t>(length));
    if (content.size() > limit) {
      return fail("'{}' is larger than {} bytes", path, limit);
    }
  }
  return content;
}

Result<void> write_file(const std::string& path, std::string_view content, unsigned mode) {
  const std::string draft = fmt::format("{}.{}.new", path, ::getpid());
  ::unlink(draft.c_str());
  const Fd file(
      ::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0777));
  if (!file) {
    return fail_errno(errno, "cannot write '{}'", path);
  }
  if (!write_all(file.get(), content) || ::fsync(file.get()) != 0 ||
      ::rename(draft.c_str(), path.c_str()) != 0) {
    const int code = errno;
    ::unlink(draft.c_str());
    return fail_errno(code, "cannot write '{}'", path);
  }
  return {};
}

Result<void> sync_directory(const std::string& path) {
  const Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || ::fsync(directory.get()) != 0) {
    return fail_errno(errno, "cannot write the directory '{}' to disk", path);
  }
  return {};
}

Result<std::optional<Json>> read_json_file(const std::string& path) {
  const auto text = read_file(path, kMaxJson);
  if (!text) {
    return std::unexpected(text.error());
  }
  if (!*text) {
    return std::nullopt;
  }
  Json document = Json::parse(**text, nullptr, false);
  if (!document.is_object()) {
    return fail("'{}' is damaged: it is no object of JSON", path);
  }
  return document;
}

Result<void> write_json_file(const std::string& path, const Json& document) {
  return write_file(path, document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::optional<std::string> text_member(const Json& document, const char* name) {
  const auto member = document.find(name);  // the end, of what is no object
  if (member == document.end() || !member->is_string()) {
    return std::nullopt;
  }
  return member->get<std::string>();
}

std::optional<std::int64_t> number_member(const Json& document, const char* name) {
  const auto member = document.find(name);
  if (member == document.end() || !member->is_number_integer()) {
    return std::nullopt;
  }
  return member->get<std::int64_t>();
}

Result<void> remove_tree(const std::string& path) {
  constexpr int kAttempts = 100;
  std::error_code error;
  // What is gone when its turn comes was removed by somebody else, who does the same.
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::filesystem::remove_all(path, error);
    if (error != std::errc::no_such_file_or_directory) {
      break;
    }
  }
  if (error) {
    return fail_errno(error.value(), "cannot remove '{}'", path);
  }
  return {};
}

}  // namespace msb::sandbox
