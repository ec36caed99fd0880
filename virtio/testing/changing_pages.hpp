// SPDX-License-Identifier: Apache-2.0
// Guest memory that has changed when it is read a second time, as with a guest that wins every race
// (hostile-input.md 6).
//
//   ChangingPages pages(ram, {{queue_page, 1}, {header_page, 1}});
//   pages.leave(queue.geometry());          // an index may be read as often as one likes
//   pages.watch([&] { device.on_queue(0); });
//   CHECK(pages.second_reads().empty());
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "virtio/testing/driver_queue.hpp"
#include "virtio/testing/guest_ram.hpp"
#include "virtio/testing/load_width.hpp"
#include "virtio/testing/racing_guest.hpp"
#include "virtio/testing/require.hpp"

// The program's own code, from the linker.
extern "C" const char __executable_start;  // NOLINT(bugprone-reserved-identifier)
extern "C" const char etext;

namespace msb::virtio::testing {

// ThreadSanitizer puts functions of its own in place of atomic loads, and these read twice. What a
// device does cannot be told from that: such a test is skipped.
inline constexpr bool kAtomicLoadsReadTwice = kRacingGuestsAreReported;

// While it watches, the pages cannot be accessed. What faults there gets through for one
// instruction, behind which the processor traps; the bytes that it read have their complement from
// then on. libc's memcpy() may read a byte twice, for its loads overlap: what it read changes when
// it returns. Writes are left alone.
//
// Only one exists at a time. The kernel reads nothing of the pages: system calls give EFAULT.
class ChangingPages {
 public:
  struct Pages {
    GuestAddress start;  // of a page
    std::uint64_t count;
  };

  ChangingPages(const GuestRam& ram, std::initializer_list<Pages> pages) {
    require(current_ == nullptr, "one set of pages changes at a time");
    current_ = this;
    for (const Pages& part : pages) {
      const auto slice = ram.memory().slice(part.start, part.count * kPage);
      require(slice.has_value(), "pages that change are guest memory");
      parts_.push_back({part.start, static_cast<std::byte*>(slice->as_iovec().iov_base),
                        std::vector<State>(slice->size())});
    }
  }
  ~ChangingPages() { current_ = nullptr; }
  ChangingPages(const ChangingPages&) = delete;
  ChangingPages& operator=(const ChangingPages&) = delete;

  // These bytes stay as they are, however often they are read.
  void leave(GuestAddress address, std::uint64_t size) {
    for (std::uint64_t i = 0; i < size; ++i) {
      *state(address + i) = State::kLeft;
    }
  }
  // What a device looks at again and again of a queue: flags and index of the available ring, and
  // used_event behind its entries (2.7.6).
  void leave(const QueueGeometry& queue) {
    leave(queue.available, kAvailableEntries);
    leave(queue.available + kAvailableEntries + std::uint64_t{2} * queue.size, 2);
  }

  // Calls `act`. Afterwards what was read is as it was before.
  template <typename Act>
  void watch(Act act) {
    struct Watch {
      ChangingPages& pages;
      explicit Watch(ChangingPages& all) : pages(all) { pages.start(); }
      ~Watch() { pages.stop(); }
      Watch(const Watch&) = delete;
      Watch& operator=(const Watch&) = delete;
    };
    const Watch watching(*this);
    act();
  }

  // Of the latest watch(): bytes that were read, and the addresses of those that were again, up to
  // 64 of them.
  [[nodiscard]] std::size_t reads() const { return reads_; }
  [[nodiscard]] std::vector<GuestAddress> second_reads() const {
    return {second_reads_.begin(), second_reads_.begin() + second_reads_used_};
  }

 private:
  enum class State : std::uint8_t { kUnread, kBeingRead, kRead, kLeft };
  struct Part {
    GuestAddress start;
    std::byte* host;
    std::vector<State> states;  // of each byte
  };
  static constexpr long long kTrapFlag = 0x100;  // of RFLAGS (Intel SDM 3.4.3.3)
  static constexpr long long kFaultWrite = 2;    // of a page fault's error code (4.7)

