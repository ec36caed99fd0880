// SPDX-License-Identifier: Apache-2.0
// Files of a sandbox. Their content streams both ways, no faster than the slower side takes it.
#include <sys/stat.h>

#include <algorithm>
#include <boost/asio/error.hpp>
#include <boost/system/system_error.hpp>
#include <charconv>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocol/files.hpp"
#include "server/client_spec.hpp"
#include "server/v1.hpp"
#include "server/v1_streams.hpp"

namespace msb::server::v1 {

namespace {

using protocol::FileEntry;
using protocol::Files;

constexpr std::size_t kHeld = std::size_t{256} << 10;  // of a file, for a slow client
constexpr std::size_t kMaxEntries = 100'000;
constexpr std::size_t kMaxNames = std::size_t{16} << 20;  // bytes of all names in one list
constexpr std::chrono::minutes kTreePatience{10};  // of which nothing is said until it is gone
constexpr std::uint32_t kNewDirectory = 0755;
constexpr std::uint32_t kNewFile = 0644;

// A file service of its own for one operation, and what is known of it. Its callbacks end with it,
// so they may have plain pointers.
template <typename T>
struct Transfer {
  AgentAnswer<T> answer;
  std::unique_ptr<Files> files;
  bool ready = false;  // for more of what is to be written

  Files::More more() {
    return [this] {
      ready = true;
      answer.changed.notify();
    };
  }
};

template <typename T>
Outcome<std::unique_ptr<Transfer<T>>> open(const Call& call) {
  const auto served = find_running_sandbox(call);
  if (!served) {
    return std::unexpected(served.error());
  }
  auto files = (*served)->guest->files();
  if (!files) {
    return std::unexpected(files.error());
  }
  auto transfer = std::make_unique<Transfer<T>>();
  transfer->files = std::move(*files);
  return transfer;
}

// Octal digits, as the schema has them.
std::uint32_t read_mode(const Json& members, std::uint32_t otherwise) {
  const std::string text = members.value("mode", "");
  std::uint32_t mode = otherwise;
  std::from_chars(text.data(), text.data() + text.size(), mode, 8);
  return mode;
}

std::uint32_t read_owner(const Json& members, const char* name) {
  return members.value(name, protocol::kSameOwner);
}

std::uint32_t flag(const Json& members, const char* name, std::uint32_t value) {
  return members.value(name, false) ? value : 0;
}

std::string_view type_word(std::uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return "file";
    case S_IFDIR:
      return "directory";
    case S_IFLNK:
      return "symlink";
    case S_IFCHR:
      return "character_device";
    case S_IFBLK:
      return "block_device";
    case S_IFIFO:
      return "fifo";
    case S_IFSOCK:
      return "socket";
    default:
      return "unknown";
  }
}

Json describe_file(const FileEntry& entry) {
  constexpr std::uint32_t kPermissions = 07777;
  constexpr std::int64_t kMillisecond = 1'000'000;  // nanoseconds
  const msb_file_entry& fields = entry.fields;
  return {
      {"name", entry.name},
      {"type", type_word(fields.mode)},
      {"size", fields.size},
      {"mode", fmt::format("{:04o}", fields.mode & kPermissions)},
      {"uid", fields.user},
      {"gid", fields.group},
      {"modified_at", format_time(std::max<std::int64_t>(fields.modified_ns / kMillisecond, 0))},
      {"target", entry.target.empty() ? Json() : Json(entry.target)}};
}

// What comes of a file, or a tree, until the client has taken it.
struct Content {
  std::deque<std::vector<std::byte>> pieces;
  std::size_t held = 0;
  bool paused = false;
};

Files::Data take_into(Content& content, Signal& changed) {
  return [&content, &changed](std::span<const std::byte> bytes) {
    content.pieces.emplace_back(bytes.begin(), bytes.end());
    content.held += bytes.size();
    content.paused = content.held >= kHeld;
    changed.notify();
    return !content.paused;
  };
}

Async<> send_pieces(Exchange& exchange, Content& content, Files& files) {
  while (!content.pieces.empty()) {
    const std::vector<std::byte> piece = std::move(content.pieces.front());
    content.pieces.pop_front();
    const std::string_view text(reinterpret_cast<const char*>(piece.data()), piece.size());
    co_await exchange.write(text);
    content.held -= piece.size();
    if (content.held < kHeld && std::exchange(content.paused, false)) {
      files.resume();
    }
  }
}

// What is wrong before there is anything of it is an answer of its own; later it breaks off, so
// that a part does not look like the whole.
Async<Outcome<HttpAnswer>> send_content(Exchange& exchange, Transfer<std::uint64_t>& transfer,
                                        Content& content, std::string_view type) {
  const std::function<bool()> has_come = [&content] { return !content.pieces.empty(); };
  if (auto come = co_await transfer.answer.wait(has_come); !come) {
    co_return std::unexpected(come.error());
  }
  if (content.pieces.empty() && !*transfer.answer.value) {
    co_return std::unexpected(problem_of(transfer.answer.value->error()));
  }
  HttpAnswer head;
  head.type = type;
  co_await exchange.begin(std::move(head));
  while (!content.pieces.empty() || !transfer.answer.value) {
    co_await send_pieces(exchange, content, *transfer.files);
    const auto come = co_await transfer.answer.wait(has_come);
    if (!come) {
      break;
    }
  }
  if (!transfer.answer.value || !*transfer.answer.value) {
    throw boost::system::system_error(asio::error::connection_aborted);
  }
  co_await exchange.end();
  co_return HttpAnswer{};
}

// Gives the request's body to a write() or an unpack(), unless that is done before, as when the
// sandbox ends.
Async<Outcome<std::uint64_t>> receive_content(Exchange& exchange,
                                              Transfer<std::uint64_t>& transfer) {
  const std::function<bool()> is_ready = [&transfer] { return transfer.ready; };
  const std::function<bool()> is_over = [&transfer] { return transfer.answer.value.has_value(); };
  while (!transfer.answer.value) {
    if (auto taken = co_await transfer.answer.wait(is_ready); !taken) {
      co_return std::unexpected(taken.error());
    }
    const auto piece = co_await read_unless(exchange, transfer.answer.changed, is_over);
    if (!piece) {
      break;
    }
    if (!*piece) {
      // Without its end, what was sent so far does not count.
      co_return std::unexpected(piece->error());
    }
    if ((*piece)->empty()) {
      transfer.files->end_data();
      break;
    }
    transfer.ready = false;
    transfer.files->send(**piece);
  }
  co_return co_await transfer.answer.take();
}

// Everything in a directory.
struct Listing {
  std::vector<FileEntry> entries;
  std::size_t names = 0;  // bytes
  bool too_long = false;

