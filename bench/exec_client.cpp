// SPDX-License-Identifier: Apache-2.0
// The host's side of bench/exec: one measurement with the exec protocol's own client, or with a
// bare connection to bench/exec_peer.c. Each prints nanoseconds, of one command, round trip or
// call, or of the whole transfer.
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/loop.hpp"
#include "protocol/files.hpp"
#include "protocol/interpreters/client_session_host.hpp"
#include "protocol/interpreters/interpreter.hpp"
#include "protocol/opener.hpp"
#include "protocol/process.hpp"

namespace {

using namespace msb;
using namespace msb::protocol;
using Words = std::span<const std::string>;

constexpr std::size_t kPiece = std::size_t{256} << 10;  // given to a connection at once

[[noreturn]] void die(const std::string& message) {
  fmt::print(stderr, "exec_client: {}\n", message);
  std::exit(EXIT_FAILURE);
}

template <typename T>
T must(Result<T> result) {
  if (!result) {
    die(result.error().message);
  }
  return std::move(*result);
}

template <typename T>
const T& must(const Answer<T>& answer) {
  if (!answer) {
    die(answer.error().error.message);
  }
  return *answer;
}

std::uint64_t number(const std::string& word) {
  std::uint64_t value = 0;
  if (std::from_chars(word.data(), word.data() + word.size(), value).ec != std::errc()) {
    die("not a number: " + word);
  }
  return value;
}

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

void print_since(std::uint64_t start_ns, std::uint64_t count = 1) {
  fmt::print("{}\n", (now_ns() - start_ns) / count);
}

struct Client {
  std::string path;
  std::unique_ptr<Loop> loop = must(Loop::create());
  Opener opener = open_sandbox(path);

