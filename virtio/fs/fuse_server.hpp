// SPDX-License-Identifier: Apache-2.0
// Answers FUSE requests (protocol 7, <linux/fuse.h>): about a synthetic tree, and about the shared
// host directories that hang in it. No queue is touched, so every request a guest can write is
// tested and fuzzed from bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "virtio/fs/fuse_answer.hpp"
#include "virtio/fs/share_server.hpp"
#include "virtio/fs/shared_tree.hpp"

namespace msb::virtio {

// The tree belongs to one thread, which nothing here blocks, and the shares to another, which may
// be the same.
class FuseServer {
 public:
  FuseServer(SharedTree tree, OwnerRule rule, const ShareLimits& limits)
      : tree_(std::move(tree)), shares_(rule, limits) {}

  // Adds a share at a path of the tree: all that follows. While no thread does anything else here.
  Result<void> add_share(std::string_view path, Fd root, bool read_only, ShareCache cache);

  // A share begins on the thread of the shares, as SharedFiles::add(), and is then given its place
  // on that of the tree, as SharedTree::add_share(). It ends the other way round.
  Result<SharedFiles::Root> open_share(Fd root, bool read_only, ShareCache cache) {
    return shares_.files().add(std::move(root), read_only, cache);
  }
  Result<void> show_share(std::string_view path, const SharedFiles::Root& root);
  // Nothing of it is served from now on, but for the request that the other thread is at. Null when
  // there is no share at this place.
  std::shared_ptr<Share> hide_share(std::string_view path);
  void close_share(const Share& share) { shares_.files().remove(share.root_node); }

  // What is left to do of a request: on the thread of the shares.
  struct Rest {
    std::uint64_t share_root = 0;  // the name that was looked up is that; else all is left
  };
  // Begins with a request, on the thread of the tree: the answer, or what is left to do.
  // `request`: fuse_in_header and what follows, cut at kMaxFuseRequest. `request_size`: its length
  // before the cut, which the header must agree with. `reply_room`: payload bytes that the guest
  // has room for.
  struct Begun {
    FuseAnswer answer;
    std::optional<Rest> rest = std::nullopt;  // instead of an answer
  };
  Begun begin(std::span<const std::byte> request, std::size_t request_size,
              std::size_t reply_room) const;
  // The rest, with the same request.
  FuseAnswer finish(const Rest& rest, std::span<const std::byte> request, std::size_t request_size,
                    std::size_t reply_room);

  // Both.
  FuseAnswer serve(std::span<const std::byte> request, std::size_t request_size,
                   std::size_t reply_room);

  // The guest is gone: what it had open is closed, and what it knew forgotten. On the thread of the
  // shares.
  void reset() { shares_.files().reset(); }

  [[nodiscard]] const SharedFiles& files() const { return shares_.files(); }

 private:
  SharedTree tree_;
  std::map<std::uint64_t, std::shared_ptr<Share>> shown_;  // in the tree, by their numbers
  ShareServer shares_;
};

}  // namespace msb::virtio
