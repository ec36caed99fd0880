// SPDX-License-Identifier: Apache-2.0
// UNPACK of streams that were made to do harm: pattern 33 of docs/hostile-input.md.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "initramfs/test_files.hpp"

using namespace msb::test;

TEST_CASE("unpack_refuses_hostile_streams_and_touches_nothing_outside") {
  // Pattern 33 of docs/hostile-input.md. Each script adds entries; the directory is DIR/in/to, the
  // canaries are DIR/canary and DIR/secret/file.
  struct Case {
    const char* name;
    const char* script;
  };
  const Case cases[] = {
      {"parent", "add('../canary')"},
      {"parent inside", "add('a/../../canary')"},
      {"parent at the end", "add('a/..', tarfile.DIRTYPE)"},
      {"absolute", "add(top + '/canary')"},
      {"pax path with a parent", "add('x', pax_headers={'path': '../canary'})"},
      {"pax path absolute", "add('x', pax_headers={'path': top + '/canary'})"},
      {"zero byte in a pax path", "add('x', pax_headers={'path': 'a\\0b'})"},
      {"through a symbolic link", "link('l', '../..'); add('l/canary')"},
      {"through an absolute link", "link('l', top); add('l/canary')"},
      {"through two links", "link('a', '.'); link('a/b', '..'); add('a/b/canary')"},
      {"through a link below",
       "add('d', tarfile.DIRTYPE); link('d/l', '../../..'); "
       "add('d/l/canary')"},
      {"through a link that stays inside", "link('l', '.'); add('l/file')"},
      {"a directory through a link", "link('l', '../../secret'); add('l/d', tarfile.DIRTYPE)"},
      {"a link through a link", "link('l', '../../secret'); link('l/x', 'y')"},
      {"a device through a link", "link('l', '../../secret'); add('l/n', tarfile.FIFOTYPE)"},
      {"a link that was there", "add('planted/canary')"},
      {"hard link out", "hard('h', '../../canary')"},
      {"hard link to an absolute name", "hard('h', top + '/canary')"},
      {"hard link through a link", "link('l', '../..'); hard('h', 'l/canary')"},
      {"hard link through a link that was there", "hard('h', 'planted/canary')"},
      {"hard link to a directory", "add('d', tarfile.DIRTYPE); hard('h', 'd')"},
      {"hard link to itself", "hard('h', 'h')"},
      {"hard link to nothing", "hard('h', 'none')"},
      {"hard link to the directory", "hard('h', '.')"},
      {"file as a directory", "add('f'); add('f/canary')"},
      {"file over a directory", "add('d', tarfile.DIRTYPE); add('d')"},
      {"file without a name", "add('.')"},
      {"empty name", "add('x', pax_headers={'path': '/'})"},
      {"owner beyond the last", "add('x', uid=2**32 - 1)"},
      {"negative owner", "add('x', pax_headers={'uid': '-5'})"},
      {"negative size", "add('x', pax_headers={'size': '-5'})"},
      {"device number out of range", "add('x', tarfile.CHRTYPE, devmajor=4096)"},
      {"unknown type", "add('x', b'V')"},
      {"sparse file", "add('x', b'S')"},
      {"sparse file of pax", "add('x', pax_headers={'GNU.sparse.major': '1'})"},
      {"name that is too long", "add('n' * 300)"},
      {"path that is too long", "add('/'.join(['n' * 200] * 100))"},
      {"pax header that is too long", "add('x', pax_headers={'comment': 'c' * 300000})"},
      {"attribute whose name is too long",
       "add('x', pax_headers={'SCHILY.xattr.user.' + 'n' * "
       "300: 'v'})"},
      {"attribute that no file can have",
       "add('x', pax_headers={'SCHILY.xattr.system.none': "
       "'v'})"},
      {"checksum", "add('x'); raw(b'garbage!' * 64)"},
      {"a block of zeros between", "raw(bytes(512)); add('x'); end = False"},
      {"cut in a header", "raw(b'x' * 100); end = False"},
      {"cut in the content", "add('x', size=1000, content=b''); end = False"},
      {"cut in a pax header",
       "add('x', pax_headers={'comment': 'c' * 100}); "
       "out.truncate(600); out.seek(600); end = False"},
      {"size beyond everything", "add('x', size=2**62, content=b'abc'); end = False"}};
  const std::string script = R"(
for i, script in enumerate(sys.argv[2:]):
    top = f"{sys.argv[1]}/{i}"
    out = io.BytesIO()
    end = True
    def raw(data): out.write(data)
    def add(name, type=tarfile.REGTYPE, size=0, content=None, pax_headers={}, **fields):
        info = tarfile.TarInfo(name)
        info.type, info.size, info.pax_headers = type, size, pax_headers
        info.uid, info.gid = os.getuid(), os.getgid()
        for field, value in fields.items(): setattr(info, field, value)
        raw(info.tobuf(tarfile.PAX_FORMAT) + (content or b''))
    def link(name, target): add(name, tarfile.SYMTYPE, linkname=target)
    def hard(name, target): add(name, tarfile.LNKTYPE, linkname=target)
    exec(script)
    open(top + ".tar", "wb").write(out.getvalue() + (bytes(1024) if end else b""))
)";
  TemporaryDirectory all;
  std::vector<std::string> arguments = {all.path()};
  for (const Case& one : cases) arguments.emplace_back(one.script);
  python(script, arguments);
  size_t number = 0;
  for (const Case& one : cases) {
    CAPTURE(std::string(one.name));
    const std::string directory = all / std::to_string(number++);
    const std::string to = directory + "/in/to";
    std::filesystem::create_directories(to);
    std::filesystem::create_directories(directory + "/secret");
    write_file(directory + "/canary", "alive", 0600);
    write_file(directory + "/secret/file", "alive", 0600);
    REQUIRE(symlink("../..", (to + "/planted").c_str()) == 0);
    const Tree secret = read_tree(directory + "/secret");
    const struct stat canary = status_of(directory + "/canary");
    FileService service;
    const Answer answer =
        service.call(request(MSB_FILE_UNPACK, {to}), read_file(directory + ".tar"));
    CHECK(answer.refused.has_value());
    CHECK_FALSE(answer.done.has_value());
    CHECK_FALSE(answer.why.empty());
    check_same(read_tree(directory + "/secret"), secret);
    const struct stat now = status_of(directory + "/canary");
    CHECK(now.st_ino == canary.st_ino);
    CHECK(now.st_nlink == 1);
    CHECK(now.st_mode == canary.st_mode);
    CHECK(now.st_ctim.tv_sec == canary.st_ctim.tv_sec);
    CHECK(now.st_ctim.tv_nsec == canary.st_ctim.tv_nsec);
    CHECK(read_file(directory + "/canary") == "alive");
    CHECK(names_in(directory) == std::vector<std::string>{"canary", "in", "secret"});
    CHECK(names_in(directory + "/in") == std::vector<std::string>{"to"});
    // The connection goes on.
    CHECK(service.call(request(MSB_FILE_STAT, {directory})).done == 0u);
  }
}

