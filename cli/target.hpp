// SPDX-License-Identifier: Apache-2.0
// From the NAME that a user gives to a sandbox: of the project at hand, an installed one, or one
// that runs somewhere.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "sandbox/control_client.hpp"
#include "sandbox/identity.hpp"
#include "sandbox/project.hpp"
#include "sandbox/runtime_directory.hpp"

namespace msb::cli {

struct Target {
  sandbox::Identity who;
  std::optional<sandbox::Running> running;
};

// What there is to choose from, as it was when it was looked at.
class Targets {
 public:
  // `file`: what -f said. A Sandboxfile that is broken is an error only when it was named, or
  // needed; otherwise what runs can be reached nevertheless.
  static Result<Targets> look(const std::string& file);

  // The project's sandbox of that name, else an installed one, else one that runs, by name or by
  // the first digits of its id. Fails with the nearest name when there is none, and when several
  // run.
  [[nodiscard]] Result<Target> find(const std::string& name) const;
  // The same; fails when it does not run.
  [[nodiscard]] Result<Target> find_running(const std::string& name) const;
  // The one that runs of this identity.
  [[nodiscard]] std::optional<sandbox::Running> running(const sandbox::Identity& who) const;

  // Whether it is known how to start it: an installed one, or of the project at hand.
  [[nodiscard]] bool can_start(const sandbox::Identity& who) const;

  [[nodiscard]] const std::optional<sandbox::Project>& project() const { return project_; }
  [[nodiscard]] const std::vector<sandbox::Running>& all() const { return running_; }
  [[nodiscard]] const std::string& home() const { return home_; }

 private:
  [[nodiscard]] std::vector<std::string> names() const;

  std::string home_;
  std::optional<sandbox::Project> project_;
  std::optional<Error> project_error_;
  std::vector<sandbox::Running> running_;
};

// The project that -f or the working directory says. Fails when there is none.
Result<sandbox::Project> open_project(const std::string& file);

// "web", or "web (in /home/me/shop)" where that is not the project at hand.
std::string describe(const sandbox::Identity& who, const std::optional<sandbox::Project>& at_hand);

// Its control socket; waits, not for ever, while it is not served yet. Fails with code ESRCH when
// the sandbox ended before.
Result<sandbox::ControlClient> control(const sandbox::Running& running);

}  // namespace msb::cli
