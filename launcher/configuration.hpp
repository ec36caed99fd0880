// SPDX-License-Identifier: Apache-2.0
// A machine's configuration, from what the user of `msb-vmm run` wrote.
#pragma once

#include <list>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/machine_config.hpp"
#include "base/result.hpp"
#include "launcher/disk.hpp"
#include "launcher/machine_process.hpp"
#include "launcher/network/guest_forwards.hpp"
#include "launcher/network/sandbox_network.hpp"
#include "launcher/run.hpp"
#include "launcher/running_shares.hpp"
#include "oci/image_spec.hpp"

namespace msb::launcher {

// A configuration, the descriptors that it names, and what the control socket needs of disks and
// shares.
struct Configuration {
  MachineConfig config;
  std::vector<Fd> descriptors;
  std::vector<RunningDisk> disks;
  std::list<RunningShare> shares;
  bool lasting = false;  // its writable layer is there after it

  DescriptorIndex add(Fd descriptor) {
    descriptors.push_back(std::move(descriptor));
    return static_cast<DescriptorIndex>(descriptors.size() - 1);
  }
};

// Fails unless the machine is one that could run here.
Result<void> check_size(const RunOptions& options);

// Opens everything that the machine gets. `layers`: of the image, from the lowest. Fails with the
// first that cannot be opened or is not what it has to be.
Result<Configuration> configure(const RunOptions& options, const oci::ImageConfig& image,
                                std::vector<Fd> layers, SandboxNetwork& network,
                                GuestForwards& forwards);

Result<void> send_configuration(const MachineProcess& machine, const Configuration& configuration);

}  // namespace msb::launcher
