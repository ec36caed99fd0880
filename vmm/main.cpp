// SPDX-License-Identifier: Apache-2.0
// msb-machine: the only process that touches KVM. It is started by msb-vmm with two descriptors,
// the control socket and /dev/kvm, and opens no path of its own.

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "base/control.hpp"
#include "base/loop.hpp"
#include "base/machine_config.hpp"
#include "vmm/kvm.hpp"
#include "vmm/machine.hpp"
#include "vmm/probe.hpp"

namespace {

using namespace msb;

// CLOCK_MONOTONIC times of the phases of a start, for `msb-vmm run --timing`.
class Timeline {
 public:
  void mark(std::string_view name) {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    text_ += fmt::format("{} {}\n", name, now.tv_sec * 1'000'000'000LL + now.tv_nsec);
  }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Ends the process. Nobody is left to tell when the control socket is gone.
[[noreturn]] void finish(int status) {
  // Threads may be inside KVM or a device; there is nothing to save, and the kernel cleans up what
  // a process holds.
  ::_exit(status);
}

// How long a guest may take to end in order, and this host to write what it wrote, when its
// launcher is gone.
constexpr unsigned kOrphanSeconds = 30;

// Whether the guest is then given that time; on the loop's thread.
bool outlives_launcher = false;

void report(ControlKind kind, std::uint32_t value, std::string_view text,
            std::span<const int> descriptors = {}) {
  // A launcher that is gone is found by Control as well, where it matters. Descriptors are closed
  // by whoever has them, which is how the guest learns that nobody takes its connections any more.
  if (!send_control(kControlDescriptor, kind, value, text, descriptors) && !outlives_launcher) {
    finish(EXIT_FAILURE);
  }
}

// The limit holds whatever this process is busy with: SIGALRM ends it.
void end_soon(int /*signal*/) {
  ::alarm(kOrphanSeconds);
}

// From here on the launcher's death is no longer this process's own at once.
void outlive_launcher() {
  struct sigaction action{};
  action.sa_handler = end_soon;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGUSR2, &action, nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGUSR2);
  // A host that shuts down asks everybody to end; the launcher then ends the guest in order.
  ::signal(SIGTERM, SIG_IGN);
  outlives_launcher = true;
}

[[noreturn]] void finish_with(const Error& error) {
  report(ControlKind::kError, 0, error.message);
  finish(EXIT_FAILURE);
}

ControlMessage wait_for_message() {
  pollfd entry{kControlDescriptor, POLLIN, 0};
  while (true) {
    auto message = receive_control(kControlDescriptor);
    if (message) {
      return std::move(*message);
    }
    if (message.error().code != EAGAIN) {
      finish(EXIT_FAILURE);
    }
    ::poll(&entry, 1, -1);
  }
}

// The first message, with the descriptors that came ahead of it.
ControlMessage wait_for_task() {
  std::vector<Fd> descriptors;
  ControlMessage message = wait_for_message();
  for (; message.kind == ControlKind::kDescriptors; message = wait_for_message()) {
    std::ranges::move(message.descriptors, std::back_inserter(descriptors));
    if (descriptors.size() > kMaxConfigurationDescriptors) {
      finish_with({fmt::format("the launcher sent more than {} descriptors",
                               kMaxConfigurationDescriptors)});
    }
  }
  std::ranges::move(message.descriptors, std::back_inserter(descriptors));
  message.descriptors = std::move(descriptors);
  return message;
}

// The loop's end of the control socket, while the machine runs.
class Control {
 public:
  Control(Loop& loop, vmm::Machine& machine)
      : loop_(loop), machine_(machine), readable_([this](std::int32_t) { receive(); }) {}

  void watch() { loop_.poll(kControlDescriptor, POLLIN, readable_); }

 private:
  void receive() {
    while (true) {
      auto message = receive_control(kControlDescriptor);
      if (!message) {
        if (message.error().code != EAGAIN) {
          lose_launcher();
          return;
        }
        break;
      }
      handle(*message);
    }
    watch();
  }

  // Whom the guest works for is gone. Its init sees that its control connection is closed, ends
  // everything and writes it back.
  void lose_launcher() {
    if (!outlives_launcher) {
      finish(EXIT_SUCCESS);
    }
    end_soon(0);
    orphaned_ = true;
    machine_.resume();
  }

