// SPDX-License-Identifier: Apache-2.0
#include "oci/tar_reader.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>

#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

using testing::Tar;

struct Read {
  std::string path;
  std::string link;
  std::string content;
  std::int64_t mtime = 0;
};

// All entries of `tar`, given in pieces of `piece` bytes.
Result<std::vector<Read>> read(std::string_view tar, std::size_t piece = 4096) {
  testing::Pieces pieces(tar, piece);
  TarReader reader(pieces);
  std::vector<Read> all;
  for (;;) {
    const auto entry = reader.next_entry();
    if (!entry) {
      return std::unexpected(entry.error());
    }
    if (!*entry) {
      return all;
    }
    Read one{.path = std::string((*entry)->entry.path),
             .link = std::string((*entry)->hard_link.value_or((*entry)->entry.link_target)),
             .content = std::string((*entry)->size, '\0'),
             .mtime = (*entry)->entry.metadata.mtime_seconds};
    for (;;) {
      const auto data = reader.next_data();
      if (!data) {
        return std::unexpected(data.error());
      }
      if (!*data) {
        break;
      }
      one.content.replace((*data)->offset, (*data)->bytes.size(),
                          std::string_view(reinterpret_cast<const char*>((*data)->bytes.data()),
                                           (*data)->bytes.size()));
    }
    all.push_back(std::move(one));
  }
}

std::string error_of(const Tar& tar) {
  const auto entries = read(tar.bytes());
  REQUIRE_FALSE(entries);
  return entries.error().message;
}

bool contains(const std::string& text, std::string_view part) {
  INFO(text);
  return text.find(part) != std::string::npos;
}

// GNU's old sparse format: runs in the header, more of them in extension blocks.
std::string old_sparse(const std::vector<std::pair<unsigned, unsigned>>& runs, unsigned size,
                       const std::string& data) {
  const auto entry = [](std::pair<unsigned, unsigned> run) {
    return fmt::format("{:011o}", run.first) + std::string(1, '\0') +
           fmt::format("{:011o}", run.second) + std::string(1, '\0');
  };
  std::string block = Tar().add({.name = "sparse", .type = 'S'}, data).without_end().substr(0, 512);
  block.replace(257, 8, std::string("ustar  \0", 8));
  std::string extensions;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (i < 4) {
      block.replace(386 + i * 24, 24, entry(runs[i]));
    } else {
      if ((i - 4) % 21 == 0) {
        (i == 4 ? block[482] : extensions[extensions.size() - 512 + 504]) = 1;
        extensions += std::string(512, '\0');
      }
      extensions.replace(extensions.size() - 512 + (i - 4) % 21 * 24, 24, entry(runs[i]));
    }
  }
  block.replace(483, 12, fmt::format("{:011o}", size) + std::string(1, '\0'));
  block.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : block) {
    sum += static_cast<unsigned char>(c);
  }
  block.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  std::string padded = data;
  padded.resize((data.size() + 511) / 512 * 512);
  return block + extensions + padded;
}

