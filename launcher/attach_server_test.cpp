// SPDX-License-Identifier: Apache-2.0
#include "launcher/attach_server.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <list>
#include <string>
#include <string_view>
#include <utility>

#include "protocol/process.hpp"
#include "protocol/testing/wire.hpp"

namespace msb::launcher {
namespace {

using protocol::testing::bytes_of;
using protocol::testing::frame_of;
using protocol::testing::text_of;

constexpr AttachServer::Process kCommand{1, 70, false};

// A client of the product's own, and what it saw.
struct Seen {
  std::optional<msb_attached> attached;
  std::string streams[MSB_STREAMS];
  std::optional<protocol::Exited> exited;
  std::optional<protocol::Failure> failed;
  std::optional<protocol::Process> process;
};

struct AttachFixture {
  AttachFixture() { serve({}); }
  ~AttachFixture() {
    clients.clear();
    server->close();
    wire.loop->drain();
  }

  void serve(AttachServer::Limits limits) {
    server.emplace(
        *wire.loop,
        AttachServer::Command{
            .input = [this](std::span<const std::byte> bytes) { input += text_of(bytes); },
            .end_input =
                [this] {
                  ++ends;
                  server->input_ended();
                },
            .takes_input = [this] { return takes_input; }},
        limits);
  }
  // Our end of a new connection.
  Fd connect() {
    int ends_of_pair[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_of_pair) == 0);
    server->add(Fd(ends_of_pair[1]));
    return Fd(ends_of_pair[0]);
  }
  Seen& attach(std::uint64_t offset = MSB_OFFSET_END, std::uint32_t process = 0) {
    Seen& seen = clients.emplace_back();
    protocol::AttachSpec spec{.process = process};
    spec.offsets.fill(offset);
    seen.process = protocol::Process::attach(
        *wire.loop, connect(), spec,
        {.started = nullptr,
         .attached = [&seen](const msb_attached& fields) { seen.attached = fields; },
         .output =
             [&seen](msb_stream stream, std::span<const std::byte> bytes) {
               seen.streams[stream] += text_of(bytes);
               return true;
             },
         .sent = nullptr,
         .exited = [&seen](const protocol::Exited& end) { seen.exited = end; },
         .detached = nullptr,
         .failed = [&seen](const protocol::Failure& failure) { seen.failed = failure; }});
    return seen;
  }
  void write(std::string_view text, msb_stream stream = MSB_STREAM_STDOUT) {
    server->output(stream, bytes_of(text));
    written[stream] += text.size();
  }
  void exit(std::uint32_t status) {
    protocol::Exited end;
    end.fields.kind = MSB_EXIT_STATUS;
    end.fields.value = status;
    end.fields.process = kCommand.process;
    std::ranges::copy(written, std::begin(end.fields.offsets));
    server->exited(end);
  }
  [[nodiscard]] bool until(const std::function<bool()>& condition) const {
    return wire.run_until(condition);
  }

