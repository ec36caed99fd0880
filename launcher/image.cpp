// SPDX-License-Identifier: Apache-2.0
#include "launcher/image.hpp"

#include <csignal>
#include <utility>

#include "launcher/environment.hpp"
#include "launcher/words.hpp"
#include "oci/printable.hpp"

namespace msb::launcher {

Result<protocol::ProcessSpec> make_process(const oci::ImageConfig& image,
                                           const ProcessOptions& options) {
  auto process = make_surroundings(image, options);
  if (!process) {
    return process;
  }
  if (!options.no_entrypoint) {
    process->arguments = image.entrypoint;
  }
  std::vector<std::string>& arguments = process->arguments;
  if (options.extend || options.command.empty()) {
    arguments.insert(arguments.end(), image.cmd.begin(), image.cmd.end());
  }
  arguments.insert(arguments.end(), options.command.begin(), options.command.end());
  if (arguments.empty()) {
    return fail("the image names no command; give one after `--`");
  }
  return process;
}

Result<protocol::ProcessSpec> make_surroundings(const oci::ImageConfig& image,
                                                const ProcessOptions& options) {
  protocol::ProcessSpec process;
  process.user = options.user.empty() ? image.user : options.user;
  auto environment = make_environment(image.env, options.environment);
  if (!environment) {
    return std::unexpected(environment.error());
  }
  process.environment = std::move(*environment);
  if (!options.path.empty()) {
    prepend_path(process.environment, options.path);
  }
  process.directory = !options.directory.empty()   ? options.directory
                      : !image.working_dir.empty() ? image.working_dir
                                                   : "/";
  return process;
}

Result<std::uint32_t> stop_signal(const oci::ImageConfig& image, const std::string& wanted) {
  if (!wanted.empty()) {
    const auto signal = parse_signal(wanted);
    return signal ? signal : fail("--stop-signal: {}", signal.error().message);
  }
  if (image.stop_signal.empty()) {
    return SIGTERM;
  }
  const auto signal = parse_signal(image.stop_signal);
  return signal ? signal
                : fail("the image's StopSignal: {}; name another one with --stop-signal",
                       signal.error().message);
}

Result<std::string> volume_lines(const oci::ImageConfig& image) {
  std::string lines;
  for (const std::string& volume : image.volumes) {
    if (!volume.starts_with('/') || volume.find('\n') != std::string::npos) {
      return fail("the image's volume '{}' is no absolute path", oci::printable(volume));
    }
    lines += fmt::format("volume {}\n", volume);
  }
  return lines;
}

}  // namespace msb::launcher