TEST_CASE("entries are the same for any size of pieces") {
  const std::string tar =
      Tar()
          .file("a", std::string(511, 'a'))
          .add({.name = "short"}, std::string(1025, 'b'), {{"path", std::string(600, 'l')}})
          .symlink("s", "target")
          .bytes();
  for (const std::size_t piece : {1, 7, 511, 512, 513, 100'000}) {
    CAPTURE(piece);
    const auto entries = read(tar, piece);
    REQUIRE(entries);
    REQUIRE(entries->size() == 3);
    CHECK((*entries)[0].content == std::string(511, 'a'));
    CHECK((*entries)[1].path == std::string(600, 'l'));
    CHECK((*entries)[1].content == std::string(1025, 'b'));
    CHECK((*entries)[2].link == "target");
  }
}

TEST_CASE("content that nobody reads is skipped") {
  const std::string tar = Tar().file("a", std::string(5000, 'a')).file("b").bytes();
  testing::Pieces pieces(tar, 700);
  TarReader reader(pieces);
  REQUIRE(reader.next_entry());
  REQUIRE(reader.next_data());
  const auto second = reader.next_entry();
  REQUIRE(second);
  CHECK((*second)->entry.path == "b");
  const auto end = reader.next_entry();
  REQUIRE(end);
  CHECK_FALSE(*end);
}

TEST_CASE("pax records override the header and hold for one entry") {
  const auto entries =
      read(Tar()
               .add({.name = "short", .type = '2', .link = "short", .mtime = 5}, {},
                    {{"path", "long"}, {"linkpath", "longer"}, {"mtime", "77.5"}, {"comment", "x"}})
               .file("next")
               .bytes());
  REQUIRE(entries);
  CHECK((*entries)[0].path == "long");
  CHECK((*entries)[0].link == "longer");
  CHECK((*entries)[0].mtime == 77);
  CHECK((*entries)[1].path == "next");
  CHECK((*entries)[1].mtime == 0);
}

TEST_CASE("pax size overrides the header's") {
  // The header says 0, as it must for what does not fit into its field.
  std::string tar = Tar().add({.name = "f"}, {}, {{"size", "3"}}).without_end();
  tar += "abc" + std::string(509, '\0') + Tar().file("g").bytes();
  const auto entries = read(tar);
  REQUIRE(entries);
  CHECK((*entries)[0].content == "abc");
  CHECK((*entries)[1].path == "g");
}

TEST_CASE("link target that only the pax header has is kept") {
  const auto entries = read(Tar()
                                .add({.name = "s", .type = '2'}, {}, {{"linkpath", "\xc3\xbc"}})
                                .add({.name = "h", .type = '1'}, {}, {{"linkpath", "\xc3\xbc"}})
                                .bytes());
  REQUIRE(entries);
  CHECK((*entries)[0].link == "\xc3\xbc");
  CHECK((*entries)[1].link == "\xc3\xbc");
}

TEST_CASE("GNU long names and links replace the short ones") {
  const std::string name(300, 'n');
  const std::string link(400, 'l');
  const auto entries =
      read(Tar()
               .add({.name = "././@LongLink", .type = 'L'}, name + std::string(1, '\0'))
               .add({.name = "././@LongLink", .type = 'K'}, link + std::string(1, '\0'))
               .symlink("short", "short")
               .file("next")
               .bytes());
  REQUIRE(entries);
  CHECK((*entries)[0].path == name);
  CHECK((*entries)[0].link == link);
  CHECK((*entries)[1].path == "next");
}

TEST_CASE("global pax header changes nothing") {
  const auto entries = read(Tar()
                                .add({.name = "g", .type = 'g'},
                                     testing::pax_records({{"path", "evil"}, {"comment", "x"}}))
                                .file("f")
                                .bytes());
  REQUIRE(entries);
  REQUIRE(entries->size() == 1);
  CHECK((*entries)[0].path == "f");
}

TEST_CASE("size of what has no content is ignored") {
  for (const char type : {'1', '2', '3', '4', '5', '6'}) {
    CAPTURE(type);
    std::string header = Tar().add({.name = "x", .type = type, .link = "l"}).without_end();
    header[134] = '7';  // size 7
    header[154] = ' ';
    std::string checked = header;
    checked.replace(148, 8, "        ");
    unsigned sum = 0;
    for (const char c : checked) {
      sum += static_cast<unsigned char>(c);
    }
    header.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
    const auto entries = read(header + Tar().file("next").bytes());
    REQUIRE(entries);
    REQUIRE(entries->size() == 2);
    CHECK((*entries)[1].path == "next");
  }
}

TEST_CASE("old GNU sparse file has its runs in the header and in extension blocks") {
  std::vector<std::pair<unsigned, unsigned>> runs;
  std::string data;
  std::string whole;
  for (unsigned i = 0; i < 60; ++i) {
    runs.emplace_back(i * 1000, 100);
    data += std::string(100, static_cast<char>('A' + i % 26));
    whole.resize(std::size_t{i} * 1000);
    whole += data.substr(data.size() - 100);
  }
  whole.resize(100'000);
  const auto entries = read(old_sparse(runs, 100'000, data) + Tar().file("next", "x").bytes());
  REQUIRE_MESSAGE(entries, (entries ? "" : entries.error().message));
  CHECK((*entries)[0].content == whole);
  CHECK((*entries)[1].content == "x");
}

TEST_CASE("sparse map that lies about its data is refused") {
  CHECK_FALSE(read(old_sparse({{0, 100}}, 1000, "only this") + Tar().bytes()));
  CHECK_FALSE(read(old_sparse({{0, 100}}, 50, std::string(100, 'x')) + Tar().bytes()));
  CHECK_FALSE(read(old_sparse({{50, 100}, {0, 10}}, 1000, std::string(110, 'x')) + Tar().bytes()));
  CHECK(contains(error_of(Tar().add({.name = "f", .type = 'S'})), "not in GNU's format"));
  const auto version1 = [](const std::string& map) {
    return Tar().add(
        {.name = "f"}, map,
        {{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.realsize", "9999"}});
  };
  CHECK(contains(error_of(version1("5\n" + std::string(510, '\0'))), "number"));
  CHECK(contains(error_of(version1(std::string(511, '1') + "\n")), "number"));
  CHECK(contains(error_of(version1("1\n0\n")), "cut off"));
  CHECK(contains(error_of(version1("")), "cut off"));
}

TEST_CASE("kinds of entries that a layer cannot have are refused by name") {
  for (const char type : {'V', 'M', 'D', 'Z', '\x01'}) {
    CHECK(contains(error_of(Tar().add({.name = "odd", .type = type})), "'odd'"));
  }
}

TEST_CASE("single block of zeros between entries is refused and at the end accepted") {
  CHECK(contains(error_of(Tar().file("a").raw(std::string(512, '\0')).file("b")), "zeros"));
  CHECK(read(Tar().file("a").raw(std::string(512, '\0')).without_end())->size() == 1);
  CHECK(read(Tar().file("a").bytes() + "whatever follows")->size() == 1);
}

TEST_CASE("malformed extensions are refused") {
  CHECK(contains(error_of(Tar().add({.name = "x", .type = 'x'}, "nonsense").file("f")),
                 "extended header"));
  CHECK(contains(error_of(Tar().add({.name = "f"}, {}, {{"size", "-1"}})), "negative"));
  CHECK(contains(error_of(Tar().add({.name = "f"}, {}, {{"uid", "root"}})), "number"));
  CHECK(contains(error_of(Tar().add({.name = "f"}, {}, {{"path", std::string("a\0b", 3)}})),
                 "zero byte"));
  CHECK(contains(error_of(Tar().add({.name = "f"}, {}, {{"mtime", "yesterday"}})), "time"));
}

}  // namespace
}  // namespace msb::oci