  protocol::testing::Wire wire;
  std::optional<AttachServer> server;
  std::list<Seen> clients;
  std::array<std::uint64_t, MSB_STREAMS> written{};
  std::string input;
  int ends = 0;
  bool takes_input = true;
};

TEST_CASE_FIXTURE(AttachFixture, "each client gets the output from when it came, and the end") {
  server->started(kCommand);
  write("before ");
  Seen& one = attach();
  Seen& two = attach(0, kCommand.process);
  REQUIRE(until([&] { return one.attached && two.attached; }));
  CHECK(one.attached->process == kCommand.process);
  CHECK(one.attached->pid == kCommand.pid);
  CHECK((one.attached->flags & MSB_ATTACHED_TERMINAL) == 0);
  CHECK(one.process->input_open());
  CHECK_FALSE(one.process->channel_open());
  write("after");
  write("error", MSB_STREAM_STDERR);
  exit(3);
  REQUIRE(until([&] { return one.exited && two.exited; }));
  CHECK(one.exited->fields.value == 3);
  CHECK(one.streams[0] == "after");
  CHECK(two.streams[0] == "before after");
  CHECK(two.streams[1] == "error");
  CHECK(until([&] { return !server->waiting(); }));
}

TEST_CASE_FIXTURE(AttachFixture, "the input of all goes in, until one of them ends it") {
  server->started({1, 70, true});
  Seen& one = attach();
  Seen& two = attach();
  REQUIRE(until([&] { return one.attached && two.attached; }));
  CHECK((one.attached->flags & MSB_ATTACHED_TERMINAL) != 0);
  one.process->send_input(bytes_of("one"));
  REQUIRE(until([&] { return input == "one"; }));
  two.process->send_input(bytes_of(" two"));
  REQUIRE(until([&] { return input == "one two"; }));
  Seen& three = attach();
  REQUIRE(until([&] { return three.attached.has_value(); }));
  CHECK(three.attached->input == 7);
  one.process->end_input();
  REQUIRE(until([&] { return ends == 1; }));
  two.process->send_input(bytes_of("too late"));
  two.process->end_input();
  Seen& four = attach();
  REQUIRE(until([&] { return four.attached.has_value(); }));
  CHECK_FALSE(four.process->input_open());
  CHECK(input == "one two");
  CHECK(ends == 1);
}

TEST_CASE_FIXTURE(AttachFixture, "a client that leaves ends nothing") {
  server->started(kCommand);
  Seen& one = attach();
  Seen& two = attach();
  REQUIRE(until([&] { return one.attached && two.attached; }));
  one.process->close();
  write("on");
  REQUIRE(until([&] { return two.streams[0] == "on"; }));
  CHECK(ends == 0);
  CHECK_FALSE(two.failed);
}

TEST_CASE_FIXTURE(
    AttachFixture,
    "who attaches before the command runs waits for it, and who does behind its end gets that") {
  Seen& early = attach();
  CHECK(until([&] { return early.process->unsent() == 0; }));
  server->started(kCommand);
  REQUIRE(until([&] { return early.attached.has_value(); }));
  write("all");
  exit(0);
  Seen& late = attach(0);
  REQUIRE(until([&] { return early.exited && late.exited; }));
  CHECK(early.streams[0] == "all");
  CHECK(late.streams[0] == "all");
}

TEST_CASE_FIXTURE(AttachFixture,
                  "what is not kept any more is skipped, and what is not written yet refused") {
  serve({.clients = 64, .history = 10, .waiting_bytes = 1 << 20});
  server->started(kCommand);
  write("0123456789abcdef");
  Seen& all = attach(0);
  Seen& beyond = attach(17);
  REQUIRE(until([&] { return all.streams[0] == "6789abcdef" && beyond.failed; }));
  CHECK(all.attached->offsets[0] == 6);
  CHECK(beyond.failed->stage == MSB_STAGE_REQUEST);
  exit(0);
  REQUIRE(until([&] { return all.exited.has_value(); }));
}

TEST_CASE_FIXTURE(AttachFixture,
                  "another process's id, and a sandbox without a command, are refused") {
  Seen& early = attach();
  CHECK(until([&] { return early.process->unsent() == 0; }));
  server->refuse("the sandbox has no command of its own");
  Seen& late = attach();
  REQUIRE(until([&] { return early.failed && late.failed; }));
  CHECK(early.failed->stage == MSB_STAGE_PROCESS);
  CHECK(late.failed->error.message == "the sandbox has no command of its own");
  serve({});
  server->started(kCommand);
  Seen& other = attach(MSB_OFFSET_END, 2);
  REQUIRE(until([&] { return other.failed.has_value(); }));
  CHECK(other.failed->stage == MSB_STAGE_PROCESS);
}

TEST_CASE_FIXTURE(AttachFixture, "a client that does not read is closed, and holds up nobody") {
  server->started(kCommand);
  const Fd lazy = connect();
  const std::string wanted = frame_of(MSB_ATTACH, msb_attach{0, 0, {0, 0, 0}});
  REQUIRE(::send(lazy.get(), wanted.data(), wanted.size(), 0) ==
          static_cast<ssize_t>(wanted.size()));
  Seen& reader = attach();
  REQUIRE(until([&] { return reader.attached.has_value(); }));
  const std::string piece(64 << 10, 'x');
  std::size_t total = 0;
  for (int i = 0; i < 100; ++i) {  // 6.4 MB
    write(piece);
    total += piece.size();
    REQUIRE(until([&] { return reader.streams[0].size() == total; }));
  }
  CHECK_FALSE(reader.failed);
  // What was on its way comes, and then the end.
  std::string buffer(1 << 20, '\0');
  std::size_t got = 0;
  ssize_t size = 0;
  while ((size = ::recv(lazy.get(), buffer.data(), buffer.size(), MSG_DONTWAIT)) > 0) {
    got += static_cast<std::size_t>(size);
  }
  CHECK(size == 0);
  CHECK(got < total);
}

TEST_CASE_FIXTURE(AttachFixture, "input that the command does not take waits at the client") {
  server->started(kCommand);
  Seen& one = attach();
  REQUIRE(until([&] { return one.attached.has_value(); }));
  takes_input = false;
  one.process->send_input(bytes_of("first"));
  REQUIRE(until([&] { return input == "first"; }));
  one.process->send_input(bytes_of(" second"));
  write("seen");
  REQUIRE(until([&] { return one.streams[0] == "seen"; }));
  CHECK(input == "first");
  takes_input = true;
  server->resume_input();
  REQUIRE(until([&] { return input == "first second"; }));
}

TEST_CASE_FIXTURE(AttachFixture,
                  "the end of a command that was killed is told with what it wrote") {
  server->started(kCommand);
  Seen& one = attach();
  REQUIRE(until([&] { return one.attached.has_value(); }));
  write("last words");
  server->killed(0);
  REQUIRE(until([&] { return one.exited.has_value(); }));
  CHECK(one.exited->fields.kind == MSB_EXIT_SIGNAL);
  CHECK(one.exited->fields.value == 9);
  CHECK(one.streams[0] == "last words");
}

TEST_CASE_FIXTURE(AttachFixture, "who says something else than the protocol has is closed") {
  server->started(kCommand);
  const std::string attach_frame = frame_of(MSB_ATTACH, msb_attach{0, 0, {0, 0, 0}});
  for (const std::string& said :
       {frame_of(MSB_STDIN, "early"), frame_of(MSB_PING), std::string("GET / HTTP/1.1\r\n"),
        frame_of(MSB_ATTACH, "short"), attach_frame + attach_frame,
        frame_of(MSB_ATTACH, msb_attach{0, 1, {0, 0, 0}})}) {
    const Fd socket = connect();
    REQUIRE(::send(socket.get(), said.data(), said.size(), 0) == static_cast<ssize_t>(said.size()));
    char byte = 0;
    CHECK(until([&] {
      ssize_t size = 0;
      while ((size = ::recv(socket.get(), &byte, 1, MSG_DONTWAIT)) > 0) {
      }
      return size == 0 || (size < 0 && errno == ECONNRESET);
    }));
  }
  CHECK(input.empty());
}

TEST_CASE_FIXTURE(AttachFixture, "more clients than there is room for are turned away") {
  serve({.clients = 2, .history = 10, .waiting_bytes = 1 << 20});
  server->started(kCommand);
  Seen& one = attach();
  Seen& two = attach();
  Seen& three = attach();
  REQUIRE(until([&] { return one.attached && two.attached && three.failed; }));
  one.process->close();
  // Its place is free once the server has seen that.
  bool taken = false;
  for (int attempt = 0; attempt < 100 && !taken; ++attempt) {
    Seen& next = attach();
    REQUIRE(until([&] { return next.attached || next.failed; }));
    taken = next.attached.has_value();
  }
  CHECK(taken);
}

}  // namespace
}  // namespace msb::launcher
