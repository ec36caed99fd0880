// SPDX-License-Identifier: Apache-2.0
#include "virtio/fs/shared_tree.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

namespace msb::virtio {
namespace {

Fd file_of(std::size_t size) {
  Fd file(::memfd_create("shared", MFD_CLOEXEC));
  REQUIRE(file);
  REQUIRE(::ftruncate(file.get(), static_cast<off_t>(size)) == 0);
  return file;
}

TEST_CASE("a new tree has an empty root that is its own parent") {
  const SharedTree tree;
  const SharedTree::Node* root = tree.find(SharedTree::kRoot);
  REQUIRE(root != nullptr);
  CHECK(root->directory);
  CHECK(root->parent == SharedTree::kRoot);
  CHECK(root->children.empty());
}

TEST_CASE("files are found by their names, with the directories on the way") {
  SharedTree tree;
  REQUIRE(tree.add_text("config", "hello"));
  REQUIRE(tree.add_file("layers/0", file_of(12345)));
  REQUIRE(tree.add_file("layers/1", file_of(0)));
  REQUIRE(tree.add_text("a/b/c/d", ""));
  const SharedTree::Node& root = *tree.find(SharedTree::kRoot);
  CHECK(root.children.size() == 3);

  const SharedTree::Node* config = tree.find(tree.lookup(root, "config"));
  REQUIRE(config != nullptr);
  CHECK_FALSE(config->directory);
  CHECK(config->size == 5);
  CHECK_FALSE(config->file.valid());

  const std::uint64_t layers_id = tree.lookup(root, "layers");
  const SharedTree::Node* layers = tree.find(layers_id);
  REQUIRE(layers != nullptr);
  CHECK(layers->directory);
  CHECK(layers->parent == SharedTree::kRoot);
  CHECK(layers->children.size() == 2);
  const SharedTree::Node* first = tree.find(tree.lookup(*layers, "0"));
  REQUIRE(first != nullptr);
  CHECK(first->size == 12345);
  CHECK(first->file.valid());
  CHECK(first->parent == layers_id);
}

TEST_CASE("ids that are no node's have no node") {
  SharedTree tree;
  REQUIRE(tree.add_text("x", ""));
  CHECK(tree.find(0) == nullptr);
  CHECK(tree.find(2) != nullptr);
  for (const std::uint64_t id :
       {std::uint64_t{3}, std::uint64_t{4}, std::uint64_t{1} << 32, (std::uint64_t{1} << 32) + 1,
        std::uint64_t{1} << 63, std::numeric_limits<std::uint64_t>::max()}) {
    CHECK(tree.find(id) == nullptr);
  }
}

TEST_CASE("names that are not there have no id") {
  SharedTree tree;
  REQUIRE(tree.add_text("x", ""));
  const SharedTree::Node& root = *tree.find(SharedTree::kRoot);
  for (const char* name : {"", ".", "..", "X", "x/", "/x", "xx"}) {
    CHECK(tree.lookup(root, name) == 0);
  }
  CHECK(tree.lookup(*tree.find(2), "x") == 0);  // a file has no entries
}

TEST_CASE(
    "a path that is not plain is refused and leaves no node behind that can be reached by it") {
  SharedTree tree;
  for (const char* path :
       {"", "/", "/a", "a/", "a//b", ".", "..", "a/.", "a/..", "../a", "a/../b", "./a"}) {
    CAPTURE(path);
    const auto added = tree.add_text(path, "x");
    REQUIRE_FALSE(added);
    CHECK(added.error().message ==
          "shared path \"" + std::string(path) + "\" is not a plain relative path");
  }
}

TEST_CASE("a path that is taken is refused") {
  SharedTree tree;
  REQUIRE(tree.add_text("a/b", "x"));
  CHECK_FALSE(tree.add_text("a/b", "y"));
  CHECK_FALSE(tree.add_text("a", "y"));      // a directory
  CHECK_FALSE(tree.add_text("a/b/c", "y"));  // below a file
  CHECK(tree.add_text("a/c", "y"));
}

TEST_CASE("the root of a share is taken away, and nothing else") {
  SharedTree tree;
  REQUIRE(tree.add_text("a/text", "x"));
  REQUIRE(tree.add_share("a/share", 1ULL << 33, true));
  for (const char* path : {"", "a", "a/text", "a/none", "a/share/x", "b/share", "a/", "/a/share"}) {
    CAPTURE(path);
    CHECK(tree.remove_share(path) == 0);
  }
  CHECK(tree.remove_share("a/share") == 1ULL << 33);
  CHECK(tree.remove_share("a/share") == 0);
  const SharedTree::Node& folder = *tree.find(tree.lookup(*tree.find(SharedTree::kRoot), "a"));
  CHECK(folder.children.size() == 1);
  CHECK(tree.add_share("a/share", 1ULL << 34, false));
}

TEST_CASE("only regular files are shared") {
  SharedTree tree;
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  const Fd writer(ends[1]);
  CHECK_FALSE(tree.add_file("pipe", Fd(ends[0])));
  CHECK_FALSE(tree.add_file("device", Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC))));
  CHECK_FALSE(tree.add_file("directory", Fd(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC))));
  CHECK_FALSE(tree.add_file("nothing", Fd()));
  CHECK(tree.find(SharedTree::kRoot)->children.empty());
}

}  // namespace
}  // namespace msb::virtio
