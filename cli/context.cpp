// SPDX-License-Identifier: Apache-2.0
#include "cli/context.hpp"

#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/home.hpp"

namespace msb::cli {

Result<Context> Context::open() {
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  const auto path = oci::settings_path();
  auto settings =
      path ? oci::load_settings(*path) : Result<oci::Settings>(std::unexpected(path.error()));
  if (!settings) {
    return std::unexpected(settings.error());
  }
  auto store = oci::Store::open(*home);
  if (!store) {
    return std::unexpected(store.error());
  }
  return Context{std::move(*store), std::move(*settings)};
}

Result<void> print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    return fail_errno(errno, "cannot write to standard output");
  }
  return {};
}

Result<void> print_json(const Json& document) {
  return print(document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

void write_error(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
}

void complain(const std::string& sentence) {
  write_error(fmt::format("msb: {}\n", sentence));
}

}  // namespace msb::cli
