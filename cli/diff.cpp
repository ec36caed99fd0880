// SPDX-License-Identifier: Apache-2.0
#include "cli/diff.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include "cli/entering.hpp"
#include "cli/installing.hpp"
#include "cli/target.hpp"
#include "cli/up.hpp"
#include "oci/printable.hpp"
#include "protocol/msb_exec.h"
#include "sandbox/file_client.hpp"
#include "sandbox/state_directory.hpp"

namespace msb::cli {

namespace {

// Of the names together: more is not for reading any more, and a guest could send it without end.
// How long a sandbox that was started to be looked at may take to end.
constexpr std::chrono::seconds kDeparture{20};
constexpr std::size_t kMaxBytes = std::size_t{512} << 20;
constexpr std::size_t kOverhead = 64;     // of each, beside its name
constexpr std::size_t kMaxShown = 16384;  // bytes of a path

struct Change {
  std::string path;
  std::uint32_t kind = 0;  // enum msb_file_change
};

std::string_view letter(std::uint32_t kind) {
  return kind == MSB_FILE_ADDED ? "A" : kind == MSB_FILE_CHANGED ? "C" : "D";
}

std::string_view word(std::uint32_t kind) {
  return kind == MSB_FILE_ADDED ? "added" : kind == MSB_FILE_CHANGED ? "changed" : "deleted";
}

Result<std::vector<Change>> read_changes(const std::string& agent_socket) {
  auto client = sandbox::FileClient::connect(agent_socket);
  if (!client) {
    return std::unexpected(client.error());
  }
  std::vector<Change> changes;
  std::size_t bytes = 0;
  auto done = client->diff([&](const protocol::FileEntry& entry) {
    bytes += entry.name.size() + kOverhead;
    changes.push_back({"/" + entry.name, entry.fields.change});
    return bytes <= kMaxBytes;
  });
  if (!done) {
    return std::unexpected(done.error());
  }
  if (bytes > kMaxBytes) {
    return fail("the sandbox names more than {} changed paths", changes.size());
  }
  std::ranges::sort(changes, {}, &Change::path);
  return changes;
}

// Of one that does not run: with what it has mounted, and nothing that others would notice.
Result<Begin> begin_to_look(const Targets& targets, const sandbox::Identity& who) {
  if (::access(sandbox::StateDirectory(who.state).disk().c_str(), F_OK) != 0) {
    return fail("'{}' has not run yet, so that nothing differs", who.name);
  }
  Result<Begin> begin_words = Begin{};
  if (who.kind == sandbox::Kind::kInstalled) {
    const auto spec = read_installed(who.state);
    begin_words = spec ? Result<Begin>(installed_begin(who, *spec)) : std::unexpected(spec.error());
  } else {
    const auto entry = targets.project()->get(who.name);
    begin_words =
        entry ? begin_of(*targets.project(), **entry, {}) : std::unexpected(entry.error());
  }
  if (begin_words) {
    begin_words->aside = true;
    begin_words->spec.ports.clear();
    begin_words->spec.scope = sandbox::Scope::kNone;
    begin_words->hosts.clear();
  }
  return begin_words;
}

}  // namespace

Result<void> print_diff(const std::string& agent_socket, Format format) {
  const auto changes = read_changes(agent_socket);
  if (!changes) {
    return std::unexpected(changes.error());
  }
  if (format == Format::kJson) {
    Json documents = Json::array();
    for (const Change& change : *changes) {
      documents.push_back({{"path", change.path}, {"change", word(change.kind)}});
    }
    return print_json(documents);
  }
  std::string lines;
  for (const Change& change : *changes) {
    lines += fmt::format("{} {}\n", letter(change.kind), oci::printable(change.path, kMaxShown));
  }
  return print(lines);
}

Result<void> diff(const DiffWords& words) {
  const auto targets = Targets::look(words.file);
  if (!targets) {
    return std::unexpected(targets.error());
  }
  const auto target = targets->find(words.name);
  if (!target) {
    return std::unexpected(target.error());
  }
  if (target->running && target->running->who.purpose != sandbox::Purpose::kLookedAt) {
    const auto foothold = step_in(*target->running);
    if (foothold) {
      return print_diff(target->running->agent_socket(), words.format);
    }
    if (foothold.error().code != ESRCH || !targets->can_start(target->who)) {
      return std::unexpected(foothold.error());
    }
  }
  // Its disk is read by nobody but its own kernel.
  auto begin_words = begin_to_look(*targets, target->who);
  auto entered = begin_words ? make_run(std::move(*begin_words))
                             : Result<Entered>(std::unexpected(begin_words.error()));
  if (!entered) {
    return std::unexpected(entered.error());
  }
  const auto printed = print_diff(entered->running.agent_socket(), words.format);
  // It ends by itself now, unless somebody else looks at it too.
  entered->foothold.reset();
  await_departure(entered->running, kDeparture);
  return printed;
}

}  // namespace msb::cli
