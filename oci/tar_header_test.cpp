// SPDX-License-Identifier: Apache-2.0
#include "oci/tar_header.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <string>

#include "oci/test_support.hpp"

namespace msb::oci {
namespace {

// A header block with `changes` at their offsets and a right checksum.
std::string block_with(const std::vector<std::pair<std::size_t, std::string>>& changes) {
  std::string block = testing::Tar().add({.name = "name"}).without_end();
  for (const auto& [offset, bytes] : changes) {
    block.replace(offset, bytes.size(), bytes);
  }
  block.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : block) {
    sum += static_cast<unsigned char>(c);
  }
  std::string digits;
  for (int i = 0; i < 6; ++i, sum /= 8) {
    digits.insert(digits.begin(), static_cast<char>('0' + sum % 8));
  }
  block.replace(148, 7, digits + std::string(1, '\0'));
  return block;
}

TarBlock as_block(const std::string& text) {
  return std::as_bytes(std::span(text)).first<kTarBlockSize>();
}

Result<std::optional<TarHeader>> parse(
    const std::vector<std::pair<std::size_t, std::string>>& changes) {
  return parse_tar_header(as_block(block_with(changes)));
}

const std::string kGnuMagic("ustar  \0", 8);

TEST_CASE("number fields are octal with blanks or zero bytes around, or base-256") {
  const auto size_of = [](const std::string& field) { return (*parse({{124, field}}))->size; };
  CHECK(size_of("00000000017 ") == 15);
  CHECK(size_of(std::string("        17 \0", 12)) == 15);
  CHECK(size_of(std::string(12, ' ')) == 0);
  CHECK(size_of(std::string(12, '\0')) == 0);
  CHECK(size_of("777777777777") == (std::int64_t{1} << 36) - 1);
  CHECK(size_of(std::string("\x80\0\0\0\0\0\0\x01\0\0\0\x05", 12)) == (std::int64_t{1} << 32) + 5);
  CHECK(size_of(std::string("\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12)) ==
        std::numeric_limits<std::int64_t>::max());
  const auto time = parse({{136, std::string(12, '\xff')}});
  CHECK((*time)->mtime == -1);
}

TEST_CASE("number fields that are no number or too large are refused") {
  for (const std::string& field :
       {std::string("00000000018\0", 12), std::string("-0000000001\0", 12),
        std::string("0x1\0", 4) + std::string(8, '\0'),
        std::string("\x80\0\0\x01", 4) + std::string(8, '\0'),
        std::string("\x80\0\0\0\x80", 5) + std::string(7, '\0'), std::string(12, '\x80')}) {
    CAPTURE(field);
    CHECK_FALSE(parse({{124, field}}));
  }
  CHECK_FALSE(parse({{124, std::string(12, '\xff')}}));  // a size of -1
  CHECK_FALSE(parse({{100, "rw-r--r--"}}));
}

TEST_CASE("checksum may be summed signed or unsigned and must be right") {
  std::string block = block_with({{0, "\xff\xff"}});
  CHECK(parse_tar_header(as_block(block)));
  int sum = 0;
  block.replace(148, 8, "        ");
  for (const char c : block) {
    sum += static_cast<signed char>(c);
  }
  block.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  CHECK(parse_tar_header(as_block(block)));
  block[0] = 'x';
  CHECK_FALSE(parse_tar_header(as_block(block)));
}

TEST_CASE("block of zeros is no header") {
  const std::string zeros(kTarBlockSize, '\0');
  const auto header = parse_tar_header(as_block(zeros));
  REQUIRE(header);
  CHECK_FALSE(*header);
}

TEST_CASE("prefix belongs to the name in the ustar formats") {
  CHECK((*parse({{345, "dir"}}))->name == "dir/name");
  CHECK((*parse({{345, "dir"}, {508, std::string("tar\0", 4)}}))->name == "dir/name");
  CHECK((*parse({{345, "dir"}, {257, std::string(8, '\0')}}))->name == "name");
  CHECK((*parse({{345, std::string(155, 'p')}, {0, std::string(100, 'n')}}))->name ==
        std::string(155, 'p') + "/" + std::string(100, 'n'));
}

TEST_CASE("prefix that old Go wrote into GNU headers is told from times") {
  CHECK((*parse({{257, kGnuMagic}, {345, "00000000001"}}))->name == "name");
  CHECK((*parse({{257, kGnuMagic}, {345, "a/long/directory"}}))->name == "a/long/directory/name");
  CHECK((*parse({{257, kGnuMagic}, {345, "not ascii \xff"}}))->name == "name");
}

TEST_CASE("old entry with a slash at its end is a directory") {
  CHECK((*parse({{156, std::string(1, '\0')}, {0, "name/"}}))->type == tar_type::kDirectory);
  CHECK((*parse({{156, std::string(1, '\0')}}))->type == tar_type::kRegular);
  CHECK((*parse({{156, "0"}, {0, "name/"}}))->type == tar_type::kRegular);
}

TEST_CASE("pax records are read by their length") {
  const std::string text =
      testing::pax_records({{"path", "a\nb=c"}, {"x", ""}, {"y", std::string(3, '\0')}});
  const auto records = parse_pax_records(text);
  REQUIRE(records);
  REQUIRE(records->size() == 3);
  CHECK((*records)[0] == std::pair<std::string_view, std::string_view>("path", "a\nb=c"));
  CHECK((*records)[1].second.empty());
  CHECK((*records)[2].second.size() == 3);
  CHECK(parse_pax_records("")->empty());
}

TEST_CASE("malformed pax records are refused") {
  for (const std::string_view text :
       {"5 a=", "6 a=b", "6 a=b\n\n", "7 a=b\n", "5 a=b\n", "x a=b\n", "6 ab\n\n", "6 =bc\n",
        "-6 a=b\n", " 6 a=b\n", "99999999999999999999999 a=b\n", "2 \n", "1\n", "0 a=b\n",
        "4 a\n"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_pax_records(text));
  }
}

TEST_CASE("pax times have fractions on either side of 1970") {
  struct Case {
    std::string_view text;
    std::int64_t seconds;
    std::uint32_t nanoseconds;
  };
  for (const Case& time :
       {Case{"0", 0, 0}, Case{"1.5", 1, 500'000'000}, Case{"1.", 1, 0}, Case{"-1", -1, 0},
        Case{"-1.25", -2, 750'000'000}, Case{"-0.5", -1, 500'000'000},
        Case{"7.1234567899", 7, 123'456'789}, Case{"7.000000001", 7, 1}}) {
    CAPTURE(time.text);
    const auto parsed = parse_pax_time(time.text);
    REQUIRE(parsed);
    CHECK(parsed->seconds == time.seconds);
    CHECK(parsed->nanoseconds == time.nanoseconds);
  }
  for (const std::string_view text :
       {"", ".", ".5", "x", "1.x", "1.-5", "1e3", "99999999999999999999", " 1"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_pax_time(text));
  }
  CHECK_FALSE(parse_pax_time("-9223372036854775808.5"));
}

TEST_CASE("sparse maps come in pairs of numbers") {
  const auto runs = parse_sparse_map("0,5,100,7");
  REQUIRE(runs);
  REQUIRE(runs->size() == 2);
  CHECK((*runs)[1].offset == 100);
  CHECK((*runs)[1].length == 7);
  CHECK(parse_sparse_map("")->empty());
  for (const std::string_view text :
       {"1", "1,2,3", "1,", ",1", "1,x", "-1,2", "1,-2", "1,,2", "1,99999999999999999999"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_sparse_map(text));
  }
}

TEST_CASE("sparse runs that overlap, go back or pass the end are refused") {
  const auto check = [](std::vector<SparseRun> runs, std::uint64_t size) {
    return check_sparse_runs(runs, size).has_value();
  };
  constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();
  CHECK(check({}, 0));
  CHECK(check({{0, 5}, {5, 5}, {10, 0}}, 10));
  CHECK_FALSE(check({{0, 6}, {5, 5}}, 10));
  CHECK_FALSE(check({{5, 1}, {0, 1}}, 10));
  CHECK_FALSE(check({{0, 11}}, 10));
  CHECK_FALSE(check({{11, 0}}, 10));
  CHECK_FALSE(check({{5, kHuge}}, 10));
  CHECK_FALSE(check({{kHuge, 5}}, 10));
}

}  // namespace
}  // namespace msb::oci
