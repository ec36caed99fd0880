// SPDX-License-Identifier: Apache-2.0
extern "C" {
#include "initramfs/oom.h"
}

#include <doctest/doctest.h>
#include <unistd.h>

#include <string>

TEST_CASE("oom_record_of_the_kernel_names_its_victim") {
  CHECK(oom_victim_of_record(
            "3,512,81923456,-;Out of memory: Killed process 4711 (python3) total-vm:1kB, "
            "UID:0 pgtables:540kB oom_score_adj:0\n") == 4711);
  CHECK(oom_victim_of_record(
            "3,1,2,-,caller=T1;Memory cgroup out of memory: Killed process 12 (x)") == 12);
  CHECK(oom_victim_of_record(
            "3,1,2,-;Out of memory (oom_kill_allocating_task): Killed process 7 (x)") == 7);
}

TEST_CASE("oom_record_that_a_program_wrote_names_nobody") {
  // The facility of what comes through /dev/kmsg is never the kernel's: 8 and above.
  CHECK(oom_victim_of_record("12,5,6,-;Out of memory: Killed process 4711 (python3)") == 0);
}

TEST_CASE("oom_record_of_another_kind_names_nobody") {
  for (const char* record :
       {"", "3", "3,", "3,1,2,-", "3,1,2,-;", "x,1,2,-;Out of memory: Killed process 1 (x)",
        "3,1,2,-;Out of memory: Killed", "3,1,2,-;Out of memory: Killed process ",
        "3,1,2,-;python3 invoked oom-killer: gfp_mask=0x140dca", "6,1,2,-;random: crng init done",
        "3,1,2,-;veth: Out of memory: Killed process 5 (x)"}) {
    CAPTURE(record);
    CHECK(oom_victim_of_record(record) == 0);
  }
}

TEST_CASE("oom_without_a_kernel_log_knows_no_victims") {
  char text[OOM_TEXT_MAX];
  CHECK(oom_next_victim(-1, text) == 0);
}

TEST_CASE("oom_text_is_the_first_line_of_what_the_kernel_says") {
  char text[OOM_TEXT_MAX];
  oom_text_of_record("3,512,81923456,-;Out of memory: Killed process 4711 (x)\n SUBSYSTEM=y\n",
                     text);
  CHECK(std::string(text) == "Out of memory: Killed process 4711 (x)");
  oom_text_of_record(("3,1,2,-;" + std::string(2000, 'x')).c_str(), text);
  CHECK(std::string(text) == std::string(OOM_TEXT_MAX - 1, 'x'));
  oom_text_of_record("", text);
  CHECK(std::string(text).empty());
}
