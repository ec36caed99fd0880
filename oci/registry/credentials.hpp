// SPDX-License-Identifier: Apache-2.0
// Credentials for registries where Docker keeps them: its config.json and the credential helpers
// that it names. No error quotes a secret.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "base/result.hpp"

namespace msb::oci {

struct Credentials {
  std::string username;
  std::string password;
  // An OAuth2 refresh token; where there is one, it is used instead of the two above.
  std::string identity_token;

  bool operator==(const Credentials&) const = default;
};

// config.json of Docker's client. Registries are named as Reference::registry does; the file's own
// names for them ("https://index.docker.io/v1/", keys with scheme and path) are seen to here. It is
// read anew by each call. Safe to use from several threads; of two processes that write at once,
// the file is whole, and what one of them wrote can be lost.
class DockerConfig {
 public:
  // `path` need not exist. A helper that takes longer than `helper_timeout` is killed.
  explicit DockerConfig(std::string path,
                        std::chrono::milliseconds helper_timeout = std::chrono::seconds(30));

  // $DOCKER_CONFIG/config.json, else ~/.docker/config.json; fails when there is no home.
  static Result<std::string> default_path();

  // The credentials for `registry`: of the helper in credHelpers, else of credsStore, else of
  // auths. Nothing where there are none. Fails when the file cannot be read or is malformed, or the
  // helper cannot be run, takes too long or fails.
  [[nodiscard]] Result<std::optional<Credentials>> find(const std::string& registry) const;

  // Keeps `credentials`, replacing others for the same registry: in the helper where one is
  // configured, else in the file, which is then replaced atomically, with mode 0600 and whatever it
  // holds beside. Gives where they are now, for a message: "the credential helper 'pass'" or the
  // path.
  Result<std::string> store(const std::string& registry, const Credentials& credentials) const;

  // Removes them, from helper and file. False when there were none.
  Result<bool> erase(const std::string& registry) const;

 private:
  std::string path_;
  std::chrono::milliseconds helper_timeout_;
};

}  // namespace msb::oci
