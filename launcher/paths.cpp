// SPDX-License-Identifier: Apache-2.0
#include "launcher/paths.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <system_error>

namespace msb::launcher {

namespace {

Result<std::string> find_part(std::string_view name, std::string_view in_build_tree) {
  const auto directory = program_directory();
  if (!directory) {
    return directory;
  }
  const std::string installed = fmt::format("{}/../share/microsandbox/{}", *directory, name);
  const std::string built = fmt::format("{}/../../{}", *directory, in_build_tree);
  for (const std::string& path : {installed, built}) {
    if (::access(path.c_str(), F_OK) == 0) {
      return path;
    }
  }
  return fail("there is no {} at {} or {}; build it with scripts/quickstart, or name one", name,
              installed, built);
}

}  // namespace

Result<std::string> program_directory() {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) {
    return fail("cannot find this program's own directory: {}", error.message());
  }
  return path.parent_path().string();
}

Result<std::string> default_kernel() {
  return find_part("vmlinux", "guestkernel/vmlinux");
}

Result<std::string> default_initramfs() {
  return find_part("initramfs.cpio", "initramfs/initramfs.cpio");
}

std::string shown_path(const std::string& path) {
  constexpr std::string_view kDescriptors = "/dev/fd/";
  if (!path.starts_with(kDescriptors)) {
    return path;
  }
  const std::size_t end = std::min(path.find('/', kDescriptors.size()), path.size());
  std::error_code error;
  const auto target = std::filesystem::read_symlink(path.substr(0, end), error);
  return error ? path : target.string() + path.substr(end);
}

}  // namespace msb::launcher
