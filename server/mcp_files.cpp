// SPDX-License-Identifier: Apache-2.0
// Tools for files in sandboxes.
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <iterator>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "oci/base64.hpp"
#include "oci/printable.hpp"
#include "server/client_spec.hpp"
#include "server/mcp_content.hpp"
#include "server/mcp_tools.hpp"

namespace msb::server::tools {

namespace {

using protocol::FileEntry;
using protocol::Files;

constexpr std::uint64_t kMaxRead = std::uint64_t{4} << 20;  // bytes, as the tool's schema says
constexpr std::size_t kMaxListed = 5000;                    // names
constexpr std::chrono::seconds kPatience{120};              // for an operation to be done

// One operation of a file service of its own. `begin` calls one function of Files.
template <typename T>
Async<Outcome<T>> ask_files(std::shared_ptr<const Guest> guest,
                            std::function<void(Files&, Files::Done<T>)> begin) {
  AgentAnswer<T> answer;
  const auto files = guest->files();
  if (!files) {
    co_return std::unexpected(files.error());
  }
  begin(**files, answer.done());
  co_return co_await answer.take(Signal::Clock::now() + kPatience);
}

// The agent of a sandbox that the call looks into, whatever its key may change.
Outcome<std::shared_ptr<const Guest>> guest_to_read(const ToolCall& call) {
  const auto served = call.app.sandboxes.find_running(call.key, space_argument(call),
                                                      text_argument(call, "sandbox"));
  return served ? Outcome<std::shared_ptr<const Guest>>((*served)->guest)
                : std::unexpected(served.error());
}

Outcome<std::shared_ptr<const Guest>> guest_to_write(const ToolCall& call) {
  const auto served = find_usable_sandbox(call);
  return served ? Outcome<std::shared_ptr<const Guest>>((*served)->guest)
                : std::unexpected(served.error());
}

Outcome<std::string> bytes_to_write(const ToolCall& call) {
  const bool text = call.arguments.contains("content");
  if (text == call.arguments.contains("content_base64")) {
    return refuse(Reason::kInvalid, "\"content\" or \"content_base64\" is needed, {}",
                  text ? "and not both" : "to say what is to be in the file");
  }
  if (text) {
    return text_argument(call, "content");
  }
  std::string base64 = text_argument(call, "content_base64");
  std::erase_if(base64, [](char c) { return c == '\n' || c == '\r' || c == ' '; });
  auto bytes = oci::decode_base64(base64);
  if (!bytes) {
    return refuse(Reason::kInvalid,
                  "\"content_base64\" is no base64 with padding (RFC 4648, section 4)");
  }
  return std::move(*bytes);
}

// RFC 3986, section 2.
std::string uri_of(const ToolCall& call) {
  std::string uri =
      fmt::format("sandbox://{}/{}", space_argument(call), text_argument(call, "sandbox"));
  for (const char c : text_argument(call, "path")) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("/-._~").contains(c);
    if (plain) {
      uri.push_back(c);
    } else {
      fmt::format_to(std::back_inserter(uri), "%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return uri;
}

std::string_view type_word(std::uint32_t mode) {
  if (S_ISDIR(mode)) {
    return "directory";
  }
  return S_ISREG(mode) ? "file" : S_ISLNK(mode) ? "symlink" : "other";
}

Json describe_entry(const FileEntry& entry) {
  constexpr std::uint32_t kPermissions = 07777;
  constexpr std::int64_t kMillisecond = 1'000'000;
  Json shown = {{"name", entry.name},
                {"type", type_word(entry.fields.mode)},
                {"size", entry.fields.size},
                {"mode", fmt::format("{:o}", entry.fields.mode & kPermissions)},
                {"modified_at",
                 format_time(std::max<std::int64_t>(entry.fields.modified_ns / kMillisecond, 0))}};
  if (!entry.target.empty()) {
    shown["target"] = entry.target;
  }
  return shown;
}

std::uint64_t number_argument(const ToolCall& call, const char* name, std::uint64_t otherwise) {
  const auto found = call.arguments.find(name);
  return found == call.arguments.end() ? otherwise : found->get<std::uint64_t>();
}

}  // namespace

Async<Content> write_file(ToolCall call) {
  const auto guest = guest_to_write(call);
  if (!guest) {
    co_return std::unexpected(guest.error());
  }
  auto bytes = bytes_to_write(call);
  if (!bytes) {
    co_return std::unexpected(bytes.error());
  }
  protocol::WriteOptions options;
  options.flags = MSB_FILE_PARENTS | MSB_FILE_ATOMIC;
  if (const std::string mode = text_argument(call, "mode"); !mode.empty()) {
    constexpr int kOctal = 8;
    std::from_chars(mode.data(), mode.data() + mode.size(), options.mode, kOctal);
  }
  const std::string path = text_argument(call, "path");
  const std::function<void(Files&, Files::Done<std::uint64_t>)> begin =
      [&](Files& files, Files::Done<std::uint64_t> done) {
        const auto send = [&] {
          files.send(std::as_bytes(std::span(*bytes)));
          files.end_data();
        };
        files.write(path, options, send, std::move(done));
      };
  const auto written = co_await ask_files<std::uint64_t>(*guest, begin);
  if (!written) {
    co_return std::unexpected(written.error());
  }
  co_return Json::array({text_content(fmt::format("{} bytes were written to {}", *written, path))});
}

Async<Content> read_file(ToolCall call) {
  const auto guest = guest_to_read(call);
  if (!guest) {
    co_return std::unexpected(guest.error());
  }
  const std::string path = text_argument(call, "path");
  const std::function<void(Files&, Files::Done<FileEntry>)> look =
      [&](Files& files, Files::Done<FileEntry> done) { files.stat(path, true, std::move(done)); };
  const auto entry = co_await ask_files<FileEntry>(*guest, look);
  if (!entry) {
    co_return std::unexpected(entry.error());
  }
  if (S_ISDIR(entry->fields.mode)) {
    co_return refuse(Reason::kInvalid,
                     "'{}' is a directory: sandbox_list_files tells what is in it",
                     oci::printable(path));
  }
  FilePiece piece;
  piece.uri = uri_of(call);
  piece.offset = number_argument(call, "offset", 0);
  const std::uint64_t length = std::min(number_argument(call, "length", kMaxRead), kMaxRead);
  const auto take = [&](std::span<const std::byte> bytes) {
    piece.bytes.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return true;
  };
  const std::function<void(Files&, Files::Done<std::uint64_t>)> begin =
      [&](Files& files, Files::Done<std::uint64_t> done) {
        files.read(path, piece.offset, length, take, std::move(done));
      };
  const auto read = co_await ask_files<std::uint64_t>(*guest, begin);
  if (!read) {
    co_return std::unexpected(read.error());
  }
  piece.size = entry->fields.size;
  co_return file_content(std::move(piece));
}

Async<Content> list_files(ToolCall call) {
  const auto guest = guest_to_read(call);
  if (!guest) {
    co_return std::unexpected(guest.error());
  }
  const std::string path = text_argument(call, "path");
  std::vector<FileEntry> entries;
  const auto take = [&](const FileEntry& entry) {
    if (entries.size() < kMaxListed) {
      entries.push_back(entry);
    }
  };
  const std::function<void(Files&, Files::Done<std::uint64_t>)> begin =
      [&](Files& files, Files::Done<std::uint64_t> done) {
        files.list(path, take, std::move(done));
      };
  const auto count = co_await ask_files<std::uint64_t>(*guest, begin);
  if (!count) {
    co_return std::unexpected(count.error());
  }
  std::ranges::sort(entries, {}, &FileEntry::name);
  Json shown = Json::array();
  for (const FileEntry& entry : entries) {
    shown.push_back(describe_entry(entry));
  }
  Json document = {{"path", path}, {"entries", std::move(shown)}};
  if (*count > entries.size()) {
    document["left_out"] = *count - entries.size();
  }
  co_return Json::array({document_content(document)});
}

Async<Content> remove_file(ToolCall call) {
  const auto guest = guest_to_write(call);
  if (!guest) {
    co_return std::unexpected(guest.error());
  }
  const std::string path = text_argument(call, "path");
  const bool recursive =
      call.arguments.contains("recursive") && call.arguments["recursive"] == true;
  const std::function<void(Files&, Files::Done<void>)> begin = [&](Files& files,
                                                                   Files::Done<void> done) {
    files.remove(path, recursive ? MSB_FILE_RECURSIVE : 0, std::move(done));
  };
  const auto removed = co_await ask_files<void>(*guest, begin);
  if (!removed) {
    co_return std::unexpected(removed.error());
  }
  co_return Json::array({text_content(fmt::format("{} was removed", path))});
}

}  // namespace msb::server::tools