  void on_paused(std::uint32_t request) {
    report(ControlKind::kDone, request, {});
    if (orphaned_) {
      loop_.post([this] { machine_.resume(); });  // not while the devices still come to rest
    }
  }

  void handle(ControlMessage& message) {
    const std::uint32_t request = message.value;
    switch (message.kind) {
      case ControlKind::kVsockConnect:
        if (!message.descriptors.empty()) {
          machine_.connect(std::move(message.descriptors.front()), message.value);
        }  // else there was no room for it: it is closed, as when the guest refuses
        return;
      case ControlKind::kPause:
        machine_.pause([this, request] { on_paused(request); });
        return;
      case ControlKind::kResume:
        machine_.resume();
        report(ControlKind::kDone, request, {});
        return;
      case ControlKind::kCounters:
        report(ControlKind::kDone, request, machine_.counters().to_json());
        return;
      case ControlKind::kResizeDisk:
        resize_disk(request, message.text);
        return;
      case ControlKind::kSetBalloon:
        set_balloon(request, message.text);
        return;
      case ControlKind::kAddShare:
        add_share(message);
        return;
      case ControlKind::kHostAddresses:
        set_host_addresses(request, message.text);
        return;
      case ControlKind::kRelease:
        machine_.release_refusal(message.value);
        return;
      case ControlKind::kNetwork:
        replace_network(message);
        return;
      case ControlKind::kRemoveShare:
        machine_.remove_share(message.text,
                              [request](const Result<void>& done) { answer(request, done); });
        return;
      default:
        break;
    }
    finish_with(
        {fmt::format("the launcher sent a control message of kind {} and {} descriptors, "
                     "which has no meaning here",
                     static_cast<std::uint32_t>(message.kind), message.descriptors.size())});
  }

  static void answer(std::uint32_t request, const Result<void>& done) {
    done ? report(ControlKind::kDone, request, {})
         : report(ControlKind::kRefused, request, done.error().message);
  }

  // "ro 1 shares/2"
  void add_share(ControlMessage& message) {
    const std::uint32_t request = message.value;
    const std::string_view text = message.text;
    const bool read_only = text.starts_with("ro ");
    const int cache = text.size() > 5 ? text[3] - '0' : -1;
    if ((!read_only && !text.starts_with("rw ")) || cache < 0 ||
        cache > static_cast<int>(ShareCache::kAlways) || text[4] != ' ') {
      finish_with({"the launcher asked for a share without saying of what kind"});
    }
    if (message.descriptors.empty()) {
      report(ControlKind::kRefused, request, "the machine has too many files open");
      return;
    }
    machine_.add_share(std::string(text.substr(5)), std::move(message.descriptors.front()),
                       read_only, static_cast<ShareCache>(cache),
                       [request](const Result<void>& done) { answer(request, done); });
  }

  void set_host_addresses(std::uint32_t request, std::string_view text) {
    auto addresses = host_addresses_from(text);
    if (!addresses) {
      finish_with(addresses.error());
    }
    machine_.set_host_addresses(std::move(*addresses));
    report(ControlKind::kDone, request, {});
  }

  void replace_network(ControlMessage& message) {
    const bool replaced = !message.descriptors.empty() &&
                          machine_.replace_network(std::move(message.descriptors.front()));
    replaced ? report(ControlKind::kDone, message.value, {})
             : report(ControlKind::kRefused, message.value,
                      "the machine has no network card, or too many files open");
  }

  void resize_disk(std::uint32_t request, std::string_view text) {
    std::size_t disk = 0;
    std::uint64_t bytes = 0;
    const char* const begin = text.data();
    const char* const end = begin + text.size();
    const auto first = std::from_chars(begin, end, disk);
    if (first.ec != std::errc() || first.ptr == end || *first.ptr != ' ') {
      finish_with({"the launcher asked for a disk's new size without saying which"});
    }
    const auto second = std::from_chars(first.ptr + 1, end, bytes);
    if (second.ec != std::errc() || second.ptr != end) {
      finish_with({"the launcher asked for a disk's new size without saying it"});
    }
    const auto resized = machine_.resize_disk(disk, bytes);
    answer(request, resized);
  }

