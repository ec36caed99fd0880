// SPDX-License-Identifier: Apache-2.0
#include "sandbox/image_choice.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <string>

#include "sandbox/place_testing.hpp"

namespace msb::sandbox {
namespace {

TEST_CASE("a sandbox that lies on another image says how one starts afresh, whoever keeps it") {
  const Place place;
  auto store = oci::Store::open(place.path + "/store");
  REQUIRE(store);
  const StateDirectory state(place.path + "/web");
  REQUIRE(state.make());
  REQUIRE(std::ofstream(state.disk()));  // what it has written
  REQUIRE(state.pin({"python:3.11", "sha256:" + std::string(64, 'a')}));
  const auto refusal = [&](std::string_view afresh) {
    const auto choice =
        choose_image(*store, oci::default_settings(), "python:3.12", "/", &state, afresh);
    REQUIRE_FALSE(choice);
    CHECK(choice.error().code == kOtherImage);
    return choice.error().message;
  };
  const std::string what =
      "what 'web' has written lies on the image 'python:3.11', and cannot go on with "
      "'python:3.12': go back to that image, or ";
  CHECK(refusal("") == what + "start afresh with `msb clean web`");
  CHECK(refusal("remove the sandbox") == what + "remove the sandbox");
}

}  // namespace
}  // namespace msb::sandbox
