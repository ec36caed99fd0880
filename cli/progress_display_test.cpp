// SPDX-License-Identifier: Apache-2.0
#include "cli/progress_display.hpp"

#include <doctest/doctest.h>

#include <string>

#include "oci/digest.hpp"

namespace msb::cli {
namespace {

using oci::LayerState;

LayerProgress layer_at(LayerState state, std::uint64_t received, double seconds) {
  return {.name = "0123456789ab",
          .size = 40'000'000,
          .received = received,
          .state = state,
          .elapsed = std::chrono::duration<double>(seconds)};
}

std::vector<oci::Layer> two_layers() {
  std::vector<oci::Layer> layers;
  for (const char* text : {"one", "two"}) {
    const oci::Digest digest = oci::Digest::of(std::as_bytes(std::span(std::string_view(text))));
    layers.push_back({{"application/x", digest, 1000}, oci::Compression::kNone, digest});
  }
  return layers;
}

// What a display writes while `act` uses it.
template <typename Act>
std::string written(ProgressDisplay::Kind kind, Act act) {
  char* text = nullptr;
  std::size_t size = 0;
  std::FILE* stream = ::open_memstream(&text, &size);
  REQUIRE(stream != nullptr);
  {
    ProgressDisplay display(stream, kind);
    act(display);
  }
  std::fclose(stream);
  std::string content(text, size);
  std::free(text);
  return content;
}

TEST_CASE("layer that is received shows how far it is, how fast and how long it will take") {
  CHECK(format_layer(layer_at(LayerState::kReceiving, 10'000'000, 2), 100) ==
        "0123456789ab  [======                  ] 10.0 MB / 40.0 MB, 5.0 MB/s, 6 s left");
  CHECK(format_layer(layer_at(LayerState::kReceiving, 10'000'000, 2), 20) ==
        "0123456789ab  [=====");
}

TEST_CASE("total counts what has to be fetched") {
  const auto total = format_total({layer_at(LayerState::kPresent, 40'000'000, 0),
                                   layer_at(LayerState::kReceiving, 10'000'000, 2)},
                                  std::chrono::duration<double>(2));
  CHECK(total == "1 of 2 layers, 10.0 MB / 40.0 MB, 5.0 MB/s, 6 s left");
}

TEST_CASE("plain lines say what happened to each layer once") {
  const std::string text = written(ProgressDisplay::Kind::kLines, [](ProgressDisplay& display) {
    display.begin(two_layers());
    display.update(0, LayerState::kPresent, 1000);
    display.update(1, LayerState::kReceiving, 0);
    display.update(1, LayerState::kReceiving, 500);
    display.notice("retrying in 4 s");
    display.update(1, LayerState::kDone, 1000);
  });
  CHECK(text == "7692c3ad3540  is here already\nretrying in 4 s\n3fc4ccfe7458  1.0 kB\n");
}

TEST_CASE("terminal is left with the lines that stay") {
  const std::string text = written(ProgressDisplay::Kind::kTerminal, [](ProgressDisplay& display) {
    display.begin(two_layers());
    display.update(1, LayerState::kReceiving, 0);
    display.update(1, LayerState::kDone, 1000);
    display.update(0, LayerState::kReceiving, 0);
  });
  CHECK(text.find("3fc4ccfe7458  1.0 kB\n") != std::string::npos);
  CHECK(text.find("0 of 2 layers") != std::string::npos);
  CHECK(text.ends_with("\x1b[2A\r\x1b[J"));
}

TEST_CASE("quiet display writes nothing") {
  CHECK(written(ProgressDisplay::Kind::kQuiet, [](ProgressDisplay& display) {
          display.begin(two_layers());
          display.update(0, LayerState::kReceiving, 0);
          display.update(0, LayerState::kDone, 1000);
          display.notice("x");
        }).empty());
}

}  // namespace
}  // namespace msb::cli
