// SPDX-License-Identifier: Apache-2.0
#include "oci/image_spec.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>

namespace msb::oci {
namespace {

constexpr std::string_view kDigest =
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr std::string_view kManifestType = "application/vnd.oci.image.manifest.v1+json";

std::string descriptor(std::string_view media_type, std::string_view size = "7") {
  return fmt::format(R"({{"mediaType":"{}","digest":"{}","size":{}}})", media_type, kDigest, size);
}

std::string repeat(std::string_view text, std::size_t count, std::string_view separator = "") {
  std::string all;
  for (std::size_t i = 0; i < count; ++i) {
    all += i == 0 ? "" : separator;
    all += text;
  }
  return all;
}

TEST_CASE("index gives descriptors, platforms and tags") {
  const auto index = parse_index(fmt::format(
      R"({{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{}","size":12,
          "platform":{{"os":"linux","architecture":"arm64"}},
          "annotations":{{"org.opencontainers.image.ref.name":"v1","other":"x"}}}}]}})",
      kManifestType, kDigest));
  REQUIRE(index);
  REQUIRE(index->entries.size() == 1);
  CHECK(index->entries[0].descriptor.digest.to_string() == kDigest);
  CHECK(index->entries[0].descriptor.size == 12);
  CHECK(index->entries[0].os == "linux");
  CHECK(index->entries[0].architecture == "arm64");
  CHECK(index->entries[0].ref_name == "v1");
}

TEST_CASE("manifest gives configuration and layers in order") {
  const auto manifest = parse_manifest(
      fmt::format(R"({{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{},{}]}})",
                  kManifestType, descriptor("c"), descriptor("first"), descriptor("second")));
  REQUIRE(manifest);
  CHECK(manifest->config.media_type == "c");
  REQUIRE(manifest->layers.size() == 2);
  CHECK(manifest->layers[0].media_type == "first");
  CHECK(manifest->layers[1].media_type == "second");
}

TEST_CASE("configuration gives what a container runs with") {
  const auto config = parse_config(fmt::format(
      R"({{"os":"linux","architecture":"amd64","config":{{"Env":["A=b"],"Entrypoint":["/e","x"],"Cmd":null,
          "WorkingDir":"/w","User":"1000:1000","StopSignal":"SIGINT","Volumes":{{"/v":{{}}}}}},
          "rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[]}})",
      kDigest));
  REQUIRE(config);
  CHECK(config->env == std::vector<std::string>{"A=b"});
  CHECK(config->entrypoint == std::vector<std::string>{"/e", "x"});
  CHECK(config->cmd.empty());
  CHECK(config->working_dir == "/w");
  CHECK(config->user == "1000:1000");
  CHECK(config->stop_signal == "SIGINT");
  REQUIRE(config->diff_ids.size() == 1);
  CHECK(config->diff_ids[0].to_string() == kDigest);
}

TEST_CASE("configuration without a config object has no defaults") {
  const auto config = parse_config(R"({"rootfs":{"type":"layers","diff_ids":[]}})");
  REQUIRE(config);
  CHECK(config->env.empty());
  CHECK(config->user.empty());
}

