// SPDX-License-Identifier: Apache-2.0
// `msb-vmm run`: a command in a fresh machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launcher/image.hpp"
#include "launcher/network/sandbox_network.hpp"
#include "launcher/outcome.hpp"
#include "launcher/supervision.hpp"

namespace msb::launcher {

struct RunOptions {
  std::string image;   // LAYOUT[:TAG] or a reference; empty: `rootfs`
  std::string rootfs;  // a directory that is the root instead of an image
  std::uint64_t cpus = 1;
  std::uint64_t memory_mib = 512;
  ProcessOptions process;
  std::uint64_t processes = 0;  // and threads, at a time; 0: as many as the memory allows
  std::string hostname = "sandbox";
  std::vector<std::string> disks;  // FILE[:ro][:direct], in the order in which the guest has them
  std::string upper;  // a disk image with ext4 that holds the writable layer; empty: memory does
  std::vector<std::string> shares;  // HOST:GUEST[:ro][:cache=...]
  NetworkWords network;
  std::vector<std::string> publish;  // [ADDRESS:]HOSTPORT:GUESTPORT[/tcp|/udp]
  std::vector<std::string> hosts;    // NAME=SOCKET:PORT
  std::string kernel;                // empty: the installation's own
  std::string initramfs;             // empty: the installation's own
  std::string command_line;          // appended to the guest kernel's
  bool console = false;              // the guest's serial output goes to standard error
  std::string socket;                // path of the sandbox's Unix socket; empty: none
  std::string control;               // path of its control socket; empty: none
  bool terminal = false;             // the command gets a terminal, which shows in the caller's
  bool balloon = false;              // the guest gives free memory back, and more when asked for it
  bool timing = false;               // print the times of the phases to standard error
  std::uint64_t ready_timeout_s = 60;
  std::string stop_signal;          // by name or number; empty: the image's own, or SIGTERM
  std::string stop_timeout = "10";  // seconds
  SupervisionOptions supervision;
};

// Runs it to its end. The caller prints the message.
Outcome run(RunOptions options);

}  // namespace msb::launcher
