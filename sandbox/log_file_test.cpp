// SPDX-License-Identifier: Apache-2.0
#include "sandbox/log_file.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "oci/test_support.hpp"

namespace msb::sandbox {
namespace {

namespace fs = std::filesystem;
using oci::testing::TemporaryDirectory;
using Texts = std::vector<std::string>;

std::string line(const std::string& text) {
  return fmt::format(R"({{"time_ms":1,"stream":"stdout","text":"{}\n"}})", text) + "\n";
}

void append(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::app);
  file << text;
  REQUIRE(file.flush());
}

// What a reader gives now, without the newlines.
Texts read(LogReader& reader) {
  Texts texts;
  const auto done = reader.read([&](const LogLine& one) -> Result<void> {
    texts.push_back(one.text.substr(0, one.text.find('\n')));
    return {};
  });
  REQUIRE(done);
  return texts;
}

struct Bed {
  [[nodiscard]] std::string log() const { return directory / "output.log"; }
  [[nodiscard]] std::string before() const { return directory / "output.log.1"; }
  void rotate() const { fs::rename(log(), before()); }
  TemporaryDirectory directory;
};

TEST_CASE("a line of a log is parsed, and what is none is not") {
  const auto parsed = parse_log_line(R"({"time_ms":12,"stream":"stderr","text":"a\nb"})");
  REQUIRE(parsed);
  CHECK(parsed->time_ms == 12);
  CHECK(parsed->stream == LogStream::kError);
  CHECK(parsed->text == "a\nb");
  for (const std::string bad :
       {"", "x", "[]", "1", "null", R"({"time_ms":12,"stream":"stdin","text":""})",
        R"({"time_ms":"12","stream":"stdout","text":""})", R"({"stream":"stdout","text":""})",
        R"({"time_ms":12,"stream":"stdout"})", R"({"time_ms":12,"stream":"stdout","text":1})",
        R"({"time_ms":12,"stream":"stdout","text":"")"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_log_line(bad));
  }
  CHECK_FALSE(parse_log_line(std::string(100'000, '[')));
}

TEST_CASE("both files of a log are read, the older one first, and what comes later too") {
  const Bed bed;
  append(bed.before(), line("1") + line("2"));
  append(bed.log(), line("3"));
  LogReader reader(bed.log());
  REQUIRE(reader.open().value());
  CHECK(read(reader) == Texts{"1", "2", "3"});
  CHECK(read(reader).empty());
  append(bed.log(), line("4") + line("5").substr(0, 10));
  CHECK(read(reader) == Texts{"4"});
  append(bed.log(), line("5").substr(10));
  CHECK(read(reader) == Texts{"5"});
  CHECK(reader.bad_lines() == 0);
}

TEST_CASE("a log is read piece by piece, each line once, also when it is renamed meanwhile") {
  const Bed bed;
  std::size_t count = 0;
  const auto add = [&] {
    std::string lines;
    for (std::size_t i = 0; i < 10'000; ++i) {
      lines += line(fmt::format("{}", count++));
    }
    append(bed.log(), lines);
  };
  add();
  LogReader reader(bed.log());
  REQUIRE(reader.open().value());
  std::size_t next = 0;
  const auto each = [&](const LogLine& one) -> Result<void> {
    CHECK(one.text == fmt::format("{}\n", next++));
    return {};
  };
  constexpr std::uint64_t kPiece = 100'000;
  CHECK_FALSE(reader.read_some(each, kPiece).value());
  CHECK(next > 0);
  CHECK(next < count / 2);
  add();
  bed.rotate();
  add();
  std::size_t pieces = 0;
  while (!reader.read_some(each, kPiece).value()) {
    ++pieces;
  }
  CHECK(pieces > 2);
  CHECK(next == count);
  CHECK(reader.bad_lines() == 0);
}

TEST_CASE("a log that is renamed and begun anew is read on") {
  const Bed bed;
  append(bed.log(), line("1"));
  LogReader reader(bed.log());
  REQUIRE(reader.open().value());
  CHECK(read(reader) == Texts{"1"});
  append(bed.log(), line("2"));
  bed.rotate();
  CHECK(read(reader) == Texts{"2"});
  append(bed.log(), line("3"));
  CHECK(read(reader) == Texts{"3"});
  // Twice, between two looks.
  append(bed.log(), line("4"));
  bed.rotate();
  append(bed.log(), line("5"));
  bed.rotate();
  append(bed.log(), line("6"));
  CHECK(read(reader) == Texts{"4", "5", "6"});
}

TEST_CASE("only the last lines are read when only those are asked for") {
  const Bed bed;
  append(bed.before(), line("1") + line("2") + line("3"));
  append(bed.log(), line("4") + line("5"));
  const auto last = [&](std::uint64_t lines) {
    LogReader reader(bed.log());
    REQUIRE(reader.open(lines).value());
    return read(reader);
  };
  CHECK(last(0).empty());
  CHECK(last(1) == Texts{"5"});
  CHECK(last(2) == Texts{"4", "5"});
  CHECK(last(3) == Texts{"3", "4", "5"});
  CHECK(last(5) == Texts{"1", "2", "3", "4", "5"});
  CHECK(last(1'000'000) == Texts{"1", "2", "3", "4", "5"});
  for (int i = 6; i < 5000; ++i) {
    append(bed.log(), line(fmt::format("{}", i)));
  }
  CHECK(last(3) == Texts{"4997", "4998", "4999"});
  CHECK(last(4997).front() == "3");
}

TEST_CASE("lines that no sandbox has written are passed over and counted") {
  const Bed bed;
  append(bed.log(), "rubbish\n" + line("1") + "\n{}\n" + std::string(LogReader::kMaxLine + 1, 'x') +
                        "\n" + line("2") + "cut off");
  LogReader reader(bed.log());
  REQUIRE(reader.open().value());
  CHECK(read(reader) == Texts{"1", "2"});
  CHECK(reader.bad_lines() == 4);
  reader.finish();
  CHECK(reader.bad_lines() == 5);
}

TEST_CASE("of a log that is too large for one the end is read") {
  const Bed bed;
  append(bed.log(), line("never"));
  REQUIRE(::truncate(bed.log().c_str(), static_cast<off_t>(1) << 40) == 0);
  append(bed.log(), "\n" + line("1"));
  LogReader reader(bed.log());
  REQUIRE(reader.open(1).value());
  CHECK(read(reader) == Texts{"1"});
}

TEST_CASE("a log that is no file is refused, and one that is not there is none") {
  const Bed bed;
  LogReader reader(bed.log());
  CHECK_FALSE(reader.open().value());
  fs::create_symlink("/etc/passwd", bed.log());
  CHECK_FALSE(LogReader(bed.log()).open());
  fs::remove(bed.log());
  REQUIRE(::mkfifo(bed.log().c_str(), 0600) == 0);
  CHECK_FALSE(LogReader(bed.log()).open());
}

}  // namespace
}  // namespace msb::sandbox