TEST_CASE("descriptor with a hostile field is refused by name of the field") {
  const auto manifest_with = [](std::string_view element) {
    return parse_manifest(fmt::format(R"({{"schemaVersion":2,"config":{},"layers":[{}]}})",
                                      descriptor("c"), element));
  };
  struct Case {
    std::string element;
    std::string_view field;
  };
  const std::string type = R"("mediaType":"t",)";
  const std::string digest = fmt::format(R"("digest":"{}",)", kDigest);
  for (const Case& hostile : {
           Case{fmt::format("{{{}{}", digest, R"("size":1})"), "mediaType"},
           Case{fmt::format("{{{}{}", type, R"("size":1})"), "digest"},
           Case{fmt::format("{{{}{}{}", type, digest, R"("x":1})"), "size"},
           Case{fmt::format("{{{}{}{}", type, digest, R"("size":-1})"), "size"},
           Case{fmt::format("{{{}{}{}", type, digest, R"("size":1.5})"), "size"},
           Case{fmt::format("{{{}{}{}", type, digest, R"("size":"1"})"), "size"},
           Case{fmt::format("{{{}{}{}", type, digest, R"("size":18446744073709551615})"), "size"},
           Case{fmt::format("{{{}{}{}", type, digest, R"("size":99999999999999999999999})"),
                "size"},
           Case{R"({"mediaType":[],"digest":"x","size":1})", "mediaType"},
           Case{fmt::format("{{{}{}", type, R"("digest":7,"size":1})"), "digest"},
           Case{fmt::format("{{{}{}", type, R"("digest":"sha256:../../etc/passwd","size":1})"),
                "sha256:../../etc"},
           Case{fmt::format("{{{}{}", type, R"("digest":"sha512:00","size":1})"), "sha512"},
           Case{"7", "descriptor"},
           Case{"null", "descriptor"},
           Case{R"({"mediaType":"a\u0000b","digest":"x","size":1})", "mediaType"},
       }) {
    CAPTURE(hostile.element);
    const auto manifest = manifest_with(hostile.element);
    REQUIRE_FALSE(manifest);
    CAPTURE(manifest.error().message);
    CHECK(manifest.error().message.find(hostile.field) != std::string::npos);
  }
}

TEST_CASE("document that is no JSON object is refused") {
  for (const std::string& text :
       {std::string(), std::string("nonsense"), std::string("[]"), std::string("7"),
        std::string("{\"schemaVersion\":2"), std::string("\"\xff\""), std::string("{\"a\":1e999}"),
        std::string("{} {}")}) {
    CAPTURE(text);
    CHECK_FALSE(parse_index(text));
    CHECK_FALSE(parse_manifest(text));
    CHECK_FALSE(parse_config(text));
  }
}

