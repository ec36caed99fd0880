// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/metrics.h"

#include "initramfs/text_lines.h"
}

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstring>
#include <initializer_list>
#include <string>

namespace {

msb_metrics parse(line_taker take, const std::string& text) {
  msb_metrics metrics{};
  text_lines lines{};
  text_take(&lines, text.data(), text.size(), take, &metrics);
  return metrics;
}

bool is_zero(const msb_metrics& metrics) {
  msb_metrics none{};
  return std::memcmp(&metrics, &none, sizeof none) == 0;
}

/// Numbers that are none, each in a place where the kernel writes one.
constexpr const char* kHostileNumbers[] = {"", "-1", "x", "18446744073709551616"};

}  // namespace

TEST_CASE("metrics_of_processor_times_are_microseconds_of_all_processors") {
  REQUIRE(sysconf(_SC_CLK_TCK) == 100);
  msb_metrics metrics = parse(metrics_take_stat,
                              "cpu  1007 20 300 40000 500 6 7 80 9 10\n"
                              "cpu0 507 10 150 20000 250 3 3 40 4 5\n"
                              "cpu1 500 10 150 20000 250 3 4 40 5 5\n"
                              "cpu13 0 0 0 0 0 0 0 0 0 0\n"
                              "intr 12345 0 0 9 0\n"
                              "cpu2 1 1 1 1 1 1 1 1 1 1\n");
  CHECK(metrics.processors == 3);
  CHECK(metrics.user_us == 10270000);
  CHECK(metrics.system_us == 3130000);
  CHECK(metrics.idle_us == 405000000);
  CHECK(metrics.steal_us == 800000);
}

TEST_CASE("metrics_of_hostile_processor_times_are_zeros_or_the_largest_number") {
  CHECK(is_zero(parse(metrics_take_stat, "")));
  CHECK(is_zero(parse(metrics_take_stat, "cpu")));
  CHECK(is_zero(parse(metrics_take_stat, "cpu\ncpux 1\ncpu0\ncpu-1 5\n")));
  CHECK(is_zero(parse(metrics_take_stat, "cpu  1 2 3 4 5 6 7\n")));
  CHECK(is_zero(parse(metrics_take_stat, "cpu  1 2 3 4 5 6 7 8")));  // cut off
  for (const char* number : kHostileNumbers) {
    CAPTURE(number);
    CHECK(is_zero(parse(metrics_take_stat, "cpu  1 2 3 4 5 6 " + std::string(number) + " 8\n")));
  }
  std::string largest = "18446744073709551615 ";
  msb_metrics metrics =
      parse(metrics_take_stat, "cpu  " + largest + largest + "1 2 3 4 5 " + largest + "\n");
  CHECK(metrics.user_us == UINT64_MAX);
  CHECK(metrics.system_us == 100000);
  CHECK(metrics.steal_us == UINT64_MAX);
}

TEST_CASE("metrics_of_memory_are_bytes") {
  msb_metrics metrics = parse(metrics_take_meminfo,
                              "MemTotal:         501234 kB\n"
                              "MemFree:          300000 kB\n"
                              "MemAvailable:     450001 kB\n"
                              "Buffers:            1234 kB\n");
  CHECK(metrics.memory_total == 501234u * 1024);
  CHECK(metrics.memory_available == 450001u * 1024);
}

TEST_CASE("metrics_of_hostile_memory_are_zeros_or_the_largest_number") {
  CHECK(is_zero(parse(metrics_take_meminfo, "MemTotal\nMemTotal:\nMemAvailable: kB\n")));
  CHECK(is_zero(parse(metrics_take_meminfo, "MemTotal: 12")));
  CHECK(is_zero(parse(metrics_take_meminfo, "MemTotal: -5 kB\nMemAvailable: -5 kB\n")));
  CHECK(parse(metrics_take_meminfo, "MemTotal: 18446744073709551615 kB\n").memory_total ==
        UINT64_MAX);
}

