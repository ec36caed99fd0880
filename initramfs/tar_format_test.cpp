// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

extern "C" {
#include "initramfs/tar_format.h"
}

#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>

namespace {

tar_text text(std::string_view bytes) {
  return {bytes.data(), bytes.size()};
}

std::string string_of(tar_text text) {
  return {text.bytes, text.length};
}

struct Parsed {
  const char* wrong = nullptr;
  tar_header header{};
  std::string name;
};

Parsed parse(const uint8_t* block) {
  Parsed parsed;
  char short_name[TAR_SHORT_NAME_MAX];
  parsed.wrong = tar_parse_header(block, short_name, &parsed.header);
  if (parsed.wrong == nullptr) parsed.name = string_of(parsed.header.name);
  return parsed;
}

void fix_checksum(uint8_t* block) {
  std::memset(block + 148, ' ', 8);
  unsigned sum = 0;
  for (unsigned i = 0; i < TAR_BLOCK_SIZE; i++) sum += block[i];
  std::snprintf(reinterpret_cast<char*>(block + 148), 8, "%06o", sum);
}

tar_header regular(std::string_view name) {
  tar_header header{};
  header.type = TAR_REGULAR;
  header.name = text(name);
  header.link = text("");
  header.mode = 0644;
  return header;
}

const char* apply(std::string_view records, tar_header* header) {
  return tar_apply_pax(text(records), header);
}

std::string normalised(std::string_view name) {
  char path[64];
  const char* wrong = tar_normalise_name(text(name), path, sizeof path);
  return wrong == nullptr ? std::string("'") + path + "'" : wrong;
}

}  // namespace

