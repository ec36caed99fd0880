// SPDX-License-Identifier: Apache-2.0
// What an image asks for: its process, its stop signal, its volumes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "oci/image_spec.hpp"
#include "protocol/host_frames.hpp"

namespace msb::launcher {

// What the user says about the process; empty fields leave the image's word.
struct ProcessOptions {
  std::vector<std::string> command;
  std::vector<std::string> environment;  // NAME=VALUE, or NAME for the launcher's own value
  std::string directory;
  std::string user;            // name or number, with `:` and a group's if need be
  bool no_entrypoint = false;  // the command is all: the image's entrypoint stays out of it
  bool extend = false;         // the command follows the image's, rather than taking its place
  std::string path;            // a directory that goes in front of PATH; empty: none
};

// The process to run: the image's entrypoint and arguments, environment, user and directory with
// the user's words in front. Names of users are looked up in the guest. Fails when neither names a
// command, or a variable has no name.
Result<protocol::ProcessSpec> make_process(const oci::ImageConfig& image,
                                           const ProcessOptions& options);

// The same without its arguments: where, as whom and with which variables the image's processes
// run.
Result<protocol::ProcessSpec> make_surroundings(const oci::ImageConfig& image,
                                                const ProcessOptions& options);

// The signal that asks the image's processes to end: `wanted` if it is not empty, else the image's
// own word (config.md, StopSignal), else SIGTERM. Fails for one that there is not.
Result<std::uint32_t> stop_signal(const oci::ImageConfig& image, const std::string& wanted);

// The lines of the boot file (protocol/msb_boot.h) for the image's volumes. Fails for one that is
// no absolute path.
Result<std::string> volume_lines(const oci::ImageConfig& image);

}  // namespace msb::launcher
