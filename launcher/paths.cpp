// SPDX-License-Identifier: Apache-2.0
#include "launcher/paths.hpp"

#include <unistd.h>

#include <cstdlib>
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

Result<std::string> home_directory() {
  const auto absolute = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value != nullptr && value[0] == '/' ? value : "";
  };
  if (std::string home = absolute("MSB_HOME"); !home.empty()) {
    return home;
  }
  if (const std::string data = absolute("XDG_DATA_HOME"); !data.empty()) {
    return data + "/microsandbox";
  }
  if (const std::string home = absolute("HOME"); !home.empty()) {
    return home + "/.local/share/microsandbox";
  }
  return fail("there is no place for images: set MSB_HOME to an absolute path");
}

}  // namespace msb::launcher