  void set_balloon(std::uint32_t request, std::string_view text) {
    std::uint32_t mib = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), mib);
    if (read.ec != std::errc() || read.ptr != text.data() + text.size()) {
      finish_with({"the launcher asked for memory without saying how much"});
    }
    machine_.set_balloon(std::uint64_t{mib} << 20)
        ? report(ControlKind::kDone, request, {})
        : report(ControlKind::kRefused, request, "the sandbox was started without --balloon");
  }

  Loop& loop_;
  vmm::Machine& machine_;
  Operation readable_;
  bool orphaned_ = false;
};

[[noreturn]] void run_probe() {
  auto result = vmm::probe_kvm(kKvmDescriptor);
  if (!result) {
    finish_with(result.error());
  }
  report(ControlKind::kProbeResult, result->usable ? 1 : 0, result->reason);
  finish(EXIT_SUCCESS);
}

[[noreturn]] void run_machine(vmm::Vm vm, ControlMessage message, Timeline& timeline) {
  auto config = MachineConfig::from_json(message.text);
  if (!config) {
    finish_with(config.error());
  }
  if (config->outlive_launcher) {
    outlive_launcher();
  }
  timeline.mark("configured");
  auto loop = Loop::create();
  if (!loop) {
    finish_with(loop.error());
  }
  auto machine = vmm::Machine::create(
      std::move(vm), *config, std::move(message.descriptors), **loop,
      {.stopped =
           [](const vmm::Machine::Stop& stop) {
             if (!stop.kernel_log.empty()) {
               report(ControlKind::kKernelLog, 0, stop.kernel_log);
             }
             report(ControlKind::kStopped, static_cast<std::uint32_t>(stop.reason), stop.detail);
             finish(EXIT_SUCCESS);
           },
       .accepted =
           [](std::uint32_t port, Fd peer) {
             const int descriptor = peer.get();
             report(ControlKind::kVsockAccept, port, {}, {&descriptor, 1});
           },
       .denied =
           [](const NetworkDenial& denial, std::uint32_t number) {
             report(ControlKind::kDenied, number, denial.to_text());
           },
       .network_lost = [] { report(ControlKind::kNetworkLost, 0, {}); }});
  if (!machine) {
    finish_with(machine.error());
  }
  timeline.mark("built");
  (*machine)->start();
  if (config->report_times) {
    report(ControlKind::kRunning, 0, timeline.text());
  }
  Control control(**loop, **machine);
  control.watch();
  if (auto ran = (*loop)->run(); !ran) {
    finish_with(ran.error());
  }
  finish(EXIT_SUCCESS);
}

}  // namespace

int main() {
  if (::fcntl(kControlDescriptor, F_GETFD) < 0 || ::fcntl(kKvmDescriptor, F_GETFD) < 0) {
    const std::string_view text = "msb-machine is started by msb-vmm; run `msb-vmm run` instead\n";
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    return EXIT_FAILURE;
  }
  // What guests make in shared directories gets the mode that they say.
  ::umask(0);
  // A control socket that breaks is found by its error, not by a signal.
  ::signal(SIGPIPE, SIG_IGN);
  // It ends with its launcher, however that ends and whatever this process is busy with.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // A descriptor for each connection, of which there may be more than the usual limit.
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  // A disk that may not grow is found by its error as well.
  ::signal(SIGXFSZ, SIG_IGN);
  struct sigaction interrupt{};
  interrupt.sa_handler = [](int) {};
  ::sigaction(vmm::Machine::kInterruptSignal, &interrupt, nullptr);

  Timeline timeline;
  timeline.mark("started");
  // The slowest call comes first, while the launcher still prepares the configuration.
  auto vm = vmm::Vm::create(kKvmDescriptor);
  timeline.mark("vm");
  ControlMessage message = wait_for_task();
  if (message.kind == ControlKind::kProbe) {
    run_probe();
  }
  if (message.kind != ControlKind::kConfigure) {
    finish_with({"the first control message is neither a configuration nor a probe"});
  }
  if (!vm) {
    finish_with(vm.error());
  }
  run_machine(std::move(*vm), std::move(message), timeline);
}
