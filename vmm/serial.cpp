// SPDX-License-Identifier: Apache-2.0
#include "vmm/serial.hpp"

#include <unistd.h>

#include <cerrno>
#include <utility>

namespace msb::vmm {

namespace {

// PC16550D data sheet, section 8 "Registers"
constexpr std::uint16_t kData = 0;  // receiver buffer, transmitter holding
constexpr std::uint16_t kInterruptEnable = 1;
constexpr std::uint16_t kInterruptIdentification = 2;  // FIFO control when written
constexpr std::uint16_t kLineControl = 3;
constexpr std::uint16_t kModemControl = 4;
constexpr std::uint16_t kLineStatus = 5;
constexpr std::uint16_t kModemStatus = 6;
constexpr std::uint16_t kScratch = 7;

constexpr std::uint8_t kEnableTransmitterEmpty = 2;
constexpr std::uint8_t kEnableAll = 15;
constexpr std::uint8_t kNoInterrupt = 1;
constexpr std::uint8_t kTransmitterEmpty = 2;
constexpr std::uint8_t kFifosEnabled = 0xc0;
constexpr std::uint8_t kDivisorLatch = 0x80;
constexpr std::uint8_t kTransmitterIdle = 0x60;  // holding and shift register empty
constexpr std::uint8_t kModemConnected = 0xb0;   // carrier, data set ready, clear to send

}  // namespace

Serial::Serial(Fd output, std::function<void()> raise_interrupt)
    : output_(std::move(output)), raise_interrupt_(std::move(raise_interrupt)) {}

bool Serial::divisor_latch() const {
  return (line_control_ & kDivisorLatch) != 0;
}

std::uint8_t Serial::read(std::uint16_t port) {
  switch (port) {
    case kData:
      return divisor_latch() ? divisor_[0] : 0;  // nothing is ever received
    case kInterruptEnable:
      return divisor_latch() ? divisor_[1] : interrupt_enable_;
    case kInterruptIdentification:
      return kFifosEnabled |
             (std::exchange(transmitter_interrupt_, false) ? kTransmitterEmpty : kNoInterrupt);
    case kLineControl:
      return line_control_;
    case kModemControl:
      return modem_control_;
    case kLineStatus:
      return kTransmitterIdle;
    case kModemStatus:
      return kModemConnected;
    case kScratch:
      return scratch_;
    default:
      return 0;
  }
}

void Serial::write(std::uint16_t port, std::uint8_t value) {
  switch (port) {
    case kData:
      divisor_latch() ? void(divisor_[0] = value) : transmit(value);
      break;
    case kInterruptEnable:
      if (divisor_latch()) {
        divisor_[1] = value;
        break;
      }
      interrupt_enable_ = value & kEnableAll;
      if ((interrupt_enable_ & kEnableTransmitterEmpty) != 0) {
        transmitter_interrupt_ = true;  // it is always empty
        raise_interrupt_();
      }
      break;
    case kLineControl:
      line_control_ = value;
      break;
    case kModemControl:
      modem_control_ = value;
      break;
    case kScratch:
      scratch_ = value;
      break;
    default:
      break;
  }
}

void Serial::transmit(std::uint8_t byte) {
  // A console that is gone loses its output, and one that takes nothing loses what a pause of the
  // machine interrupts; the guest goes on.
  [[maybe_unused]] const ssize_t written = ::write(output_.get(), &byte, 1);
  if ((interrupt_enable_ & kEnableTransmitterEmpty) != 0) {
    transmitter_interrupt_ = true;
    raise_interrupt_();
  }
}

}  // namespace msb::vmm
