// SPDX-License-Identifier: Apache-2.0
#include "sandbox/tree_source.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "oci/tar_reader.hpp"
#include "oci/test_support.hpp"
#include "sandbox/tar_writer.hpp"
#include "sandbox/tree_sink.hpp"

namespace msb::sandbox {
namespace {

namespace fs = std::filesystem;
using oci::testing::Pieces;
using oci::testing::TemporaryDirectory;
using oci::testing::write_file;

// "name" of each entry, with "-> target" behind links and "=size" behind files.
std::vector<std::string> list(oci::PieceSource& source) {
  oci::TarReader reader(source);
  std::vector<std::string> names;
  while (true) {
    const auto entry = reader.next_entry();
    REQUIRE_MESSAGE(entry.has_value(), entry.error().message);
    if (!*entry) {
      return names;
    }
    std::string name((*entry)->entry.path);
    if ((*entry)->entry.type == oci::FileType::kSymlink) {
      name += fmt::format(" -> {}", (*entry)->entry.link_target);
    } else if ((*entry)->entry.type == oci::FileType::kRegular) {
      name += fmt::format("={}", (*entry)->size);
    }
    names.push_back(name);
  }
}

std::vector<std::string> list(const std::string& path, const TreeOptions& options) {
  auto source = TreeSource::open(path, options);
  REQUIRE(source);
  return list(*source);
}

using Names = std::vector<std::string>;

TEST_CASE("a tree becomes a stream, in order and without following links") {
  const TemporaryDirectory bed;
  fs::create_directories(bed / "t/b/c");
  write_file(bed / "t/b/f", "123");
  write_file(bed / "t/a", "");
  fs::create_symlink("b", bed / "t/z");
  fs::create_symlink("/nowhere", bed / "t/b/n");
  CHECK(list(bed / "t", {.name = "new", .owners = false}) ==
        Names{"new/", "new/a=0", "new/b/", "new/b/c/", "new/b/f=3", "new/b/n -> /nowhere",
              "new/z -> b"});
  CHECK(list(bed / "t", {.name = "", .owners = false}) ==
        Names{"a=0", "b/", "b/c/", "b/f=3", "b/n -> /nowhere", "z -> b"});
  CHECK(list(bed / "t/z", {.name = "link", .owners = false}) == Names{"link -> b"});
  CHECK(list(bed / "t/b/f", {.name = "file", .owners = false}) == Names{"file=3"});
}

TEST_CASE("what was packed is unpacked as it was") {
  const TemporaryDirectory bed;
  fs::create_directories(bed / "from/d");
  std::string content(700'001, 'x');
  for (std::size_t i = 0; i < content.size(); ++i) {
    content[i] = static_cast<char>(i * 7 + i / 251);
  }
  const std::string long_name = "d/" + std::string(200, 'n');
  write_file(bed / ("from/" + long_name), content);
  fs::create_symlink(std::string(300, 't'), bed / "from/l");
  write_file(bed / "from/\xc3\xbc \xff", "odd");
  REQUIRE(::chmod((bed / "from/d").c_str(), 0550) == 0);
  const std::array<timespec, 2> times = {{{0, 0}, {-2, 250'000'000}}};
  REQUIRE(::utimensat(AT_FDCWD, (bed / ("from/" + long_name)).c_str(), times.data(), 0) == 0);

  auto source = TreeSource::open(bed / "from", {.name = "to", .owners = true});
  REQUIRE(source);
  const Fd top(::open(bed.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto done = unpack_tree(*source, top.get(), {.owners = true, .top = false});
  REQUIRE_MESSAGE(done.has_value(), done.error().message);
  struct stat status{};
  REQUIRE(::stat((bed / ("to/" + long_name)).c_str(), &status) == 0);
  CHECK(status.st_mtim.tv_sec == -2);
  CHECK(status.st_mtim.tv_nsec == 250'000'000);
  CHECK(status.st_uid == ::geteuid());
  CHECK(std::ranges::equal(list(bed / "from", {.name = "x", .owners = true}),
                           list(bed / "to", {.name = "x", .owners = true})));
  const Fd file(::open((bed / ("to/" + long_name)).c_str(), O_RDONLY | O_CLOEXEC));
  std::string back(content.size() + 1, '\0');
  CHECK(::read(file.get(), back.data(), back.size()) == static_cast<ssize_t>(content.size()));
  back.resize(content.size());
  CHECK(back == content);
  REQUIRE(::chmod((bed / "from/d").c_str(), 0750) == 0);
  REQUIRE(::chmod((bed / "to/d").c_str(), 0750) == 0);
}

TEST_CASE("sockets are left out and counted") {
  const TemporaryDirectory bed;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::ranges::copy(bed / "socket", address.sun_path);
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::mkfifo((bed / "pipe").c_str(), 0600) == 0);
  auto source = TreeSource::open(bed.path(), {.name = "", .owners = false});
  REQUIRE(source);
  CHECK(list(*source) == Names{"pipe"});
  CHECK(source->left_out() == 1);
  CHECK(source->first_left_out() == bed / "socket");
}

TEST_CASE("a file that shrinks while it is read is an error, not zeros") {
  const TemporaryDirectory bed;
  write_file(bed / "f", std::string(1 << 20, 'x'));
  auto source = TreeSource::open(bed / "f", {.name = "f", .owners = false});
  REQUIRE(source);
  REQUIRE(source->next());
  REQUIRE(::truncate((bed / "f").c_str(), 4096) == 0);
  Result<std::span<const std::byte>> piece;
  do {
    piece = source->next();
  } while (piece && !piece->empty());
  REQUIRE_FALSE(piece);
  CHECK(piece.error().message.find("became shorter") != std::string::npos);
}

TEST_CASE("what is not there is named") {
  const auto source = TreeSource::open("/nowhere/at/all", {.name = "x", .owners = false});
  REQUIRE_FALSE(source);
  CHECK(source.error().message.find("/nowhere/at/all") != std::string::npos);
}

TEST_CASE("numbers that a header has no room for are in an extended one") {
  std::vector<std::byte> stream;
  TarFile file;
  file.name = "f";
  file.type = oci::FileType::kDirectory;
  file.metadata = {.permissions = 0755,
                   .uid = 4'000'000'000,
                   .gid = 07777777,
                   .mtime_seconds = -1,
                   .mtime_nanoseconds = 500'000'000};
  append_tar_header(stream, file);
  append_tar_end(stream);
  const std::string bytes(reinterpret_cast<const char*>(stream.data()), stream.size());
  Pieces pieces(bytes, 512);
  oci::TarReader reader(pieces);
  const auto entry = reader.next_entry();
  REQUIRE(entry);
  REQUIRE(*entry);
  const oci::Metadata& metadata = (*entry)->entry.metadata;
  CHECK(metadata.uid == 4'000'000'000);
  CHECK(metadata.gid == 07777777);
  CHECK(metadata.mtime_seconds == -1);
  CHECK(metadata.mtime_nanoseconds == 500'000'000);
}

}  // namespace
}  // namespace msb::sandbox
