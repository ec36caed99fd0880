// SPDX-License-Identifier: Apache-2.0
#include "sandbox/state_directory.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "sandbox/files.hpp"
#include "sandbox/locked_file.hpp"

namespace msb::sandbox {

namespace {

// Its presence without an exit record means that nobody was left to write one.
constexpr const char* kBegun = "begun.json";
constexpr std::size_t kMaxId = 32;
constexpr std::size_t kMaxKernelLines = 100;

ExitRecord read_record(const Json& document) {
  ExitRecord record;
  record.status = static_cast<int>(number_member(document, "status").value_or(0));
  record.message = text_member(document, "message").value_or("");
  record.cause = text_member(document, "cause").value_or("");
  record.started_ms = number_member(document, "started_ms").value_or(0);
  record.ended_ms = number_member(document, "ended_ms").value_or(0);
  const auto lines = document.find("kernel");
  if (lines != document.end() && lines->is_array()) {
    for (const Json& line : *lines) {
      if (line.is_string() && record.kernel.size() < kMaxKernelLines) {
        record.kernel.push_back(line.get<std::string>());
      }
    }
  }
  return record;
}

}  // namespace

Result<void> StateDirectory::make() const {
  const auto made = make_directory(path_);
  return made ? Result<void>() : std::unexpected(made.error());
}

bool StateDirectory::exists() const {
  struct stat status{};
  return ::lstat(path_.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

bool StateDirectory::is_one() const {
  struct stat status{};
  return ::lstat(file("lock").c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

Result<std::optional<Fd>> StateDirectory::lock() const {
  return take_lock(file("lock"));
}

Result<void> StateDirectory::say_id(const Fd& lock, std::string_view id) {
  if (::ftruncate(lock.get(), 0) != 0 ||
      ::pwrite(lock.get(), id.data(), id.size(), 0) != static_cast<ssize_t>(id.size())) {
    return fail_errno(errno, "cannot write the sandbox's lock file");
  }
  return {};
}

Result<std::optional<std::string>> StateDirectory::running_id() const {
  const auto held = is_locked(file("lock"));
  if (!held) {
    return std::unexpected(held.error());
  }
  if (!*held) {
    return std::nullopt;
  }
  auto id = read_file(file("lock"), kMaxId);
  if (!id) {
    return std::unexpected(id.error());
  }
  return id->value_or("");
}

Result<std::optional<PinnedImage>> StateDirectory::image() const {
  struct stat status{};
  if (::lstat(disk().c_str(), &status) != 0) {
    return std::nullopt;  // nothing lies on it
  }
  const auto document = read_json_file(file("sandbox.json"));
  if (!document) {
    return std::unexpected(document.error());
  }
  if (!*document) {
    return fail(
        "nothing says which image the disk '{}' lies on; remove it, or start afresh with `msb "
        "clean`",
        disk());
  }
  const auto reference = text_member(**document, "image");
  if (!reference) {
    return fail("'{}' is damaged: it names no image", file("sandbox.json"));
  }
  return PinnedImage{*reference, text_member(**document, "digest").value_or("")};
}

Result<void> StateDirectory::pin(const PinnedImage& image) const {
  return write_json_file(file("sandbox.json"),
                         {{"image", image.reference}, {"digest", image.digest}});
}

Result<std::optional<ExitRecord>> StateDirectory::exit_record() const {
  const auto held = is_locked(file("lock"));
  if (!held) {
    return std::unexpected(held.error());
  }
  if (*held) {
    return std::nullopt;
  }
  const auto document = read_json_file(record());
  if (!document) {
    return std::unexpected(document.error());
  }
  if (*document) {
    return read_record(**document);
  }
  const auto begun = read_json_file(file(kBegun));
  if (!begun) {
    return std::unexpected(begun.error());
  }
  if (!*begun) {
    return std::nullopt;
  }
  ExitRecord killed;
  constexpr int kKilled = 128 + 9;
  killed.status = kKilled;
  killed.message = "its supervisor was killed, or this host went down, while it ran";
  killed.cause = "failed";
  killed.started_ms = number_member(**begun, "started_ms").value_or(0);
  return killed;
}

Result<void> StateDirectory::begin(std::int64_t now_ms) const {
  if (auto written = write_json_file(file(kBegun), {{"started_ms", now_ms}}); !written) {
    return written;
  }
  if (::unlink(record().c_str()) != 0 && errno != ENOENT) {
    return fail_errno(errno, "cannot remove '{}'", record());
  }
  return {};
}

Result<void> StateDirectory::write_scripts(
    const std::vector<std::pair<std::string, std::string>>& scripts,
    const std::string& interpreter) const {
  const std::string directory = file("scripts");
  if (auto removed = remove_tree(directory); !removed) {
    return removed;
  }
  if (const auto made = make_directory(directory); !made) {
    return std::unexpected(made.error());
  }
  for (const auto& [name, body] : scripts) {
    const std::string text =
        fmt::format("#!{}\n{}{}", interpreter, body, body.ends_with('\n') ? "" : "\n");
    constexpr unsigned kExecutable = 0755;
    if (auto written = write_file(fmt::format("{}/{}", directory, name), text, kExecutable);
        !written) {
      return written;
    }
  }
  // Whoever a program in the sandbox runs as.
  if (::chmod(directory.c_str(), 0755) != 0) {
    return fail_errno(errno, "cannot make '{}' readable", directory);
  }
  return {};
}

}  // namespace msb::sandbox
