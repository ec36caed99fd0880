// SPDX-License-Identifier: Apache-2.0
#include "sandbox/metrics_sampler.hpp"

#include <doctest/doctest.h>

#include <limits>

namespace msb::sandbox {
namespace {

msb_metrics at(std::uint64_t time_ns, std::uint64_t user_us, std::uint64_t system_us) {
  msb_metrics metrics{};
  metrics.time_ns = time_ns;
  metrics.user_us = user_us;
  metrics.system_us = system_us;
  return metrics;
}

TEST_CASE("processor time is told in percent of one processor") {
  CHECK(cpu_percent(at(0, 0, 0), at(1'000'000'000, 250'000, 250'000)) == doctest::Approx(50));
  CHECK(cpu_percent(at(5, 10, 10), at(200'000'005, 400'010, 10)) == doctest::Approx(200));
  CHECK(cpu_percent(at(5, 10, 10), at(6, 10, 10)) == doctest::Approx(0));
}

TEST_CASE("a guest whose clock or counters go back has no processor time") {
  CHECK_FALSE(cpu_percent(at(5, 0, 0), at(5, 1, 1)));
  CHECK_FALSE(cpu_percent(at(5, 0, 0), at(4, 1, 1)));
  CHECK_FALSE(cpu_percent(at(5, 9, 9), at(6, 1, 1)));
  CHECK(cpu_percent(at(0, 0, 0), at(1, std::numeric_limits<std::uint64_t>::max(), 0)));
}

TEST_CASE("a sandbox that has ended has no sample, and holds nothing up") {
  auto sampler = MetricsSampler::create();
  REQUIRE(sampler);
  const Running gone{{Kind::kTemporary, "gone", "", ""}, "12345678", "/nowhere"};
  REQUIRE((*sampler)->sample({gone}, std::chrono::seconds(60)));
  CHECK_FALSE((*sampler)->find(gone.id));
  CHECK_FALSE((*sampler)->find("other"));
}

}  // namespace
}  // namespace msb::sandbox
