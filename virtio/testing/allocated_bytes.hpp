// SPDX-License-Identifier: Apache-2.0
// How much memory this process has allocated, for tests that say that a guest cannot make it grow.
#pragma once

#include <malloc.h>

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define MSB_TEST_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MSB_TEST_ADDRESS_SANITIZER 1
#endif
#endif
#ifdef MSB_TEST_ADDRESS_SANITIZER
// Of <sanitizer/allocator_interface.h>, which gcc 12 does not install on Debian.
extern "C" std::size_t __sanitizer_get_current_allocated_bytes();
#endif

namespace msb::virtio::testing {

inline std::size_t allocated_bytes() {
#ifdef MSB_TEST_ADDRESS_SANITIZER
  return ::__sanitizer_get_current_allocated_bytes();
#else
  const struct mallinfo2 info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
#endif
}

}  // namespace msb::virtio::testing