  void add(const FileEntry& entry) {
    names += entry.name.size() + entry.target.size();
    too_long = too_long || entries.size() >= kMaxEntries || names > kMaxNames;
    if (!too_long) {
      entries.push_back(entry);
    }
  }
};

Async<Outcome<HttpAnswer>> finish_empty(Transfer<void>& transfer,
                                        std::chrono::seconds patience = kAgentPatience) {
  if (auto done = co_await transfer.answer.take(Signal::Clock::now() + patience); !done) {
    co_return std::unexpected(done.error());
  }
  co_return no_content();
}

}  // namespace

Async<Outcome<HttpAnswer>> read_file(Call& call) {
  const auto transfer = open<std::uint64_t>(call);
  if (!transfer) {
    co_return std::unexpected(transfer.error());
  }
  const auto content = std::make_unique<Content>();
  (*transfer)->files->read(
      call.query.value("path", ""), call.query.value("offset", std::uint64_t{0}),
      call.query.value("length", protocol::kWholeFile),
      take_into(*content, (*transfer)->answer.changed), (*transfer)->answer.done());
  co_return co_await send_content(call.exchange, **transfer, *content, "application/octet-stream");
}

Async<Outcome<HttpAnswer>> write_file(Call& call) {
  const auto transfer = open<std::uint64_t>(call);
  if (!transfer) {
    co_return std::unexpected(transfer.error());
  }
  protocol::WriteOptions options;
  options.mode = read_mode(call.query, kNewFile);
  options.user = read_owner(call.query, "uid");
  options.group = read_owner(call.query, "gid");
  options.flags = MSB_FILE_ATOMIC | flag(call.query, "parents", MSB_FILE_PARENTS);
  (*transfer)->files->write(call.query.value("path", ""), options, (*transfer)->more(),
                            (*transfer)->answer.done());
  const auto bytes = co_await receive_content(call.exchange, **transfer);
  if (!bytes) {
    co_return std::unexpected(bytes.error());
  }
  co_return json_answer({{"bytes", *bytes}});
}

