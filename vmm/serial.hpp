// SPDX-License-Identifier: Apache-2.0
// A 16550A serial port for the guest's console, output only. It exists only when the user asks for
// it: every byte costs an exit.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>

#include "base/fd.hpp"

namespace msb::vmm {

// Used under the lock of the bus.
class Serial {
 public:
  static constexpr std::uint16_t kPorts = 8;

  // Bytes go to `output`, blocking; `raise_interrupt` asserts the port's interrupt line.
  Serial(Fd output, std::function<void()> raise_interrupt);

  // Accesses to register `port`, 0 to 7.
  std::uint8_t read(std::uint16_t port);
  void write(std::uint16_t port, std::uint8_t value);

 private:
  void transmit(std::uint8_t byte);
  [[nodiscard]] bool divisor_latch() const;

  Fd output_;
  std::function<void()> raise_interrupt_;
  std::uint8_t interrupt_enable_ = 0;
  std::uint8_t line_control_ = 0;
  std::uint8_t modem_control_ = 0;
  std::uint8_t scratch_ = 0;
  std::array<std::uint8_t, 2> divisor_{1, 0};
  bool transmitter_interrupt_ = false;
};

}  // namespace msb::vmm