  void run() {
    if (const auto ran = loop->run(); !ran) {
      die(ran.error().message);
    }
  }
};

// --- processes ---

ProcessSpec spec_of(Words command) {
  ProcessSpec spec;
  spec.arguments.assign(command.begin(), command.end());
  spec.environment = {"PATH=/usr/bin:/bin"};
  spec.input = false;
  return spec;
}

// Runs a command to its end. Returns how many bytes it wrote.
std::uint64_t run_command(Client& client, const ProcessSpec& spec) {
  std::uint64_t bytes = 0;
  const auto process = must(
      Process::start(*client.loop, must(client.opener()), spec,
                     {.started = nullptr,
                      .attached = nullptr,
                      .output =
                          [&](msb_stream, std::span<const std::byte> piece) {
                            bytes += piece.size();
                            return true;
                          },
                      .sent = nullptr,
                      .exited =
                          [&](const Exited& exited) {
                            if (exited.fields.kind != MSB_EXIT_STATUS || exited.fields.value != 0) {
                              die("the command failed");
                            }
                            client.loop->stop();
                          },
                      .detached = nullptr,
                      .failed = [](const Failure& failure) { die(failure.error.message); }}));
  client.run();
  return bytes;
}

// COUNT COMMAND...: one after another, a connection each.
void commands(Client& client, Words words) {
  const std::uint64_t count = number(words[0]);
  const ProcessSpec spec = spec_of(words.subspan(1));
  const std::uint64_t start = now_ns();
  for (std::uint64_t i = 0; i < count; ++i) {
    run_command(client, spec);
  }
  print_since(start, count);
}

// BYTES COMMAND...: that write so much.
void output(Client& client, Words words) {
  const std::uint64_t start = now_ns();
  if (run_command(client, spec_of(words.subspan(1))) != number(words[0])) {
    die("the command wrote another number of bytes");
  }
  print_since(start);
}

// COUNT LINE COMMAND...: a program that answers each line with a line, through its pipes.
void lines(Client& client, Words words) {
  const std::uint64_t count = number(words[0]);
  const std::string line = words[1] + "\n";
  ProcessSpec spec = spec_of(words.subspan(2));
  spec.input = true;
  std::uint64_t answers = 0;
  std::uint64_t start = 0;
  std::optional<Process> process;
  const auto ask = [&] { process->send_input(std::as_bytes(std::span(line))); };
  process = must(
      Process::start(*client.loop, must(client.opener()), spec,
                     {.started = [&](const msb_started&) { ask(); },
                      .attached = nullptr,
                      .output =
                          [&](msb_stream, std::span<const std::byte> piece) {
                            if (piece.back() != std::byte{'\n'}) {
                              return true;
                            }
                            if (answers++ == 0) {
                              start = now_ns();  // the first answer waited for the program to start
                            }
                            if (answers <= count) {
                              ask();
                            } else {
                              client.loop->stop();
                            }
                            return true;
                          },
                      .sent = nullptr,
                      .exited = [](const Exited&) { die("the program ended"); },
                      .detached = nullptr,
                      .failed = [](const Failure& failure) { die(failure.error.message); }}));
  client.run();
  print_since(start, count);
}

// COUNT LANGUAGE CODE: calls in one session, each until its value and its end have come.
void calls(Client& client, Words words) {
  const std::uint64_t count = number(words[0]);
  ClientSessionHost host(*client.loop, client.opener);
  std::uint64_t done = 0;
  std::uint64_t start = 0;
  std::unique_ptr<Interpreter> session;
  std::function<void()> call = [&] {
    const auto ran = session->run(words[2], std::chrono::milliseconds(0),
                                  {.error = [](const RunError& error) { die(error.message); },
                                   .done =
                                       [&](const RunOutcome& outcome) {
                                         if (outcome.kind != RunOutcome::Kind::kDone) {
                                           die(outcome.reason);
                                         }
                                         if (done++ == 0) {
                                           start = now_ns();
                                         }
                                         if (done <= count) {
                                           call();
                                         } else {
                                           client.loop->stop();
                                         }
                                       }});
    if (!ran) {
      die(ran.error().message);
    }
  };
  session = must(Interpreter::open(host,
                                   {.language = must(language_named(words[1])),
                                    .name = "bench",
                                    .variables = {"PATH=/usr/bin:/bin"}},
                                   [&](const Result<std::string>& version) {
                                     must(version);
                                     call();
                                   }));
  client.run();
  print_since(start, count);
  session->close([&] { client.loop->stop(); });
  client.run();
  client.loop->drain();
}

// --- files ---

// PATH BYTES
void copy_in(Client& client, Words words) {
  std::uint64_t left = number(words[1]);
  const std::vector<std::byte> piece(kPiece, std::byte{0x5a});
  const std::uint64_t start = now_ns();
  Files files(*client.loop, must(client.opener()));
  const auto more = [&] {
    const auto size = std::min<std::uint64_t>(left, piece.size());
    left -= size;
    if (size > 0) {
      files.send(std::span(piece).first(size));
    } else {
      files.end_data();
    }
  };
  files.write(words[0], {}, more, [&](const Answer<std::uint64_t>& written) {
    if (must(written) != number(words[1])) {
      die("another number of bytes was written");
    }
    client.loop->stop();
  });
  client.run();
  print_since(start);
}

// PATH BYTES
void copy_out(Client& client, Words words) {
  const std::uint64_t start = now_ns();
  Files files(*client.loop, must(client.opener()));
  std::uint64_t bytes = 0;
  files.read(
      words[0], 0, kWholeFile,
      [&](std::span<const std::byte> piece) {
        bytes += piece.size();
        return true;
      },
      [&](const Answer<std::uint64_t>& read) {
        if (must(read) != bytes || bytes != number(words[1])) {
          die("another number of bytes came");
        }
        client.loop->stop();
      });
  client.run();
  print_since(start);
}

// --- bare connections ---

void write_all(const Fd& socket, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(socket.get(), bytes.data(), bytes.size());
    if (n <= 0) {
      die("the peer went away");
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

std::size_t read_some(const Fd& socket, std::span<std::byte> into) {
  const ssize_t n = ::read(socket.get(), into.data(), into.size());
  if (n <= 0) {
    die("the peer went away");
  }
  return static_cast<std::size_t>(n);
}

// By a port in the sandbox or a path on this host.
Fd connect_peer(Client& client, const std::string& place) {
  if (place.starts_with('/')) {
    Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    place.copy(address.sun_path, sizeof address.sun_path - 1);
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      die("nobody listens at " + place);
    }
    return socket;
  }
  Fd socket = must(connect_sandbox(client.path, static_cast<std::uint32_t>(number(place))));
  std::array<std::byte, 1> letter{};
  while (letter[0] != std::byte{'\n'}) {
    read_some(socket, letter);
  }
  return socket;
}

// PLACE COUNT SIZE
void round_trips(Client& client, Words words) {
  const Fd socket = connect_peer(client, words[0]);
  const std::uint64_t count = number(words[1]);
  std::array<std::byte, 1> letter{std::byte{'e'}};
  write_all(socket, letter);
  std::vector<std::byte> message(number(words[2]));
  const std::uint64_t start = now_ns();
  for (std::uint64_t i = 0; i < count; ++i) {
    write_all(socket, message);
    for (std::size_t got = 0; got < message.size();) {
      got += read_some(socket, std::span(message).subspan(got));
    }
  }
  print_since(start, count);
}

// PLACE KIND BYTES
void receive(Client& client, Words words) {
  const std::uint64_t start = now_ns();
  const Fd socket = connect_peer(client, words[0]);
  std::uint64_t left = number(words[2]);
  write_all(socket, std::as_bytes(std::span(words[1])));
  write_all(socket, std::as_bytes(std::span(&left, 1)));
  std::vector<std::byte> piece(kPiece);
  while (left > 0) {
    left -= read_some(socket, piece);
  }
  print_since(start);
}

// PLACE BYTES
void send(Client& client, Words words) {
  const std::uint64_t start = now_ns();
  const Fd socket = connect_peer(client, words[0]);
  std::uint64_t left = number(words[1]);
  const std::vector<std::byte> piece(kPiece, std::byte{0x5a});
  std::array<std::byte, 1> letter{std::byte{'d'}};
  write_all(socket, letter);
  while (left > 0) {
    const auto size = std::min<std::uint64_t>(left, piece.size());
    write_all(socket, std::span(piece).first(size));
    left -= size;
  }
  ::shutdown(socket.get(), SHUT_WR);
  read_some(socket, letter);
  print_since(start);
}

struct Measurement {
  std::string_view name;
  std::size_t words;  // at least
  void (*run)(Client&, Words);
};

constexpr std::array kMeasurements{Measurement{"commands", 2, commands},
                                   Measurement{"output", 2, output},
                                   Measurement{"lines", 3, lines},
                                   Measurement{"calls", 3, calls},
                                   Measurement{"copy-in", 2, copy_in},
                                   Measurement{"copy-out", 2, copy_out},
                                   Measurement{"round-trips", 3, round_trips},
                                   Measurement{"receive", 3, receive},
                                   Measurement{"send", 2, send}};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  for (const Measurement& measurement : kMeasurements) {
    if (words.size() >= 2 + measurement.words && words[1] == measurement.name) {
      ::signal(SIGPIPE, SIG_IGN);
      Client client{.path = words[0]};
      measurement.run(client, std::span(words).subspan(2));
      return EXIT_SUCCESS;
    }
  }
  fmt::print(stderr, "usage: exec_client SOCKET MEASUREMENT WORD...; see its source\n");
  return 2;
}