Async<Outcome<HttpAnswer>> pack_files(Call& call) {
  const auto transfer = open<std::uint64_t>(call);
  if (!transfer) {
    co_return std::unexpected(transfer.error());
  }
  const auto content = std::make_unique<Content>();
  (*transfer)->files->pack(call.query.value("path", ""),
                           take_into(*content, (*transfer)->answer.changed),
                           (*transfer)->answer.done());
  co_return co_await send_content(call.exchange, **transfer, *content, "application/x-tar");
}

Async<Outcome<HttpAnswer>> unpack_files(Call& call) {
  const auto transfer = open<std::uint64_t>(call);
  if (!transfer) {
    co_return std::unexpected(transfer.error());
  }
  protocol::UnpackOptions options;
  options.user = read_owner(call.query, "uid");
  options.group = read_owner(call.query, "gid");
  options.flags = flag(call.query, "parents", MSB_FILE_PARENTS);
  (*transfer)->files->unpack(call.query.value("path", ""), options, (*transfer)->more(),
                             (*transfer)->answer.done());
  const auto entries = co_await receive_content(call.exchange, **transfer);
  if (!entries) {
    co_return std::unexpected(entries.error());
  }
  co_return json_answer({{"entries", *entries}});
}

Async<Outcome<HttpAnswer>> list_files(Call& call) {
  const auto transfer = open<std::uint64_t>(call);
  if (!transfer) {
    co_return std::unexpected(transfer.error());
  }
  const auto listing = std::make_unique<Listing>();
  (*transfer)->files->list(
      call.query.value("path", ""),
      [all = listing.get()](const FileEntry& entry) { all->add(entry); },
      (*transfer)->answer.done());
  if (auto done = co_await (*transfer)->answer.take(); !done) {
    co_return std::unexpected(done.error());
  }
  if (listing->too_long) {
    co_return refuse(Reason::kFailed,
                     "the directory has too much in it for one list; the most are "
                     "{} entries with {} bytes of names",
                     kMaxEntries, kMaxNames);
  }
  std::ranges::sort(listing->entries, {}, &FileEntry::name);
  Json entries = Json::array();
  for (const FileEntry& entry : listing->entries) {
    entries.push_back(describe_file(entry));
  }
  co_return json_answer({{"entries", std::move(entries)}});
}

Async<Outcome<HttpAnswer>> stat_file(Call& call) {
  const auto transfer = open<FileEntry>(call);
  if (!transfer) {
    co_return std::unexpected(transfer.error());
  }
  (*transfer)->files->stat(call.query.value("path", ""), call.query.value("follow", false),
                           (*transfer)->answer.done());
  const auto entry = co_await (*transfer)->answer.take();
  if (!entry) {
    co_return std::unexpected(entry.error());
  }
  co_return json_answer(describe_file(*entry));
}

Async<Outcome<HttpAnswer>> make_directory(Call& call) {
  const auto transfer = open<void>(call);
  if (!transfer) {
    co_return std::unexpected(transfer.error());
  }
  (*transfer)->files->mkdir(call.body.value("path", ""), read_mode(call.body, kNewDirectory),
                            read_owner(call.body, "uid"), read_owner(call.body, "gid"),
                            flag(call.body, "parents", MSB_FILE_PARENTS),
                            (*transfer)->answer.done());
  co_return co_await finish_empty(**transfer);
}

Async<Outcome<HttpAnswer>> move_file(Call& call) {
  const auto transfer = open<void>(call);
  if (!transfer) {
    co_return std::unexpected(transfer.error());
  }
  const std::uint32_t flags = call.body.value("replace", false) ? 0 : MSB_FILE_EXCLUSIVE;
  (*transfer)->files->rename(call.body.value("from", ""), call.body.value("to", ""), flags,
                             (*transfer)->answer.done());
  co_return co_await finish_empty(**transfer);
}

Async<Outcome<HttpAnswer>> remove_file(Call& call) {
  const auto transfer = open<void>(call);
  if (!transfer) {
    co_return std::unexpected(transfer.error());
  }
  (*transfer)->files->remove(call.query.value("path", ""),
                             flag(call.query, "recursive", MSB_FILE_RECURSIVE),
                             (*transfer)->answer.done());
  co_return co_await finish_empty(**transfer, kTreePatience);
}

}  // namespace msb::server::v1