TEST_CASE("document that nests too deep or is too large is refused") {
  const std::string deep = R"({"schemaVersion":2,"manifests":[],"x":)" + repeat("[", 100'000) +
                           repeat("]", 100'000) + "}";
  CHECK(parse_index(deep).error().message.find("deeper") != std::string::npos);
  const std::string bracket_in_text =
      R"({"schemaVersion":2,"manifests":[],"x":"\")" + repeat("[", 1000) + "\"}";
  CHECK(parse_index(bracket_in_text));
  const std::string large =
      R"({"schemaVersion":2,"manifests":[],"x":")" + std::string(kMaxDocumentSize, 'x') + "\"}";
  CHECK(parse_index(large).error().message.find("larger") != std::string::npos);
}

TEST_CASE("document of another kind or version is refused") {
  CHECK_FALSE(parse_index(R"({"manifests":[]})"));
  CHECK_FALSE(parse_index(R"({"schemaVersion":1,"manifests":[]})"));
  CHECK_FALSE(parse_index(R"({"schemaVersion":"2","manifests":[]})"));
  CHECK_FALSE(parse_index(R"({"schemaVersion":2})"));
  CHECK_FALSE(parse_index(R"({"schemaVersion":2,"manifests":{}})"));
  CHECK_FALSE(parse_index(
      fmt::format(R"({{"schemaVersion":2,"mediaType":"{}","manifests":[]}})", kManifestType)));
}

TEST_CASE("document that is an index and a manifest at once is refused") {
  const std::string both = fmt::format(
      R"({{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}})", descriptor("c"));
  CHECK(parse_index(both).error().message.find("ambiguous") != std::string::npos);
  CHECK(parse_manifest(both).error().message.find("ambiguous") != std::string::npos);
}

TEST_CASE("refusal quotes a document's text without its control characters") {
  const std::string escape = "\\u001b[2J\\n";
  for (const std::string& message :
       {layer_compression("a\x1b[2J\nb").error().message,
        check_layout_marker(fmt::format(R"({{"imageLayoutVersion":"{}"}})", escape))
            .error()
            .message,
        parse_index(fmt::format(R"({{"schemaVersion":2,"mediaType":"{}","manifests":[]}})", escape))
            .error()
            .message,
        Digest::parse("sha256:\x1b[2J\n").error().message}) {
    CHECK(message.find_first_of("\x1b\n") == std::string::npos);
    CHECK(message.find("\\x1b[2J") != std::string::npos);
  }
}

TEST_CASE("documents with more elements than the limits are refused") {
  const std::string layers = repeat(descriptor("l"), kMaxLayers + 1, ",");
  CHECK(parse_manifest(fmt::format(R"({{"schemaVersion":2,"config":{},"layers":[{}]}})",
                                   descriptor("c"), layers))
            .error()
            .message.find(fmt::format("{} layers", kMaxLayers + 1)) != std::string::npos);
  const std::string entries = repeat(descriptor("l"), kMaxIndexEntries + 1, ",");
  CHECK_FALSE(parse_index(fmt::format(R"({{"schemaVersion":2,"manifests":[{}]}})", entries)));
}

TEST_CASE("configuration with a wrong type is refused by name of the field") {
  struct Case {
    std::string_view json;
    std::string_view field;
  };
  for (const Case& hostile :
       {Case{R"({})", "rootfs"}, Case{R"({"rootfs":[]})", "rootfs"},
        Case{R"({"rootfs":{"diff_ids":"x"}})", "diff_ids"},
        Case{R"({"rootfs":{"diff_ids":["x"]}})", "diff_ids"},
        Case{R"({"rootfs":{"diff_ids":[1]}})", "diff_ids"},
        Case{R"({"rootfs":{"diff_ids":[]},"config":7})", "config"},
        Case{R"({"rootfs":{"diff_ids":[]},"config":{"Env":"A=b"}})", "Env"},
        Case{R"({"rootfs":{"diff_ids":[]},"config":{"Env":[7]}})", "Env"},
        Case{R"({"rootfs":{"diff_ids":[]},"config":{"Env":["A=\u0000"]}})", "Env"},
        Case{R"({"rootfs":{"diff_ids":[]},"config":{"User":0}})", "User"},
        Case{R"({"rootfs":{"diff_ids":[]},"os":[]})", "os"}}) {
    CAPTURE(hostile.json);
    const auto config = parse_config(hostile.json);
    REQUIRE_FALSE(config);
    CHECK(config.error().message.find(hostile.field) != std::string::npos);
  }
}

TEST_CASE("media types of layers give their compression, others are refused by name") {
  const std::string oci = "application/vnd.oci.image.layer.v1.tar";
  CHECK(layer_compression(oci) == Compression::kNone);
  CHECK(layer_compression(oci + "+gzip") == Compression::kGzip);
  CHECK(layer_compression(oci + "+zstd") == Compression::kZstd);
  CHECK(layer_compression("application/vnd.docker.image.rootfs.diff.tar.gzip") ==
        Compression::kGzip);
  for (const std::string& type :
       {std::string("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        std::string("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        oci + "+gzip+encrypted", std::string("application/vnd.wasm"), std::string()}) {
    const auto compression = layer_compression(type);
    REQUIRE_FALSE(compression);
    CHECK(compression.error().message.find("'" + type + "'") != std::string::npos);
  }
}

TEST_CASE("configurations of images are told from those of other artifacts") {
  CHECK(check_config_type("application/vnd.oci.image.config.v1+json"));
  CHECK(check_config_type("application/vnd.docker.container.image.v1+json"));
  CHECK(check_config_type("application/octet-stream"));
  for (const std::string type :
       {"application/vnd.cncf.helm.config.v1+json", "application/vnd.docker.plugin.v1+json",
        "application/vnd.oci.empty.v1+json"}) {
    const auto checked = check_config_type(type);
    REQUIRE_FALSE(checked);
    CHECK(checked.error().message.find(type) != std::string::npos);
  }
}

TEST_CASE("layout marker of another version is refused") {
  CHECK(check_layout_marker(R"({"imageLayoutVersion":"1.0.0"})"));
  CHECK_FALSE(check_layout_marker(R"({"imageLayoutVersion":"2.0.0"})"));
  CHECK_FALSE(check_layout_marker(R"({"imageLayoutVersion":1})"));
  CHECK_FALSE(check_layout_marker("{}"));
}

}  // namespace
}  // namespace msb::oci
