// SPDX-License-Identifier: Apache-2.0
// Which sandbox: its kind, its name, and where its state is.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace msb::sandbox {

enum class Kind : std::uint8_t { kTemporary, kProject, kInstalled, kServed };

// What it was started for: what it is declared to run, or nothing but to be entered, or to be
// looked at, after which it ends by itself.
enum class Purpose : std::uint8_t { kRun, kEntered, kLookedAt };

struct Identity {
  Kind kind = Kind::kTemporary;
  std::string name;
  std::string project;  // of kProject: the directory of its Sandboxfile, resolved
  std::string state;    // its state directory; empty when it is temporary
  Purpose purpose = Purpose::kRun;
};

// "temporary", "project", "installed", "server", and back; fails for other words.
std::string_view kind_word(Kind kind);
Result<Kind> parse_kind(std::string_view word);
// "run", "entered", "looked at", and back; other words are "run".
std::string_view purpose_word(Purpose purpose);
Purpose parse_purpose(std::string_view word);

// Names are 1 to 63 of [A-Za-z0-9_-], beginning with a letter or digit, so that they serve as host
// and file names. Fails with a sentence.
Result<void> check_name(std::string_view name);

}  // namespace msb::sandbox
