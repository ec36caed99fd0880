// SPDX-License-Identifier: Apache-2.0
// For tests in which a guest's thread changes memory while a device works. That is a data race,
// which ThreadSanitizer reports and C++ leaves undefined; the guest makes it, and the device must
// stand it (hostile-input.md 6). Such a test is marked `* doctest::skip(kRacingGuestsAreReported)`.
#pragma once

namespace msb::virtio::testing {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kRacingGuestsAreReported = true;
#elif defined(__has_feature)
inline constexpr bool kRacingGuestsAreReported = __has_feature(thread_sanitizer);
#else
inline constexpr bool kRacingGuestsAreReported = false;
#endif

}  // namespace msb::virtio::testing
