// SPDX-License-Identifier: Apache-2.0
#include "server/policy.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "sandbox/consent.hpp"
#include "sandbox/disk.hpp"
#include "sandbox/place_testing.hpp"

namespace msb::server {
namespace {

namespace fs = std::filesystem;
using sandbox::OpenVolume;
using sandbox::Place;
using sandbox::SandboxSpec;

const std::string kDigest = "sha256:" + std::string(64, 'a');

SandboxSpec python() {
  SandboxSpec spec;
  spec.image = "python:3.12";
  return spec;
}

// Why it is refused; empty when it is not.
std::string refusal(SandboxSpec spec, Reason reason, const Settings& settings = {},
                    const Key& key = {}) {
  const SandboxSpec before = spec;
  const auto judged = apply_policy(spec, settings, key);
  if (judged) {
    return "";
  }
  CHECK(judged.error().reason == reason);
  CHECK(spec == before);
  return judged.error().message;
}

// Whoever runs the tests may have aliases.
[[maybe_unused]] const int kNoImageSettings = ::setenv("MSB_CONFIG", "/nonexistent", 1);

bool allows_image(const std::vector<std::string>& images, const std::string& image) {
  Settings settings;
  settings.images = images;
  SandboxSpec spec;
  spec.image = image;
  return apply_policy(spec, settings, {}).has_value();
}

TEST_CASE("without limits, a sandbox gets the usual amounts and scope") {
  SandboxSpec spec = python();
  REQUIRE(apply_policy(spec, {}, {}));
  SandboxSpec expected = python();
  expected.scope = sandbox::Scope::kPublic;
  expected.memory_mib = 512;
  expected.disk_mib = sandbox::kDefaultDiskMib;
  CHECK(spec == expected);
}

TEST_CASE("what is the sandbox's own affair is free") {
  SandboxSpec spec = python();
  spec.envs = {"A=b"};
  spec.workdir = "/";
  spec.user = "root";
  spec.shell = "/bin/sh";
  spec.scripts = {{"start", "reboot"}};
  spec.command = {"x"};
  spec.idle_timeout_s = 100;
  Settings settings;
  settings.max_lifetime_s = 10;
  CHECK(apply_policy(spec, settings, {}));
}

TEST_CASE("an image is allowed by its name, with any tag, or with the one that is said") {
  CHECK(allows_image({"*"}, "evil.io:5000/a/b:c"));
  for (const char* image :
       {"python", "python:3.12", "docker.io/python", "docker.io/library/python:latest",
        "library/python", "index.docker.io/library/python"}) {
    CAPTURE(image);
    for (const char* pattern : {"python", "library/python", "docker.io/python",
                                "docker.io/library/python", "py*", "python*", "docker.io/*", "*"}) {
      CAPTURE(pattern);
      CHECK(allows_image({pattern}, image));
      CHECK(allows_image({"node", pattern}, image));
    }
    for (const char* pattern : {"python2", "pytho", "ython", "node", "me/python", "*/python/*",
                                "ghcr.io/python", "ghcr.io/*", "*.io/x/*", "python:2*"}) {
      CAPTURE(pattern);
      CHECK_FALSE(allows_image({pattern}, image));
    }
    CHECK_FALSE(allows_image({}, image));
  }
  CHECK(allows_image({"python:latest"}, "python"));
  CHECK(allows_image({"python:3.*"}, "python:3.12-slim"));
  CHECK(allows_image({"python:3.*"}, "docker.io/library/python:3."));
  CHECK_FALSE(allows_image({"python:3.*"}, "python:31"));
  CHECK_FALSE(allows_image({"python:3.*"}, "python"));
  CHECK(allows_image({"*-slim"}, "python:3.12-slim"));
  CHECK(allows_image({"localhost:5000/*"}, "localhost:5000/a/b:1"));
  CHECK_FALSE(allows_image({"localhost:5000/*"}, "localhost:5001/a/b:1"));
  CHECK(allows_image({"*.example/a"}, "reg.sub.example/a:2"));
}

TEST_CASE("a pattern lets in no other registry and no other owner") {
  CHECK(allows_image({"ghcr.io/me/*"}, "ghcr.io/me/y"));
  CHECK(allows_image({"ghcr.io/me/*"}, "ghcr.io/me/y/z:1@" + kDigest));
  for (const char* image :
       {"evil.io/x/ghcr.io/me/y", "ghcr.io/me", "ghcr.io/me2/y", "xghcr.io/me/y", "me/y",
        "ghcr.io.evil.io/me/y", "ghcr.io:443/me/y", "docker.io/ghcr.io/me/y", "GHCR.io/me/y"}) {
    CAPTURE(image);
    CHECK_FALSE(allows_image({"ghcr.io/me/*"}, image));
  }
  for (const char* image : {"python.evil.io/x", "python-evil/x", "evil.io/python", "evil/python",
                            "localhost/python", "evil.io/library/python"}) {
    CAPTURE(image);
    CHECK_FALSE(allows_image({"python*", "python", "p*:*"}, image));
  }
  CHECK_FALSE(allows_image({"*.example/a"}, "evil.io/x.example/a"));
  CHECK_FALSE(allows_image({"*/python"}, "evil.io/python"));
  CHECK(allows_image({"*/python"}, "somebody/python"));
  CHECK_FALSE(allows_image({"me*/x"}, "me.evil.io/x"));
}

TEST_CASE("an alias is what it stands for, in the list and as it is asked for") {
  CHECK(allows_image({"python:3.12-slim"}, "microsandbox/python"));
  CHECK(allows_image({"python"}, "microsandbox/python:3.11"));
  CHECK(allows_image({"microsandbox/python"}, "microsandbox/python"));
  CHECK(allows_image({"microsandbox/python"}, "python:3.12-slim"));
  CHECK_FALSE(allows_image({"node"}, "microsandbox/python"));
  CHECK_FALSE(allows_image({"python:3.11"}, "microsandbox/python"));
  CHECK_FALSE(allows_image({"microsandbox/*"}, "microsandbox/python"));
  CHECK_FALSE(allows_image({"microsandbox/python"}, "docker.io/microsandbox/python"));
  Settings settings;
  settings.images = {"node"};
  SandboxSpec spec;
  spec.image = "microsandbox/python";
  CHECK(refusal(spec, Reason::kForbidden, settings) ==
        "the image \"microsandbox/python\", which is \"docker.io/library/python:3.12-slim\", is "
        "not allowed: the operator's \"allow\": \"images\" has \"node\"");
}

TEST_CASE("where there is a digest, the tag says nothing") {
  CHECK(allows_image({"python"}, "python@" + kDigest));
  CHECK(allows_image({"python"}, "python:3.12@" + kDigest));
  CHECK_FALSE(allows_image({"python:3.12"}, "python:3.12@" + kDigest));
  CHECK_FALSE(allows_image({"python:3.12*"}, "python:3.12@" + kDigest));
  CHECK(allows_image({"python@" + kDigest}, "python@" + kDigest));
  CHECK(allows_image({"python@" + kDigest}, "python:3.12@" + kDigest));
  CHECK(allows_image({"python:3.12@" + kDigest}, "python:3.12@" + kDigest));
  CHECK_FALSE(allows_image({"python:3.11@" + kDigest}, "python:3.12@" + kDigest));
  CHECK_FALSE(allows_image({"python@" + kDigest}, "python:3.12"));
}

TEST_CASE("digits that the store would take for a digest are no name") {
  CHECK(allows_image({"*"}, "abcdef"));
  CHECK(allows_image({"abcdef"}, "abcdef"));
  CHECK(allows_image({"abc*"}, "abcdef:1"));
  CHECK(allows_image({"caf*"}, "cafe"));
  CHECK_FALSE(allows_image({"abc*"}, "abcdef"));
  CHECK_FALSE(allows_image({"sha*", "a*"}, "sha256:abcdef012345"));
}

TEST_CASE("an image that cannot be, or is of this host, is refused") {
  SandboxSpec spec;
  CHECK(refusal(spec, Reason::kInvalid) == "the image reference is empty");
  for (const std::string& image :
       {std::string("Python"), std::string("a b"), std::string("-x"), std::string(64, 'a'),
        std::string("a\0b", 3), std::string("\x1b"), std::string(5000, 'a'), std::string("."),
        std::string(".."), std::string("~/image"), std::string("docker.io/../x"),
        std::string("file:///srv")}) {
    CAPTURE(image);
    spec.image = image;
    CHECK(refusal(spec, Reason::kInvalid) != "");
  }
  for (const char* image : {"/srv/rootfs", "./rootfs", "../rootfs", "/", "/srv/layout:tag"}) {
    CAPTURE(image);
    spec.image = image;
    CHECK(refusal(spec, Reason::kForbidden).find("is a directory of the server's host") !=
          std::string::npos);
  }
  Settings settings;
  settings.images = {"node", "ghcr.io/me/*"};
  CHECK(refusal(python(), Reason::kForbidden, settings) ==
        "the image \"python:3.12\" is not allowed: the operator's \"allow\": \"images\" has "
        "\"node\", \"ghcr.io/me/*\"");
  settings.images = std::vector<std::string>(100, "node");
  CHECK(refusal(python(), Reason::kForbidden, settings).size() < 400);
}

TEST_CASE("a pattern of many stars costs no time") {
  std::string pattern;
  for (int i = 0; i < 100; ++i) {
    pattern += "*a";
  }
  CHECK_FALSE(allows_image({"x/" + pattern + "b"}, "x/" + std::string(250, 'a')));
}

TEST_CASE("amounts are held against the operator's limits and the key's") {
  Settings settings;
  settings.max_cpus = 2;
  settings.max_sandbox_memory_mib = 2048;
  settings.max_memory_mib = 4096;
  settings.max_disk_mib = 20480;
  settings.max_processes = 100;
  settings.max_lifetime_s = 3600;
  Key key;
  key.scope.max_memory_mib = 1024;
  key.scope.max_lifetime_s = 60;

  SandboxSpec spec = python();
  spec.cpus = 2;
  spec.memory_mib = 1024;
  spec.disk_mib = 20480;
  spec.processes = 100;
  spec.timeout_s = 60;
  CHECK(refusal(spec, Reason::kForbidden, settings, key) == "");

  const auto with = [&](auto member, auto amount) {
    SandboxSpec one = spec;
    one.*member = amount;
    return refusal(one, Reason::kForbidden, settings, key);
  };
  CHECK(with(&SandboxSpec::cpus, 3U) ==
        "\"cpus\" is 3, and the operator's \"limits\": \"cpus\" allows 2 at most");
  CHECK(with(&SandboxSpec::memory_mib, 2049U) ==
        "\"memory\" in MiB is 2049, and the operator's \"limits\": \"sandbox_memory\" allows 2048 "
        "at most");
  CHECK(with(&SandboxSpec::memory_mib, 1025U) ==
        "\"memory\" in MiB is 1025, and the key's limit of memory allows 1024 at most");
  CHECK(with(&SandboxSpec::disk_mib, 20481U) ==
        "\"disk\" in MiB is 20481, and the operator's \"limits\": \"disk\" allows 20480 at most");
  CHECK(with(&SandboxSpec::processes, 101U) ==
        "\"processes\" is 101, and the operator's \"limits\": \"processes\" allows 100 at most");
  CHECK(with(&SandboxSpec::timeout_s, 61U) ==
        "\"timeout\" in seconds is 61, and the key's limit of lifetime allows 60 at most");
  CHECK(
      with(&SandboxSpec::timeout_s, 3601U) ==
      "\"timeout\" in seconds is 3601, and the operator's \"limits\": \"lifetime\" allows 3600 at "
      "most");
  settings.max_memory_mib = 1000;
  CHECK(with(&SandboxSpec::memory_mib, 1024U).find("\"limits\": \"memory\"") != std::string::npos);
}

TEST_CASE("what is not given is the usual amount, or as much as is allowed") {
  Settings settings;
  Key key;
  const auto amounts = [&] {
    SandboxSpec spec = python();
    REQUIRE(apply_policy(spec, settings, key));
    return std::pair(spec.memory_mib.value_or(0), spec.disk_mib.value_or(0));
  };
  CHECK(amounts() == std::pair(512U, sandbox::kDefaultDiskMib));
  settings.max_disk_mib = 100;
  settings.max_memory_mib = 300;
  CHECK(amounts() == std::pair(300U, std::uint64_t{100}));
  key.scope.max_memory_mib = 200;
  CHECK(amounts() == std::pair(200U, std::uint64_t{100}));
}

TEST_CASE("the least of the limits is put in where nothing is given") {
  Settings settings;
  settings.max_processes = 100;
  Key key;
  const auto timeout = [&] {
    SandboxSpec spec = python();
    REQUIRE(apply_policy(spec, settings, key));
    CHECK(spec.processes == 100U);
    return spec.timeout_s;
  };
  CHECK(timeout() == std::nullopt);
  settings.max_lifetime_s = 3600;
  CHECK(timeout() == 3600U);
  key.scope.max_lifetime_s = 60;
  CHECK(timeout() == 60U);
  settings.max_lifetime_s.reset();
  CHECK(timeout() == 60U);
  SandboxSpec spec = python();
  spec.timeout_s = 5;
  spec.processes = 7;
  REQUIRE(apply_policy(spec, settings, key));
  CHECK(spec.timeout_s == 5U);
  CHECK(spec.processes == 7U);
}

TEST_CASE("numbers that cannot be are invalid whatever is allowed") {
  const auto with = [&](auto member, auto amount) {
    SandboxSpec one = python();
    one.*member = amount;
    return refusal(one, Reason::kInvalid);
  };
  CHECK(with(&SandboxSpec::cpus, 0U) == "\"cpus\": \"0\" is no whole number from 1 to 64");
  CHECK(with(&SandboxSpec::cpus, 4294967295U) != "");
  CHECK(with(&SandboxSpec::memory_mib, 0U) == "\"memory\": \"0\" is not from 32M to 1024G");
  CHECK(with(&SandboxSpec::memory_mib, 4294967295U) != "");
  CHECK(with(&SandboxSpec::disk_mib, 0U) != "");
  CHECK(with(&SandboxSpec::disk_mib, 18446744073709551615U) != "");
  CHECK(with(&SandboxSpec::processes, 0U) != "");
  CHECK(with(&SandboxSpec::timeout_s, 0U) != "");
  CHECK(with(&SandboxSpec::idle_timeout_s, 0U) != "");
}

TEST_CASE("a scope is no wider than the operator's") {
  using sandbox::Scope;
  const std::vector<Scope> scopes = {Scope::kNone, Scope::kGroup, Scope::kPublic, Scope::kAny};
  for (std::size_t allowed = 0; allowed < scopes.size(); ++allowed) {
    Settings settings;
    settings.scope = scopes[allowed];
    for (std::size_t wanted = 0; wanted < scopes.size(); ++wanted) {
      SandboxSpec spec = python();
      spec.scope = scopes[wanted];
      CHECK(refusal(spec, Reason::kForbidden, settings).empty() == (wanted <= allowed));
    }
    SandboxSpec spec = python();
    REQUIRE(apply_policy(spec, settings, {}));
    CHECK(spec.scope == (allowed == 3 ? Scope::kPublic : scopes[allowed]));
  }
  SandboxSpec spec = python();
  spec.scope = Scope::kAny;
  CHECK(refusal(spec, Reason::kForbidden) ==
        "the scope any is wider than public, the widest that the operator's \"allow\": \"scope\" "
        "has");
}

TEST_CASE("rules of the network narrow the scope, and widen it where everything is allowed") {
  using sandbox::Scope;
  for (const Scope allowed : {Scope::kNone, Scope::kGroup, Scope::kPublic, Scope::kAny}) {
    Settings settings;
    settings.scope = allowed;
    const auto judge = [&](const std::string& rule, Reason reason) {
      SandboxSpec spec = python();
      spec.network = {"deny tcp any 25", rule};
      return refusal(spec, reason, settings);
    };
    CHECK(judge("deny dns", Reason::kForbidden) == "");
    for (const char* rule : {"allow any", "allow tcp 10.0.0.5 443", " allow dns", "allow host"}) {
      CAPTURE(rule);
      CHECK(judge(rule, Reason::kForbidden).empty() == (allowed == Scope::kAny));
    }
  }
  SandboxSpec spec = python();
  spec.network = {"allow any"};
  CHECK(refusal(spec, Reason::kForbidden) ==
        "the rule \"allow any\" allows something, which it may where the operator's \"allow\": "
        "\"scope\" is any, and here it is public");
  spec.network = {"permit any"};
  CHECK(refusal(spec, Reason::kInvalid) ==
        "the rule \"permit any\" begins neither with allow nor with deny");
}

TEST_CASE("ports are those of this host that the operator gave away") {
  Settings settings;
  settings.ports = {{"127.0.0.1", 8000, 8999}, {"::1", 53, 53}, {"127.0.0.1", 80, 80}};
  const auto judge = [&](const std::vector<std::string>& ports, Reason reason) {
    SandboxSpec spec = python();
    spec.ports = ports;
    return refusal(spec, reason, settings);
  };
  for (const char* port : {"8000", "8999:1", "8500:80/udp", "127.0.0.1:8000:80", "80", "0:80",
                           "127.0.0.1:0:80", "[::1]:53:53/udp", "[::1]:0:9", "[0:0::1]:53:1"}) {
    CAPTURE(port);
    CHECK(judge({port}, Reason::kForbidden) == "");
  }
  for (const char* port : {"7999", "9000:8000", "81:8000", "443", "0.0.0.0:8000:80", "[::]:53:53",
                           "[::]:0:53", "0.0.0.0:0:1", "127.0.0.2:8000:80", "[::1]:54:53",
                           "[::ffff:127.0.0.1]:8000:1", "8000:80 "}) {
    CAPTURE(port);
    CHECK(judge({"8000", port}, std::string_view(port).ends_with(' ') ? Reason::kInvalid
                                                                      : Reason::kForbidden) != "");
  }
  CHECK(judge({"81:8000"}, Reason::kForbidden) ==
        "the port 81 of 127.0.0.1 cannot be published: the operator's \"allow\": \"ports\" has "
        "127.0.0.1:8000-8999, [::1]:53-53, 127.0.0.1:80-80");
  for (const char* port : {"", "a", "0", "8000:0", "65536", "-1", "localhost:8000:80", "8000/x",
                           "::1:53:53", "8000:80\n", "\x1b", "127.0.0.1:8000"}) {
    CAPTURE(port);
    CHECK(judge({port}, Reason::kInvalid) != "");
  }
  CHECK(judge({"8000:1", "8000:2"}, Reason::kInvalid) != "");
  CHECK(judge(std::vector<std::string>(65, "0:1"), Reason::kInvalid) ==
        "\"ports\" has 65 of them, and at most 64 can be published");
  CHECK(judge(std::vector<std::string>(64, "0:1"), Reason::kInvalid) == "");
  settings.ports.clear();
  CHECK(judge({"0:80"}, Reason::kForbidden) ==
        "a free port of 127.0.0.1 cannot be published: the operator's \"allow\": \"ports\" has "
        "nothing");
}

TEST_CASE("what refers to files or sandboxes of others cannot be") {
  SandboxSpec spec = python();
  spec.env_files = {"/etc/environment"};
  CHECK(refusal(spec, Reason::kInvalid).find("\"env_files\"") == 0);
  spec = python();
  spec.depends_on = {"db"};
  CHECK(refusal(spec, Reason::kInvalid).find("\"depends_on\"") == 0);
}

TEST_CASE("volumes have to be named by where they are, and allowed at all") {
  Settings settings;
  SandboxSpec spec = python();
  spec.volumes = {{"/srv/data", "/data", true}};
  CHECK(refusal(spec, Reason::kForbidden, settings) ==
        "volumes are not allowed: the operator's \"allow\": \"volumes\" has nothing");
  settings.volumes = {{"/srv/data", false}};
  CHECK(refusal(spec, Reason::kForbidden, settings) == "");
  for (const char* host : {"", ".", "data", "./data", "../data", "~/data"}) {
    CAPTURE(host);
    spec.volumes[0].host = host;
    CHECK(refusal(spec, Reason::kInvalid, settings).find("is no absolute path") !=
          std::string::npos);
  }
}

TEST_CASE("a volume is allowed by where it really is") {
  const Place place;
  const std::string root = fs::canonical(place.path).string();
  fs::create_directories(root + "/work/deep");
  fs::create_directories(root + "/work2");
  fs::create_directories(root + "/data/in");
  fs::create_directory_symlink(root + "/work2", root + "/work/out");
  fs::create_directory_symlink("work/deep", root + "/in");
  Settings settings;
  settings.volumes = {{root + "/data", true}, {root + "/work", false}};
  const auto judge = [&](const std::string& path, bool read_only) {
    std::vector<OpenVolume> volumes;
    auto opened = sandbox::open_volume({root + path, "/guest", read_only}, "/");
    REQUIRE(opened);
    volumes.push_back(std::move(*opened));
    const auto checked = check_volumes(volumes, settings);
    if (!checked) {
      CHECK(checked.error().reason == Reason::kForbidden);
      CHECK(checked.error().message.find(root + "/work2") == std::string::npos);
    }
    return checked.has_value();
  };
  CHECK(judge("/work", false));
  CHECK(judge("/work/", true));
  CHECK(judge("/work/deep", false));
  CHECK(judge("/in", false));
  CHECK(judge("/work/../data/in", true));
  CHECK(judge("/data", true));
  CHECK_FALSE(judge("/data", false));
  CHECK_FALSE(judge("/data/in", false));
  CHECK_FALSE(judge("/work2", true));
  CHECK_FALSE(judge("/work/out", false));
  CHECK_FALSE(judge("/work/..", false));
  CHECK_FALSE(judge("", true));
  std::vector<OpenVolume> volumes;
  CHECK(check_volumes(volumes, settings));
  volumes.push_back({Fd(), root + "/work", "/a", false});
  volumes.push_back({Fd(), "/etc", "/b", true});
  CHECK(check_volumes(volumes, settings).error().message ==
        fmt::format("the volume at \"/b\" is not allowed: the operator's \"allow\": \"volumes\" "
                    "has {0}/data:ro, {0}/work",
                    root));
  volumes.pop_back();
  CHECK(check_volumes(volumes, settings));
  CHECK_FALSE(check_volumes(volumes, {}));
}

TEST_CASE("labels have names and values that a list can be filtered by") {
  CHECK(check_labels({}));
  CHECK(check_labels({{"a.b/c_d-1", "x=y"}, {std::string(63, 'n'), ""}}));
  for (const char* name : {"", "a b", "a=b", "a,b", "\xc3\xa4"}) {
    CAPTURE(name);
    CHECK_FALSE(check_labels({{name, ""}}));
  }
  CHECK_FALSE(check_labels({{std::string(64, 'n'), ""}}));
  CHECK_FALSE(check_labels({{"a", "x,y"}}));
  std::map<std::string, std::string> many;
  for (int i = 0; i < 65; ++i) {
    many.emplace(fmt::format("{}", i), "");
  }
  CHECK_FALSE(check_labels(many));
}

TEST_CASE("a key enters its own namespace, or all") {
  Key key;
  CHECK(may_enter(key, "a"));
  CHECK(may_enter(key, "*"));
  key.scope.space = "a";
  CHECK(may_enter(key, "a"));
  for (const char* space : {"", "*", "A", "ab", "a/", "default"}) {
    CAPTURE(space);
    CHECK_FALSE(may_enter(key, space));
  }
}

}  // namespace
}  // namespace msb::server
