// SPDX-License-Identifier: Apache-2.0
// A guest's side of FUSE: requests from structures, and what is in the answers.
#pragma once

#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "virtio/fs/fuse_server.hpp"
#include "virtio/testing/require.hpp"

namespace msb::virtio::testing {

class FuseClient {
 public:
  using Bytes = std::vector<std::byte>;

  explicit FuseClient(FuseServer& server) : server_(server) {}

  // Who asks.
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t umask = 0;

  struct Reply {
    std::int32_t error = 0;  // negative
    Bytes payload;
    template <typename T>
    [[nodiscard]] T as() const {
      T value{};
      require(error == 0 && payload.size() >= sizeof value, "an answer is as long as it has to be");
      std::memcpy(&value, payload.data(), sizeof value);
      return value;
    }
    [[nodiscard]] std::string text() const {
      return {reinterpret_cast<const char*>(payload.data()), payload.size()};
    }
  };

  // A request, and what it leads to: transfers are made at once, as the device would.
  Reply ask(std::uint32_t opcode, std::uint64_t node, const Bytes& body = {},
            std::size_t room = std::size_t{1} << 20) {
    fuse_in_header header{};
    header.len = static_cast<std::uint32_t>(sizeof header + body.size());
    header.opcode = opcode;
    header.unique = ++unique_;
    header.nodeid = node;
    header.uid = uid;
    header.gid = gid;
    Bytes request;
    append(request, header);
    request.insert(request.end(), body.begin(), body.end());
    const FuseAnswer answer = server_.serve(
        std::span(request).first(std::min(request.size(), kMaxFuseRequest)), request.size(), room);
    if (const auto* reply = std::get_if<FuseReply>(&answer)) {
      return {reply->error, reply->payload};
    }
    if (const auto* read = std::get_if<FuseRead>(&answer)) {
      Bytes content(read->size);
      const ssize_t size =
          ::pread(read->file, content.data(), content.size(), static_cast<off_t>(read->offset));
      content.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
      return {size < 0 ? -errno : 0, std::move(content)};
    }
    if (const auto* write = std::get_if<FuseWrite>(&answer)) {
      const iovec data{request.data() + kFuseWriteHeader, write->size};
      const ssize_t size =
          ::pwritev2(write->file->file.get(), &data, 1, static_cast<off_t>(write->offset),
                     write->at_end ? RWF_APPEND : 0);
      fuse_write_out out{};
      out.size = static_cast<std::uint32_t>(std::max<ssize_t>(size, 0));
      Reply reply{size < 0 ? -errno : 0, {}};
      append(reply.payload, out);
      return reply;
    }
    if (const auto* sync = std::get_if<FuseSync>(&answer)) {
      return {::fsync(sync->file->file.get()) == 0 ? 0 : -errno, {}};
    }
    return {kSilence, {}};
  }
  static constexpr std::int32_t kSilence = 1;

  // Structures and texts, one behind the other.
  template <typename... Parts>
  static Bytes body(const Parts&... parts) {
    Bytes bytes;
    (add(bytes, parts), ...);
    return bytes;
  }
  template <typename... Parts>
  Reply ask_with(std::uint32_t opcode, std::uint64_t node, const Parts&... parts) {
    return ask(opcode, node, body(parts...));
  }

  fuse_init_out init() {
    fuse_init_in in{};
    in.major = FUSE_KERNEL_VERSION;
    in.minor = 41;
    in.flags = ~std::uint32_t{0};
    in.flags2 = ~std::uint32_t{0};
    return ask_with(FUSE_INIT, 0, in).as<fuse_init_out>();
  }