TEST_CASE("tar_header_is_read_as_it_was_written") {
  tar_header header = regular("dir/name");
  header.mode = 04755;
  header.user = 2097151;
  header.group = 7;
  header.size = 0777'7777'7777;
  header.seconds = 1'700'000'000;
  uint8_t block[TAR_BLOCK_SIZE];
  tar_write_header(block, &header);
  const Parsed parsed = parse(block);
  REQUIRE(parsed.wrong == nullptr);
  CHECK(parsed.name == "dir/name");
  CHECK(parsed.header.type == TAR_REGULAR);
  CHECK(parsed.header.mode == 04755);
  CHECK(parsed.header.user == 2097151);
  CHECK(parsed.header.group == 7);
  CHECK(parsed.header.size == 0777'7777'7777);
  CHECK(parsed.header.seconds == 1'700'000'000);
}

TEST_CASE("tar_header_with_any_bit_flipped_is_noticed") {
  tar_header header = regular("name");
  uint8_t block[TAR_BLOCK_SIZE];
  tar_write_header(block, &header);
  for (unsigned bit = 0; bit < TAR_BLOCK_SIZE * 8; bit++) {
    if (bit / 8 >= 148 && bit / 8 < 156) continue;  // the sum itself has unused bytes
    block[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    CHECK(parse(block).wrong != nullptr);
    block[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
  }
}

TEST_CASE("tar_name_has_the_ustar_prefix_in_front") {
  const std::string name(100, 'n');
  tar_header header = regular(name);
  uint8_t block[TAR_BLOCK_SIZE];
  tar_write_header(block, &header);
  std::memset(block + 345, 'p', 155);
  fix_checksum(block);
  CHECK(parse(block).name == std::string(155, 'p') + "/" + std::string(100, 'n'));
  // GNU's format has other things there.
  std::memcpy(block + 257, "ustar  \0", 8);
  fix_checksum(block);
  CHECK(parse(block).name == std::string(100, 'n'));
}

TEST_CASE("tar_numbers_are_octal_or_base_256_and_nothing_else") {
  const auto with_size = [](std::string_view field) {
    tar_header header = regular("name");
    uint8_t block[TAR_BLOCK_SIZE];
    tar_write_header(block, &header);
    std::memset(block + 124, 0, 12);
    std::memcpy(block + 124, field.data(), field.size());
    fix_checksum(block);
    const Parsed parsed = parse(block);
    return parsed.wrong == nullptr ? parsed.header.size : int64_t{-1};
  };
  using namespace std::literals;
  CHECK(with_size("") == 0);
  CHECK(with_size("           ") == 0);
  CHECK(with_size("  17 ") == 15);
  CHECK(with_size("777777777777") == 0777777777777);
  CHECK(with_size("\x80\0\0\0\0\0\0\0\0\0\1\0"sv) == 256);
  CHECK(with_size("\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"sv) ==
        std::numeric_limits<int64_t>::max());
  CHECK(with_size("\x80\0\0\0\x80\0\0\0\0\0\0\0"sv) == -1);                    // 2^63
  CHECK(with_size("\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") == -1);  // beyond
  CHECK(with_size("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") == -1);  // negative
  CHECK(with_size("8") == -1);
  CHECK(with_size("-1") == -1);
  CHECK(with_size("0x10") == -1);
  CHECK(with_size("1 2") == -1);
}

TEST_CASE("tar_old_type_is_a_directory_by_its_slash") {
  tar_header header = regular("name/");
  header.type = '\0';
  uint8_t block[TAR_BLOCK_SIZE];
  tar_write_header(block, &header);
  CHECK(parse(block).header.type == TAR_DIRECTORY);
  header.name = text("name");
  tar_write_header(block, &header);
  CHECK(parse(block).header.type == TAR_REGULAR);
}

TEST_CASE("tar_record_counts_itself") {
  // Around every length at which the number gets a digit more.
  for (size_t size = 0; size < 1100; size++) {
    char buffer[2048];
    tar_records records{buffer, 0, sizeof buffer};
    const std::string value(size, 'v');
    REQUIRE(tar_append_record(&records, text("k"), text(value)));
    tar_text rest{buffer, records.used};
    tar_record record{};
    REQUIRE(tar_next_record(&rest, &record) == nullptr);
    CHECK(rest.length == 0);
    CHECK(string_of(record.key) == "k");
    CHECK(string_of(record.value) == value);
  }
}

TEST_CASE("tar_record_that_does_not_fit_is_not_written") {
  for (size_t capacity = 0; capacity <= 12; capacity++) {
    char buffer[16];
    std::memset(buffer, '!', sizeof buffer);
    tar_records records{buffer, 0, capacity};
    CHECK(tar_append_record(&records, text("key"), text("val")) == (capacity > 11));
    for (size_t i = capacity; i < sizeof buffer; i++) CHECK(buffer[i] == '!');
  }
}

TEST_CASE("tar_malformed_records_are_refused") {
  using namespace std::literals;
  for (const std::string_view records : {"x"sv,
                                         "5"sv,
                                         " a=b\n"sv,
                                         "6 a=b\n "sv,
                                         "7 a=b\n"sv,
                                         "5 a=b\n"sv,
                                         "6 a=bc"sv,
                                         "3 \n"sv,
                                         "4 a\n"sv,
                                         "5 =b\n"sv,
                                         "-6 a=b\n"sv,
                                         "+6 a=b\n"sv,
                                         "0x6 a=b\n"sv,
                                         "06 a=b"sv,
                                         "99999999999999999999 a=b\n"sv,
                                         "9223372036854775807 a=b\n"sv,
                                         "0 a=b\n"sv,
                                         "1 a=b\n"sv,
                                         "2 a=b\n"sv,
                                         "3 a=b\n"sv,
                                         "10 size=x1\n"sv,
                                         "10 size=-1\n"sv,
                                         "11 mtime=1x\n"sv,
                                         "12 mtime=1.x\n"sv,
                                         "11 mtime=.5\n"sv,
                                         "9 uid=1x\n"sv,
                                         "10 mtime=-\n"sv,
                                         "28 size=9223372036854775808\n"sv,
                                         "22 GNU.sparse.major=1\n"sv}) {
    CAPTURE(records);
    tar_header header = regular("name");
    CHECK(apply(records, &header) != nullptr);
  }
}

TEST_CASE("tar_records_override_the_header") {
  const std::pair<const char*, const char*> all[] = {{"path", "a/b"},
                                                     {"linkpath", "c/d"},
                                                     {"linkpath", ""},
                                                     {"uid", "4096"},
                                                     {"gid", "070"},
                                                     {"size", "99999999999"},
                                                     {"mtime", "-1.2500000019"},
                                                     {"comment", "-"},
                                                     {"SCHILY.xattr.user.x", "=\n"}};
  char buffer[512];
  tar_records records{buffer, 0, sizeof buffer};
  for (const auto& [key, value] : all) {
    REQUIRE(tar_append_record(&records, text(key), text(value)));
  }
  tar_header header = regular("name");
  header.size = 3;
  REQUIRE(tar_apply_pax({buffer, records.used}, &header) == nullptr);
  CHECK(string_of(header.name) == "a/b");
  CHECK(string_of(header.link) == "c/d");
  CHECK(header.user == 4096);
  CHECK(header.group == 70);
  CHECK(header.size == 99999999999);
  CHECK(header.seconds == -2);
  CHECK(header.nanoseconds == 749'999'999);
  CHECK(header.mode == 0644);
}

TEST_CASE("tar_xattr_is_told_from_other_records") {
  char buffer[128];
  tar_records records{buffer, 0, sizeof buffer};
  REQUIRE(tar_append_xattr(&records, "user.x", text("value")));
  REQUIRE(tar_append_record(&records, text("comment"), text("value")));
  tar_text rest{buffer, records.used};
  tar_record record{};
  REQUIRE(tar_next_record(&rest, &record) == nullptr);
  CHECK(string_of(tar_xattr_name(&record)) == "user.x");
  CHECK(string_of(record.value) == "value");
  REQUIRE(tar_next_record(&rest, &record) == nullptr);
  CHECK(tar_xattr_name(&record).length == 0);
  CHECK_FALSE(tar_append_xattr(&records, std::string(300, 'n').c_str(), text("")));
}

TEST_CASE("tar_needed_records_bring_back_what_a_block_cannot_hold") {
  const std::string long_name(101, 'n');
  const std::string long_link(3000, 'l');
  for (const auto& [seconds, nanoseconds] : {std::pair<int64_t, uint32_t>{-1, 0},
                                             {-1, 1},
                                             {-2, 750'000'000},
                                             {0, 999'999'999},
                                             {INT64_MIN, 0},
                                             {INT64_MIN, 5},
                                             {INT64_MAX, 999'999'999},
                                             {1'700'000'000, 123'456'789}}) {
    CAPTURE(seconds);
    CAPTURE(nanoseconds);
    tar_header header = regular(long_name);
    header.link = text(long_link);
    header.user = 4'000'000'000;
    header.group = 2097152;
    header.size = 8589934592;
    header.seconds = seconds;
    header.nanoseconds = nanoseconds;
    char buffer[8192];
    tar_records records{buffer, 0, sizeof buffer};
    REQUIRE(tar_append_needed(&records, &header));
    uint8_t block[TAR_BLOCK_SIZE];
    tar_write_header(block, &header);
    Parsed parsed = parse(block);
    REQUIRE(parsed.wrong == nullptr);
    REQUIRE(tar_apply_pax({buffer, records.used}, &parsed.header) == nullptr);
    CHECK(string_of(parsed.header.name) == long_name);
    CHECK(string_of(parsed.header.link) == long_link);
    CHECK(parsed.header.user == 4'000'000'000);
    CHECK(parsed.header.group == 2097152);
    CHECK(parsed.header.size == 8589934592);
    CHECK(parsed.header.seconds == seconds);
    CHECK(parsed.header.nanoseconds == nanoseconds);
  }
  tar_header plain = regular("name");
  char buffer[64];
  tar_records records{buffer, 0, sizeof buffer};
  CHECK(tar_append_needed(&records, &plain));
  CHECK(records.used == 0);
}

TEST_CASE("tar_names_are_normalised_and_never_lead_out") {
  using namespace std::literals;
  CHECK(normalised("a/b") == "'a/b'");
  CHECK(normalised("./a//b/./c/") == "'a/b/c'");
  CHECK(normalised(".") == "''");
  CHECK(normalised("./") == "''");
  CHECK(normalised("...") == "'...'");
  CHECK(normalised("..a/b..") == "'..a/b..'");
  CHECK(normalised("") == "is empty");
  CHECK(normalised("/") == "is absolute");
  CHECK(normalised("/etc") == "is absolute");
  for (const char* name : {"..", "../a", "a/..", "a/../b", "./..", "a/./../.."}) {
    CHECK(normalised(name) == "contains \"..\"");
  }
  CHECK(normalised("a\0b"sv) == "contains a zero byte");
  CHECK(normalised(std::string(62, 'a')) == "'" + std::string(62, 'a') + "'");
  CHECK(normalised(std::string(63, 'a')) == "is too long");
  CHECK(normalised(std::string(30, 'a') + "/" + std::string(33, 'a')) == "is too long");
}