  void start() {
    reads_ = 0;
    second_reads_used_ = 0;
    struct sigaction fault{};
    fault.sa_sigaction = [](int, siginfo_t* info, void* context) {
      current_->on_fault(*info, *static_cast<ucontext_t*>(context));
    };
    fault.sa_flags = SA_SIGINFO;
    struct sigaction trap = fault;
    trap.sa_sigaction = [](int, siginfo_t*, void* context) {
      current_->on_trap(*static_cast<ucontext_t*>(context));
    };
    require(::sigaction(SIGSEGV, &fault, &old_fault_) == 0 &&
                ::sigaction(SIGTRAP, &trap, &old_trap_) == 0,
            "a signal has a handler");
    protect(PROT_NONE);
  }
  void stop() {
    protect(PROT_READ | PROT_WRITE);
    restore_handlers();
    for (Part& part : parts_) {
      change(part, State::kRead, State::kUnread);
    }
  }

  State* state(GuestAddress address) {
    for (Part& part : parts_) {
      if (address >= part.start && address - part.start < part.states.size()) {
        return &part.states[address - part.start];
      }
    }
    fail_test("the address is not on a page that changes");
  }
  Part* part_at(const void* host) {
    const auto found = std::ranges::find_if(parts_, [&](const Part& part) {
      return host >= part.host && host < part.host + part.states.size();
    });
    return found == parts_.end() ? nullptr : &*found;
  }
  // What runs from here on runs in signal handlers too: no allocation, no locks.
  void protect(int protection) const {
    for (const Part& part : parts_) {
      if (::mprotect(part.host, part.states.size(), protection) != 0) {
        fail_test("a page's protection changes");
      }
    }
  }
  void restore_handlers() const {
    ::sigaction(SIGSEGV, &old_fault_, nullptr);
    ::sigaction(SIGTRAP, &old_trap_, nullptr);
  }

  void on_fault(const siginfo_t& info, ucontext_t& context) {
    auto& registers = context.uc_mcontext.gregs;
    const auto* address = static_cast<const std::byte*>(info.si_addr);
    Part* part = part_at(address);
    if (part == nullptr) {
      restore_handlers();  // faults again, and then it is whose it was
      return;
    }
    if ((registers[REG_ERR] & kFaultWrite) == 0) {
      const auto* code = reinterpret_cast<const std::uint8_t*>(registers[REG_RIP]);
      note_read(*part, static_cast<std::size_t>(address - part->host), load_width(code));
      if (!copying_) {
        const auto* where = reinterpret_cast<const char*>(code);
        const bool ours = where >= &__executable_start && where < &etext;
        copying_ = true;
        copy_ends_above_ = ours ? 0 : registers[REG_RSP];
      }
    }
    protect(PROT_READ | PROT_WRITE);
    registers[REG_EFL] |= kTrapFlag;
  }

  // Behind the instruction that faulted, and behind each one more in a copy by libc: its stack is
  // given back when it returns.
  void on_trap(ucontext_t& context) {
    auto& registers = context.uc_mcontext.gregs;
    if (copying_ && registers[REG_RSP] > copy_ends_above_) {
      copying_ = false;
      protect(PROT_READ | PROT_WRITE);
      for (Part& part : parts_) {
        change(part, State::kBeingRead, State::kRead);
      }
    }
    if (!copying_) {
      registers[REG_EFL] &= ~kTrapFlag;
    }
    protect(PROT_NONE);
  }

  void note_read(Part& part, std::size_t offset, std::size_t width) {
    const std::size_t end = std::min(offset + width, part.states.size());
    for (std::size_t i = offset; i < end; ++i) {
      State& byte = part.states[i];
      if (byte == State::kUnread) {
        byte = State::kBeingRead;
        ++reads_;
      } else if (byte == State::kRead && second_reads_used_ < second_reads_.size()) {
        second_reads_[second_reads_used_++] = part.start + i;
      }
    }
  }
  static void change(Part& part, State from, State to) {
    for (std::size_t i = 0; i < part.states.size(); ++i) {
      if (part.states[i] == from) {
        part.host[i] = ~part.host[i];
        part.states[i] = to;
      }
    }
  }

  static inline ChangingPages* current_ = nullptr;

  std::vector<Part> parts_;
  struct sigaction old_fault_{};
  struct sigaction old_trap_{};
  bool copying_ = false;
  long long copy_ends_above_ = 0;  // the stack pointer
  std::size_t reads_ = 0;
  std::array<GuestAddress, 64> second_reads_{};
  std::size_t second_reads_used_ = 0;
};

}  // namespace msb::virtio::testing
