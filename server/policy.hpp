// SPDX-License-Identifier: Apache-2.0
// Whether what a client wants for a sandbox is allowed: by the operator's settings, and by its
// key. A refusal says by which rule.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "sandbox/launch.hpp"
#include "sandbox/spec.hpp"
#include "server/keys.hpp"
#include "server/problem.hpp"
#include "server/settings.hpp"

namespace msb::server {

// Judges `spec`, and puts the limits of the settings and the key in where it has none of its own
// (lifetime, processes, scope). Its image as the client wrote it; without memory or a disk, it has
// the default ones. Fails with kForbidden for what the settings or the key do not allow, and with
// kInvalid for what cannot be.
//
// An image of the settings matches whole references, in full and as Docker shows them, so that
// "python" is "docker.io/library/python", too; without tag and digest, it matches with all of them.
// In it, * is any text; in front of the first slash, any without a slash, so that what begins with
// the name of a registry matches images of that one alone, and what does not, none but Docker
// Hub's.
// "*" alone is everything. A tag does not count where there is a digest, which is what gets pulled.
// An alias of the image settings (oci/settings.hpp) is what it stands for, in the list and as it is
// asked for: both are read then, as they are when a sandbox starts.
Outcome<void> apply_policy(sandbox::SandboxSpec& spec, const Settings& settings, const Key& key);

// Its rule about images, for one that is only pulled.
Outcome<void> check_image(const std::string& image, const Settings& settings);

// The labels of a sandbox, as lists can be filtered by: kInvalid for those that cannot be.
Outcome<void> check_labels(const std::map<std::string, std::string>& labels);

// Volumes once they are opened, by the paths that they really have.
Outcome<void> check_volumes(const std::vector<sandbox::OpenVolume>& volumes,
                            const Settings& settings);

// Whether the key may see and use a namespace.
bool may_enter(const Key& key, const std::string& space);

}  // namespace msb::server