TEST_CASE("unpack_of_the_same_name_twice_never_writes_through_the_first") {
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "to");
  write_file(directory / "outside", "untouched", 0600);
  python(R"(
with tarfile.open(sys.argv[1], "w") as archive:
    def add(name, type=tarfile.REGTYPE, link="", content=b""):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = type, link, len(content)
        info.uid, info.gid = os.getuid(), os.getgid()
        archive.addfile(info, io.BytesIO(content))
    add("link", tarfile.SYMTYPE, "../outside")
    add("hard", tarfile.LNKTYPE, "link")
    add("link", content=b"new")
    add("hard", content=b"newer")
    add("link", tarfile.LNKTYPE, "link")
)",
         {directory / "a.tar"});
  FileService service;
  const Answer answer =
      service.call(request(MSB_FILE_UNPACK, {directory / "to"}), read_file(directory / "a.tar"));
  INFO(answer.why);
  CHECK(answer.done == 5u);
  CHECK(read_file(directory / "to/link") == "new");
  CHECK(read_file(directory / "to/hard") == "newer");
  CHECK(read_file(directory / "outside") == "untouched");
  CHECK(status_of(directory / "outside").st_mode == (S_IFREG | 0600u));
}

TEST_CASE("unpack_takes_any_bytes_without_harm") {
  // Every byte of a small archive changed in turn: refused or not, the service lives.
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory / "from");
  std::filesystem::create_directories(directory / "to");
  write_file(directory / "from/file", "content");
  set_time(directory / "from/file", 1, 5);
  FileService service;
  const std::string packed = pack(service, directory / "from");
  for (size_t at = 0; at < 1600; at++) {
    std::string changed = packed;
    changed[at] = static_cast<char>(changed[at] ^ 0x21);
    const Answer answer = service.call(request(MSB_FILE_UNPACK, {directory / "to"}), changed);
    CHECK((answer.done.has_value() || answer.refused.has_value()));
  }
  CHECK(names_in(directory.path()) == std::vector<std::string>{"from", "to"});
}
