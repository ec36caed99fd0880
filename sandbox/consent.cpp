// SPDX-License-Identifier: Apache-2.0
#include "sandbox/consent.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <filesystem>
#include <iterator>
#include <set>
#include <system_error>
#include <utility>

#include "base/home.hpp"
#include "base/publish.hpp"
#include "oci/layout.hpp"
#include "oci/printable.hpp"
#include "sandbox/files.hpp"
#include "sandbox/image_choice.hpp"
#include "sandbox/locked_file.hpp"

namespace msb::sandbox {

namespace {

namespace fs = std::filesystem;

constexpr const char* kProjects = "projects";
// Of the file, above which what was agreed to for projects that are gone is dropped.
constexpr std::size_t kLarge = 512 * 1024;

// Never cut off: two paths that differ are two sentences. JSON says it as it is, too.
std::string shown(std::string_view path) {
  return oci::printable(path, path.size());
}

Result<fs::path> resolve_directory(const std::string& directory) {
  std::error_code error;
  fs::path resolved = fs::canonical(directory, error);
  if (error) {
    return fail_errno(error.value(), "cannot find the directory '{}'", shown(directory));
  }
  return resolved;
}

// As far as there is something at `path`; the rest as it is written. What cannot be looked at may
// be anywhere.
Result<fs::path> resolve(const fs::path& path) {
  std::error_code error;
  fs::path resolved = fs::weakly_canonical(path, error);
  if (error) {
    return fail_errno(error.value(), "cannot tell where '{}' leads", shown(path.native()));
  }
  // What is still a symbolic link leads to nothing, until somebody makes that.
  if (fs::is_symlink(fs::symlink_status(resolved, error))) {
    return fail("'{}' is a symbolic link to what there is not", shown(path.native()));
  }
  return resolved;
}

bool is_inside(const fs::path& path, const fs::path& directory) {
  const auto [end, _] = std::ranges::mismatch(directory, path);
  return end == directory.end();
}

std::string mount_sentence(const fs::path& path, std::string_view guest, bool read_only) {
  return fmt::format("mounts {} at {} ({})", shown(path.native()), shown(guest),
                     read_only ? "read only" : "read and write");
}

std::string variables_sentence(const fs::path& path) {
  return fmt::format("reads variables from {}", shown(path.native()));
}

bool is_loopback(const SocketAddress& address) {
  constexpr std::uint32_t kLoopbackNet = 127;
  if (address.family() == AF_INET) {
    const auto* four = reinterpret_cast<const sockaddr_in*>(address.get());
    return ntohl(four->sin_addr.s_addr) >> 24 == kLoopbackNet;
  }
  const in6_addr& six = reinterpret_cast<const sockaddr_in6*>(address.get())->sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(&six) ||
         (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == kLoopbackNet);
}

std::optional<std::string> port_sentence(const std::string& word) {
  const auto words = parse_publish(std::string_view(word));
  if (!words || is_loopback(words->host)) {
    return std::nullopt;  // what is no port is published nowhere
  }
  const bool six = words->host.family() == AF_INET6;
  const std::string port =
      words->host.port() == 0 ? "a free port" : fmt::format("{}", words->host.port());
  return fmt::format("publishes {}port {} at {}{}{}:{}, which other machines can reach",
                     words->transport == Transport::kUdp ? "udp " : "", words->guest_port,
                     six ? "[" : "", words->host.text(), six ? "]" : "", port);
}

std::string image_sentence(const fs::path& path) {
  return fmt::format("runs the image in {}", shown(path.native()));
}

// Without the tag of a layout.
fs::path image_path(const std::string& image, const fs::path& directory) {
  const fs::path path = (directory / image).lexically_normal();
  const auto layout = oci::parse_layout_reference(path.native());
  return layout ? fs::path(layout->path) : path;
}

// The sentence about a real path that is not in the project.
template <typename Sentence>
Result<std::optional<std::string>> unless_inside(const std::string& path,
                                                 const std::string& directory, Sentence sentence) {
  const auto project = resolve_directory(directory);
  if (!project) {
    return std::unexpected(project.error());
  }
  if (is_inside(path, *project)) {
    return std::nullopt;
  }
  return sentence(path);
}

Result<Json> read_consents(const std::string& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0 && status.st_uid != ::geteuid()) {
    return fail("'{}' belongs to another user; remove it", path);
  }
  const auto document = read_json_file(path);
  if (!document) {
    return std::unexpected(document.error().within("cannot tell what you have agreed to"));
  }
  if (!*document) {
    return Json{{kProjects, Json::object()}};
  }
  const auto projects = (*document)->find(kProjects);
  const bool good =
      projects != (*document)->end() && projects->is_object() &&
      std::ranges::all_of(*projects, [](const Json& sentences) {
        return sentences.is_array() &&
               std::ranges::all_of(sentences, [](const Json& one) { return one.is_string(); });
      });
  if (!good) {
    return fail("'{}' is damaged; remove it, and you are asked again", path);
  }
  return **document;
}

std::set<std::string> agreed_of(const Json& document, const std::string& directory) {
  std::set<std::string> agreed;
  const Json& projects = document.at(kProjects);
  const auto project = projects.find(shown(directory));
  if (project != projects.end()) {
    project->get_to(agreed);
  }
  return agreed;
}

// A project that is only away for now is asked about again.
void drop_gone(Json& projects) {
  for (auto project = projects.begin(); project != projects.end();) {
    std::error_code error;
    project = fs::exists(project.key(), error) ? std::next(project) : projects.erase(project);
  }
}

}  // namespace

