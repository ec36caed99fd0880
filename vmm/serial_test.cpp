// SPDX-License-Identifier: Apache-2.0
#include "vmm/serial.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <utility>

namespace msb::vmm {
namespace {

struct Port {
  Port() : Port(pipe_ends()) {}
  explicit Port(std::pair<Fd, Fd> ends)
      : output(std::move(ends.first)), serial(std::move(ends.second), [this] { ++interrupts; }) {}
  static std::pair<Fd, Fd> pipe_ends() {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    return {Fd(ends[0]), Fd(ends[1])};
  }
  std::string written() {
    char buffer[256];
    const ssize_t size = ::read(output.get(), buffer, sizeof buffer);
    return {buffer, size > 0 ? static_cast<std::size_t>(size) : 0};
  }
  Fd output;
  int interrupts = 0;
  Serial serial;
};

TEST_CASE("bytes written to the data register come out") {
  Port port;
  for (const char c : std::string_view("hi\n")) {
    port.serial.write(0, static_cast<std::uint8_t>(c));
  }
  CHECK(port.written() == "hi\n");
  CHECK(port.interrupts == 0);
  CHECK((port.serial.read(5) & 0x60) == 0x60);
}

TEST_CASE("with the divisor latch open the data register sets the divisor and sends nothing") {
  Port port;
  port.serial.write(3, 0x80);
  port.serial.write(0, 12);
  port.serial.write(1, 3);
  CHECK(port.serial.read(0) == 12);
  CHECK(port.serial.read(1) == 3);
  port.serial.write(3, 0x03);
  CHECK(port.written().empty());
  CHECK(port.serial.read(1) == 0);
}

TEST_CASE("an enabled transmitter interrupt fires per byte and is told once") {
  Port port;
  port.serial.write(1, 2);
  CHECK(port.interrupts == 1);
  CHECK((port.serial.read(2) & 0xf) == 2);
  CHECK((port.serial.read(2) & 0xf) == 1);
  port.serial.write(0, 'x');
  CHECK(port.interrupts == 2);
}

TEST_CASE("a console that takes nothing does not stop the guest") {
  Port port;
  port.output.reset();
  const auto old = ::signal(SIGPIPE, SIG_IGN);
  port.serial.write(0, 'x');
  ::signal(SIGPIPE, old);
  CHECK(port.serial.read(5) == 0x60);
}

}  // namespace
}  // namespace msb::vmm