TEST_CASE("metrics_of_the_network_add_up_all_interfaces_but_loopback") {
  msb_metrics metrics = parse(
      metrics_take_net_dev,
      "Inter-|   Receive                                                |  Transmit\n"
      " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs "
      "drop fifo colls carrier compressed\n"
      "    lo: 9000000   90000    0    0    0     0          0         0  9000000   90000    0    "
      "0 "
      "   0     0       0          0\n"
      "  eth0: 1000      11    1    2    3     4          5         6  2000    22    0    0    0   "
      "  0       0          0\n"
      "veth12345678:500 7    0    0    0     0          0         0  600    8    0    0    0    0  "
      "  0     0\n"
      "   lo1: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n");
  CHECK(metrics.received_bytes == 1501);
  CHECK(metrics.received_packets == 19);
  CHECK(metrics.sent_bytes == 2601);
  CHECK(metrics.sent_packets == 31);
}

TEST_CASE("metrics_of_a_hostile_network_leave_bad_interfaces_out") {
  for (const char* number : kHostileNumbers) {
    CAPTURE(number);
    std::string nine = "1 1 0 0 0 0 0 0 1 ";
    CHECK(is_zero(parse(metrics_take_net_dev, "eth0: " + nine + number + "\n")));
  }
  CHECK(is_zero(parse(metrics_take_net_dev, ":\n::\neth0:\neth0: 1 1 0 0 0 0 0 0 1 1")));
  std::string interface = "e: 18446744073709551615 1 0 0 0 0 0 0 5 18446744073709551615\n";
  msb_metrics metrics = parse(metrics_take_net_dev, interface + interface);
  CHECK(metrics.received_bytes == UINT64_MAX);
  CHECK(metrics.received_packets == 2);
  CHECK(metrics.sent_bytes == 10);
  CHECK(metrics.sent_packets == UINT64_MAX);
}

TEST_CASE("metrics_of_processes_count_tasks") {
  CHECK(parse(metrics_take_loadavg, "0.20 0.18 0.12 1/80 11206\n").processes == 80);
  for (const char* text :
       {"", "\n", "0.20 0.18 0.12 1/80", "0.20 0.18 0.12 1/\n", "/\n", "0.20 0.18 0.12 1/-80 5\n",
        "0.20 0.18 0.12 180 5\n", "0 0 0 1/18446744073709551616 1\n"}) {
    CAPTURE(text);
    CHECK(is_zero(parse(metrics_take_loadavg, text)));
  }
}

TEST_CASE("metrics_of_memory_kills_come_from_their_own_line") {
  CHECK(parse(metrics_take_vmstat, "nr_free_pages 1\noom_kill_x 3\noom_kill 12\n").oom_kills == 12);
  for (const char* text : {"", "oom_kill\n", "oom_kill \n", "oom_kill -1\n", "oom_kill 12",
                           "xoom_kill 1\n", "oom_kill 18446744073709551616\n"}) {
    CAPTURE(text);
    CHECK(is_zero(parse(metrics_take_vmstat, text)));
  }
}

TEST_CASE("metrics_of_any_prefix_of_a_text_never_exceed_those_of_the_whole") {
  std::string text =
      "cpu  1007 20 300 40000 500 6 7 80 9 10\ncpu0 507 10 150 20000 250 3 3 40 4 5\n";
  msb_metrics whole = parse(metrics_take_stat, text);
  for (size_t length = 0; length < text.size(); length++) {
    msb_metrics part = parse(metrics_take_stat, text.substr(0, length));
    CHECK((part.user_us == 0 || part.user_us == whole.user_us));
    CHECK(part.processors <= whole.processors);
  }
}

TEST_CASE("metrics_of_this_machine_are_plausible") {
  msb_metrics first;
  metrics_read(&first);
  msb_metrics second;
  metrics_read(&second);
  CHECK(first.processors == static_cast<uint64_t>(sysconf(_SC_NPROCESSORS_ONLN)));
  CHECK(first.memory_total ==
        static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(getpagesize()));
  CHECK(first.memory_available > 0);
  CHECK(first.memory_available < first.memory_total);
  CHECK(first.disk_total >= first.disk_free);
  CHECK(first.disk_total > 0);
  CHECK(first.processes > 0);
  CHECK(first.user_us + first.system_us > 0);
  CHECK(second.time_ns > first.time_ns);
  CHECK(second.user_us >= first.user_us);
}