Result<std::vector<std::string>> beyond(const SandboxSpec& spec, const std::string& directory) {
  const auto project = resolve_directory(directory);
  if (!project) {
    return std::unexpected(project.error());
  }
  std::vector<std::string> sentences;
  std::optional<Error> unknown;
  const auto judge = [&](const fs::path& written, const auto& sentence) {
    const auto path = resolve(written);
    if (!path) {
      unknown = path.error();
    } else if (!is_inside(*path, *project)) {
      sentences.push_back(sentence(*path));
    }
  };
  if (is_local_image(spec.image)) {
    judge(image_path(spec.image, *project), image_sentence);
  }
  for (const Volume& volume : spec.volumes) {
    judge(*project / volume.host, [&volume](const fs::path& path) {
      return mount_sentence(path, volume.guest, volume.read_only);
    });
  }
  for (const std::string& file : spec.env_files) {
    judge(*project / file, variables_sentence);
  }
  for (const std::string& port : spec.ports) {
    if (auto sentence = port_sentence(port)) {
      sentences.push_back(std::move(*sentence));
    }
  }
  if (unknown) {
    return std::unexpected(*unknown);
  }
  return sentences;
}

Result<std::optional<std::string>> beyond(const OpenVolume& volume, const std::string& directory) {
  return unless_inside(volume.path, directory, [&volume](const fs::path& path) {
    return mount_sentence(path, volume.guest, volume.read_only);
  });
}

Result<std::optional<std::string>> beyond_root(const std::string& path,
                                               const std::string& directory) {
  return unless_inside(path, directory, image_sentence);
}

Result<std::optional<std::string>> beyond_variables(const std::string& path,
                                                    const std::string& directory) {
  return unless_inside(path, directory, variables_sentence);
}

Result<std::string> real_path(const Fd& file) {
  std::string path(PATH_MAX, '\0');
  const ssize_t length =
      ::readlink(fmt::format("/proc/self/fd/{}", file.get()).c_str(), path.data(), path.size());
  if (length < 0) {
    return fail_errno(errno, "cannot tell where an open file is");
  }
  path.resize(static_cast<std::size_t>(length));
  // A path that is gone has " (deleted)" behind it, which is a name like others, too (proc(5)).
  struct stat opened{};
  struct stat there{};
  if (::fstat(file.get(), &opened) != 0 || ::lstat(path.c_str(), &there) != 0 ||
      opened.st_dev != there.st_dev || opened.st_ino != there.st_ino) {
    return fail("'{}' was removed or moved while it was opened", shown(path));
  }
  return path;
}

Result<OpenVolume> open_volume(const Volume& volume, const std::string& directory) {
  const std::string path = (fs::path(directory) / volume.host).string();
  Fd file(::open(path.c_str(), O_PATH | O_CLOEXEC));
  struct stat status{};
  if (!file || ::fstat(file.get(), &status) != 0) {
    return errno == ENOENT
               ? fail("cannot mount '{}' at {}: there is no such file or directory; make it first",
                      shown(path), shown(volume.guest))
               : fail_errno(errno, "cannot mount '{}' at {}", shown(path), shown(volume.guest));
  }
  if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)) {
    return fail("cannot mount '{}' at {}: it is neither a directory nor a regular file",
                shown(path), shown(volume.guest));
  }
  auto real = real_path(file);
  if (!real) {
    return std::unexpected(
        real.error().within(fmt::format("cannot mount '{}'", shown(volume.host))));
  }
  return OpenVolume{std::move(file), std::move(*real), volume.guest, volume.read_only};
}

Result<std::vector<std::string>> Consents::missing(
    const std::string& directory, const std::vector<std::string>& sentences) const {
  const auto document = read_consents(path_);
  if (!document) {
    return std::unexpected(document.error());
  }
  const std::set<std::string> agreed = agreed_of(*document, directory);
  std::vector<std::string> others;
  std::ranges::copy_if(sentences, std::back_inserter(others),
                       [&agreed](const std::string& one) { return !agreed.contains(one); });
  return others;
}

Result<bool> Consents::is_agreed(const std::string& directory,
                                 const std::vector<std::string>& sentences) const {
  const auto others = missing(directory, sentences);
  return others ? Result<bool>(others->empty()) : std::unexpected(others.error());
}

Result<void> Consents::agree(const std::string& directory,
                             const std::vector<std::string>& sentences) const {
  if (const auto made = make_directory(fs::path(path_).parent_path().string()); !made) {
    return std::unexpected(made.error());
  }
  // Not the file's own lock: another file takes its place.
  const auto lock = wait_for_lock(path_ + ".lock");
  if (!lock) {
    return std::unexpected(lock.error());
  }
  auto document = read_consents(path_);
  if (!document) {
    return std::unexpected(document.error());
  }
  std::set<std::string> agreed = agreed_of(*document, directory);
  agreed.insert(sentences.begin(), sentences.end());
  Json& projects = (*document)[kProjects];
  if (document->dump().size() > kLarge) {
    drop_gone(projects);
  }
  projects[shown(directory)] = agreed;
  return write_json_file(path_, *document);
}

Result<Consents> open_consents() {
  const auto home = home_directory();
  return home ? Result<Consents>(Consents(*home + "/consents.json"))
              : std::unexpected(home.error());
}

}  // namespace msb::sandbox
