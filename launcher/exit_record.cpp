// SPDX-License-Identifier: Apache-2.0
#include "launcher/exit_record.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/fd.hpp"
#include "launcher/paths.hpp"

namespace msb::launcher {

namespace {

Result<void> write_whole(const Fd& file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t size = ::write(file.get(), text.data(), text.size());
    if (size < 0 && errno != EINTR) {
      return fail_errno(errno, "cannot write");
    }
    text.remove_prefix(size > 0 ? static_cast<std::size_t>(size) : 0);
  }
  return ::fsync(file.get()) == 0 ? Result<void>() : fail_errno(errno, "cannot sync");
}

Result<void> replace(const std::string& path, std::string_view text) {
  const std::string temporary = path + ".tmp";
  if (::unlink(temporary.c_str()) != 0 && errno != ENOENT) {
    return fail_errno(errno, "cannot remove \"{}\"", shown_path(temporary));
  }
  const Fd file(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (!file) {
    return fail_errno(errno, "cannot make \"{}\"", shown_path(temporary));
  }
  auto written = write_whole(file, text);
  if (written && ::rename(temporary.c_str(), path.c_str()) != 0) {
    written = fail_errno(errno, "cannot rename \"{}\"", shown_path(temporary));
  }
  if (!written) {
    ::unlink(temporary.c_str());
    return written;
  }
  const std::string directory = path.substr(0, path.rfind('/') + 1);
  const Fd parent(
      ::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent || ::fsync(parent.get()) != 0) {
    return fail_errno(errno, "cannot sync the directory");
  }
  return {};
}

}  // namespace

std::string_view cause_word(Cause cause) {
  switch (cause) {
    case Cause::kExited:
      return "exited";
    case Cause::kStopped:
      return "stopped";
    case Cause::kTimeout:
      return "timeout";
    case Cause::kIdle:
      return "idle";
    case Cause::kFailed:
      break;
  }
  return "failed";
}

std::string record_text(const ExitRecord& record) {
  using Json = nlohmann::ordered_json;
  const Json json{{"status", record.outcome.status},
                  {"message", record.outcome.message},
                  {"cause", cause_word(record.outcome.cause)},
                  {"started_ms", record.started_ms},
                  {"ended_ms", record.ended_ms},
                  {"kernel", record.kernel}};
  // A message may name a path of this host's, which need not be UTF-8.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<void> write_record(const std::string& path, const ExitRecord& record) {
  if (auto written = replace(path, record_text(record)); !written) {
    return std::unexpected(written.error().within(
        fmt::format("the exit record \"{}\" is not written", shown_path(path))));
  }
  return {};
}

std::uint64_t time_of_day_ms() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

}  // namespace msb::launcher
