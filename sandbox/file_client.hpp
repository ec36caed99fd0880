// SPDX-License-Identifier: Apache-2.0
// The file service of a sandbox that runs, for those who wait for each answer. What comes is the
// guest's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "oci/piece_source.hpp"
#include "protocol/files.hpp"

namespace msb::sandbox {

// Operations follow each other; each fails with the guest's sentence and errno, or (code ETIMEDOUT)
// when nothing moves for a minute, after which it takes a new one.
class FileClient {
 public:
  // `socket`: the sandbox's agent socket, on this host.
  static Result<FileClient> connect(const std::string& socket);
  FileClient(FileClient&&) noexcept;
  FileClient& operator=(FileClient&&) noexcept;
  ~FileClient();

  // `follow`: what a symbolic link at the end leads to.
  Result<protocol::FileEntry> stat(const std::string& path, bool follow);
  Result<void> chmod(const std::string& path, std::uint32_t mode);
  Result<void> chown(const std::string& path, std::uint32_t user, std::uint32_t group);

  // What the sandbox changed of its image: `each` gets relative paths with an msb_file_change in
  // `fields.change`, in no order that one could rely on. It returns false to break off.
  Result<void> diff(const std::function<bool(const protocol::FileEntry&)>& each);

  // A file's content, and a tar stream of what is at `path`. To be read to its end before anything
  // else is asked; not to outlive this object. One that fails at its end may have given all the
  // same, as of a tree that changed meanwhile.
  std::unique_ptr<oci::PieceSource> read(const std::string& path);
  std::unique_ptr<oci::PieceSource> pack(const std::string& path);

  // When `content` fails the connection is broken off, so that with MSB_FILE_ATOMIC the guest has
  // the old file. Gives how many bytes, or entries, there were.
  Result<std::uint64_t> write(const std::string& path, const protocol::WriteOptions& options,
                              oci::PieceSource& content);
  Result<std::uint64_t> unpack(const std::string& path, const protocol::UnpackOptions& options,
                               oci::PieceSource& tar);

 private:
  class State;
  explicit FileClient(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace msb::sandbox
