// SPDX-License-Identifier: Apache-2.0
#include "virtio/net/token_bucket.hpp"

#include <doctest/doctest.h>

namespace msb::virtio {
namespace {

TEST_CASE("a bucket gives its burst and then its rate, and says how long to wait") {
  TokenBucket bucket(1000, 100);
  std::uint64_t now = 5;
  CHECK(bucket.take(60, now));
  CHECK(bucket.take(60, now));  // there were some
  CHECK_FALSE(bucket.take(1, now));
  CHECK(bucket.wait() == 20'000'001);
  now += bucket.wait();
  CHECK(bucket.take(1, now));
  now += 3'600'000'000'000;  // no more than the burst is saved up
  CHECK(bucket.take(100, now));
  CHECK_FALSE(bucket.take(1, now));
}

TEST_CASE("without a rate there is no limit, and a clock that goes back gives nothing") {
  TokenBucket open(0, 0);
  CHECK(open.take(1'000'000'000, 1));
  TokenBucket bucket(1000, 10);
  CHECK(bucket.take(20, 1'000'000'000));
  CHECK_FALSE(bucket.take(1, 500'000'000));
  CHECK_FALSE(bucket.take(1, 501'000'000));
}

}  // namespace
}  // namespace msb::virtio