  Reply lookup(std::uint64_t parent, std::string_view name) {
    return ask_with(FUSE_LOOKUP, parent, name);
  }
  // The node of a path, or 0.
  std::uint64_t walk(std::uint64_t from, std::string_view path) {
    while (!path.empty()) {
      const std::string_view name = path.substr(0, path.find('/'));
      path.remove_prefix(std::min(path.size(), name.size() + 1));
      const Reply found = lookup(from, name);
      if (found.error != 0) {
        return 0;
      }
      from = found.as<fuse_entry_out>().nodeid;
    }
    return from;
  }
  Reply open(std::uint64_t node, std::uint32_t flags, std::uint32_t open_flags = 0) {
    fuse_open_in in{};
    in.flags = flags;
    in.open_flags = open_flags;
    return ask_with(FUSE_OPEN, node, in);
  }
  Reply create(std::uint64_t parent, std::string_view name, std::uint32_t mode,
               std::uint32_t flags = O_RDWR | O_CREAT) {
    fuse_create_in in{};
    in.flags = flags;
    in.mode = mode;
    in.umask = umask;
    return ask_with(FUSE_CREATE, parent, in, name);
  }
  static fuse_entry_out entry(const Reply& created) { return created.as<fuse_entry_out>(); }
  static std::uint64_t handle(const Reply& created) {
    fuse_open_out out{};
    require(created.payload.size() == sizeof(fuse_entry_out) + sizeof out, "a file was created");
    std::memcpy(&out, &created.payload[sizeof(fuse_entry_out)], sizeof out);
    return out.fh;
  }
  Reply mkdir(std::uint64_t parent, std::string_view name, std::uint32_t mode) {
    return ask_with(FUSE_MKDIR, parent, fuse_mkdir_in{mode, umask}, name);
  }
  Reply mknod(std::uint64_t parent, std::string_view name, std::uint32_t mode,
              std::uint32_t device = 0) {
    fuse_mknod_in in{};
    in.mode = mode;
    in.rdev = device;
    in.umask = umask;
    return ask_with(FUSE_MKNOD, parent, in, name);
  }
  Reply symlink(std::uint64_t parent, std::string_view name, std::string_view target) {
    return ask_with(FUSE_SYMLINK, parent, name, target);
  }
  Reply link(std::uint64_t node, std::uint64_t parent, std::string_view name) {
    return ask_with(FUSE_LINK, parent, fuse_link_in{node}, name);
  }
  Reply unlink(std::uint64_t parent, std::string_view name) {
    return ask_with(FUSE_UNLINK, parent, name);
  }
  Reply rmdir(std::uint64_t parent, std::string_view name) {
    return ask_with(FUSE_RMDIR, parent, name);
  }
  Reply rename(std::uint64_t parent, std::string_view name, std::uint64_t to,
               std::string_view new_name, std::uint32_t flags = 0) {
    return ask_with(FUSE_RENAME2, parent, fuse_rename2_in{to, flags, 0}, name, new_name);
  }
  Reply getattr(std::uint64_t node) { return ask_with(FUSE_GETATTR, node, fuse_getattr_in{}); }
  fuse_attr attr(std::uint64_t node) { return getattr(node).as<fuse_attr_out>().attr; }
  Reply chmod(std::uint64_t node, std::uint32_t mode) {
    fuse_setattr_in in{};
    in.valid = FATTR_MODE;
    in.mode = mode;
    return ask_with(FUSE_SETATTR, node, in);
  }
  Reply chown(std::uint64_t node, std::uint32_t new_uid, std::uint32_t new_gid) {
    fuse_setattr_in in{};
    in.valid = FATTR_UID | FATTR_GID;
    in.uid = new_uid;
    in.gid = new_gid;
    return ask_with(FUSE_SETATTR, node, in);
  }
  Reply truncate(std::uint64_t node, std::uint64_t size) {
    fuse_setattr_in in{};
    in.valid = FATTR_SIZE;
    in.size = size;
    return ask_with(FUSE_SETATTR, node, in);
  }
  Reply read(std::uint64_t node, std::uint64_t file, std::uint64_t offset, std::uint32_t size) {
    fuse_read_in in{};
    in.fh = file;
    in.offset = offset;
    in.size = size;
    return ask_with(FUSE_READ, node, in);
  }
  Reply write(std::uint64_t node, std::uint64_t file, std::uint64_t offset, std::string_view text,
              std::uint32_t write_flags = 0, std::uint32_t flags = 0) {
    fuse_write_in in{};
    in.fh = file;
    in.offset = offset;
    in.size = static_cast<std::uint32_t>(text.size());
    in.write_flags = write_flags;
    in.flags = flags;
    Bytes bytes = body(in);
    const auto data = std::as_bytes(std::span(text));
    bytes.insert(bytes.end(), data.begin(), data.end());
    return ask(FUSE_WRITE, node, bytes);
  }
  Reply release(std::uint64_t node, std::uint64_t file) {
    fuse_release_in in{};
    in.fh = file;
    return ask_with(FUSE_RELEASE, node, in);
  }
  void forget(std::uint64_t node, std::uint64_t count) {
    ask_with(FUSE_FORGET, node, fuse_forget_in{count});
  }
  Reply set_xattr(std::uint64_t node, std::string_view name, std::string_view value,
                  std::uint32_t flags = 0) {
    fuse_setxattr_in in{};
    in.size = static_cast<std::uint32_t>(value.size());
    in.flags = flags;
    Bytes bytes = body(in, name);
    const auto data = std::as_bytes(std::span(value));
    bytes.insert(bytes.end(), data.begin(), data.end());
    return ask(FUSE_SETXATTR, node, bytes);
  }
  Reply get_xattr(std::uint64_t node, std::string_view name, std::uint32_t size = 65536) {
    fuse_getxattr_in in{};
    in.size = size;
    return ask_with(FUSE_GETXATTR, node, in, name);
  }
  Reply list_xattrs(std::uint64_t node, std::uint32_t size = 65536) {
    fuse_getxattr_in in{};
    in.size = size;
    return ask_with(FUSE_LISTXATTR, node, in);
  }

