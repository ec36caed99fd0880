// SPDX-License-Identifier: Apache-2.0
// `msb cp`
#pragma once

#include <string>

#include "base/result.hpp"

namespace msb::cli {

struct CopyWords {
  std::string file;    // -f
  std::string source;  // one of them is NAME:PATH; the other may be "-", a tar stream
  std::string destination;
  bool archive = false;      // keep owners, modes and times
  bool follow_link = false;  // of the source
};

Result<void> copy(const CopyWords& words);

}  // namespace msb::cli
