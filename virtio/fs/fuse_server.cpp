// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/fuse_server.hpp"

#include <linux/fuse.h>

#include <cerrno>

#include "virtio/fs/tree_server.hpp"

namespace msb::virtio {

Result<void> FuseServer::add_share(std::string_view path, Fd root, bool read_only,
                                   ShareCache cache) {
  const auto opened = open_share(std::move(root), read_only, cache);
  if (!opened) {
    return std::unexpected(opened.error());
  }
  auto shown = show_share(path, *opened);
  if (!shown) {
    close_share(*opened->share);
  }
  return shown;
}

Result<void> FuseServer::show_share(std::string_view path, const SharedFiles::Root& root) {
  auto added = tree_.add_share(path, root.node, root.directory);
  if (added) {
    shown_.emplace(root.node, root.share);
  }
  return added;
}

std::shared_ptr<Share> FuseServer::hide_share(std::string_view path) {
  const auto found = shown_.extract(tree_.remove_share(path));
  if (!found) {
    return nullptr;
  }
  found.mapped()->ended = true;
  return found.mapped();
}

FuseServer::Begun FuseServer::begin(std::span<const std::byte> request, std::size_t request_size,
                                    std::size_t reply_room) const {
  FuseArguments arguments(request);
  const auto header = arguments.take<fuse_in_header>();
  // Without one there is not even a number to answer to; and no request waits for anything but the
  // host's files, so that none can be interrupted.
  if (!header || header->opcode == FUSE_INTERRUPT) {
    return {FuseSilence{}};
  }
  if (header->len != request_size) {
    return {refuse(EINVAL)};
  }
  switch (header->opcode) {
    case FUSE_INIT:
    case FUSE_DESTROY:
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_SYNCFS:
      return {{}, Rest{}};
    default:
      break;
  }
  if (is_shared_node(header->nodeid)) {
    return {{}, Rest{}};
  }
  TreeAnswer found = serve_tree(tree_, *header, arguments, reply_room);
  if (found.share_root != 0) {
    return {{}, Rest{found.share_root}};
  }
  return {std::move(found.answer)};
}

FuseAnswer FuseServer::finish(const Rest& rest, std::span<const std::byte> request,
                              std::size_t request_size, std::size_t reply_room) {
  if (rest.share_root != 0) {
    return shares_.lookup_root(rest.share_root);
  }
  FuseArguments arguments(request);
  const auto header = arguments.take<fuse_in_header>();
  return header ? shares_.serve(*header, arguments, request_size, reply_room)
                : FuseAnswer(FuseSilence{});
}

FuseAnswer FuseServer::serve(std::span<const std::byte> request, std::size_t request_size,
                             std::size_t reply_room) {
  Begun begun = begin(request, request_size, reply_room);
  return begun.rest ? finish(*begun.rest, request, request_size, reply_room)
                    : std::move(begun.answer);
}

}  // namespace msb::virtio