  struct Listed {
    std::string name;
    std::uint64_t next = 0;
    std::uint32_t type = 0;
    std::uint64_t node = 0;  // of a READDIRPLUS
  };
  // All of a directory, in pieces of `size` bytes.
  std::vector<Listed> list(std::uint64_t node, bool plus = false, std::uint32_t size = 4096) {
    const auto opened = ask_with(FUSE_OPENDIR, node, fuse_open_in{}).as<fuse_open_out>();
    std::vector<Listed> entries;
    std::uint64_t offset = 0;
    while (true) {
      fuse_read_in in{};
      in.fh = opened.fh;
      in.offset = offset;
      in.size = size;
      const Reply part = ask_with(plus ? FUSE_READDIRPLUS : FUSE_READDIR, node, in);
      require(part.error == 0 && part.payload.size() <= size, "a directory is listed");
      if (part.payload.empty()) {
        break;
      }
      for (std::size_t at = 0; at < part.payload.size();) {
        Listed entry;
        if (plus) {
          fuse_entry_out out{};
          std::memcpy(&out, &part.payload[at], sizeof out);
          entry.node = out.nodeid;
          at += sizeof out;
        }
        fuse_dirent fixed{};
        std::memcpy(&fixed, &part.payload[at], FUSE_NAME_OFFSET);
        entry.name.assign(reinterpret_cast<const char*>(&part.payload[at + FUSE_NAME_OFFSET]),
                          fixed.namelen);
        entry.next = fixed.off;
        entry.type = fixed.type;
        at += FUSE_DIRENT_SIZE(&fixed);
        offset = entry.next;
        entries.push_back(std::move(entry));
      }
    }
    fuse_release_in in{};
    in.fh = opened.fh;
    require(ask_with(FUSE_RELEASEDIR, node, in).error == 0, "a directory is closed");
    return entries;
  }

 private:
  template <typename T>
  static void add(Bytes& bytes, const T& part) {
    if constexpr (std::is_convertible_v<T, std::string_view>) {
      const auto text = std::as_bytes(std::span(std::string_view(part)));
      bytes.insert(bytes.end(), text.begin(), text.end());
      bytes.push_back(std::byte{0});
    } else {
      append(bytes, part);
    }
  }

  FuseServer& server_;
  std::uint64_t unique_ = 0;
};

}  // namespace msb::virtio::testing
