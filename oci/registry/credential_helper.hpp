// SPDX-License-Identifier: Apache-2.0
// Programs that keep credentials: docker-credential-NAME, asked with one word as argument and one
// document each on standard input and output (github.com/docker/docker-credential-helpers).
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "base/result.hpp"
#include "oci/registry/credentials.hpp"

namespace msb::oci {

// Every call runs the program once and fails when it is not found on PATH, does not end within the
// timeout (it is killed then), writes too much, or ends with a status other than 0. Its standard
// error is ours. `server` is a docker_config_key().
class CredentialHelper {
 public:
  CredentialHelper(std::string name, std::chrono::milliseconds timeout)
      : program_("docker-credential-" + std::move(name)), timeout_(timeout) {}

  // Nothing when it has none.
  [[nodiscard]] Result<std::optional<Credentials>> get(const std::string& server) const;
  [[nodiscard]] Result<void> store(const std::string& server, const Credentials& credentials) const;
  // False when it had none.
  [[nodiscard]] Result<bool> erase(const std::string& server) const;

 private:
  struct Answer {
    bool succeeded = false;
    std::string output;
  };
  [[nodiscard]] Result<Answer> run(const char* action, const std::string& input) const;

  std::string program_;
  std::chrono::milliseconds timeout_;
};

}  // namespace msb::oci
