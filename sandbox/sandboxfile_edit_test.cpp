// SPDX-License-Identifier: Apache-2.0
#include "sandbox/sandboxfile_edit.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "sandbox/sandboxfile.hpp"

namespace msb::sandbox {
namespace {

SandboxSpec small() {
  SandboxSpec spec;
  spec.image = "python:3.12";
  return spec;
}

std::string added(std::string_view text, const std::string& name = "new") {
  auto result = add_sandbox(text, name, small());
  return result ? *result : "error: " + result.error().message;
}

std::string removed(std::string_view text, const std::string& name) {
  auto result = remove_sandbox(text, name);
  return result ? *result : "error: " + result.error().message;
}

TEST_CASE("a sandbox is added behind the others, in the file's own style") {
  struct Row {
    const char* before;
    const char* after;
  };
  for (const Row& row : {
           Row{"", "sandboxes:\n  new:\n    image: python:3.12\n"},
           Row{"# Sandbox configurations\nsandboxes:\n",
               "# Sandbox configurations\nsandboxes:\n  new:\n    image: python:3.12\n"},
           Row{"sandboxes:", "sandboxes:\n  new:\n    image: python:3.12\n"},
           Row{"sandboxes: # none\n", "sandboxes: # none\n  new:\n    image: python:3.12\n"},
           Row{"sandboxes: ~\n", "sandboxes:\n  new:\n    image: python:3.12\n"},
           Row{"sandboxes: null # x\nmeta:\n",
               "sandboxes: # x\n  new:\n    image: python:3.12\nmeta:\n"},
           Row{"sandboxes: { }  # x\n", "sandboxes:  # x\n  new:\n    image: python:3.12\n"},
           Row{"meta: {tags: [a]}\n# end",
               "meta: {tags: [a]}\n# end\nsandboxes:\n  new:\n    image: python:3.12\n"},
           Row{"sandboxes:\n    a: {image: x}",
               "sandboxes:\n    a: {image: x}\n    new:\n      image: python:3.12\n"},
           Row{"sandboxes:\n    a:\n        image: x # why\n\n# end\n",
               "sandboxes:\n    a:\n        image: x # why\n    new:\n        image: "
               "python:3.12\n\n# end\n"},
           Row{"sandboxes:\n a:\n   image: x\n\n # b\n b:\n   image: y\n # c\n\n# meta\nmeta:\n",
               "sandboxes:\n a:\n   image: x\n\n # b\n b:\n   image: y\n # c\n\n new:\n   image: "
               "python:3.12\n\n# meta\nmeta:\n"},
           Row{"sandboxes:\r\n  a:\r\n    image: x\r\n",
               "sandboxes:\r\n  a:\r\n    image: x\r\n  new:\r\n    image: python:3.12\r\n"},
           Row{"---\nsandboxes:\n  a: {image: x}\n...\n",
               "---\nsandboxes:\n  a: {image: x}\n  new:\n    image: python:3.12\n...\n"},
           Row{"sandboxes:\n  a:\n    image: x\n    scripts:\n      s: |+\n        y\n\n",
               "sandboxes:\n  a:\n    image: x\n    scripts:\n      s: |+\n        y\n\n  new:\n   "
               " "
               "image: python:3.12\n"},
           Row{"sandboxes:\n# comment\n  # further\nmeta:\n",
               "sandboxes:\n# comment\n  # further\n  new:\n    image: python:3.12\nmeta:\n"},
       }) {
    CAPTURE(row.before);
    CHECK(added(row.before) == row.after);
  }
}

TEST_CASE("what cannot be added is said, and nothing is changed") {
  const std::string text = "sandboxes:\n  a: {image: x}\n";
  CHECK(added(text, "a") == "error: there is a sandbox 'a' already");
  CHECK(added(text, "a b").starts_with("error: 'a b' is no name for a sandbox"));
  CHECK(added("sandboxes: {a: {image: x}}") ==
        "error: the Sandboxfile is written in a way that cannot be changed safely; add 'new' by "
        "hand");
  CHECK(added("{}").starts_with("error: the Sandboxfile is written in a way"));
  CHECK(added("? sandboxes\n: ? a\n  : image: x\n").starts_with("error: the Sandboxfile is"));
  CHECK(added("sandboxes: [").starts_with("error: Sandboxfile:"));
  SandboxSpec spec = small();
  spec.depends_on = {"b"};
  CHECK(add_sandbox(text, "new", spec).error().message ==
        "cannot add 'new': depends_on names \"b\", which is no sandbox here");
  spec.depends_on = {"a"};
  CHECK(add_sandbox(text, "new", spec));
  spec.cpus = 65;
  CHECK(add_sandbox(text, "new", spec).error().message ==
        "cannot add 'new': cpus: \"65\" is no whole number from 1 to 64");
  spec = small();
  spec.envs = {"A=\xff"};
  CHECK(add_sandbox(text, "new", spec).error().message ==
        "cannot add 'new': it has a value that a Sandboxfile cannot say");
  spec = small();
  spec.volumes = {{"a:/b", "/c", false}};
  CHECK_FALSE(add_sandbox(text, "new", spec));
}

TEST_CASE("a sandbox is removed with the comment that is its own, and the rest stays") {
  const std::string text =
      "# top\nsandboxes:\n  # of a\n  # too\n  a:\n    image: x\n    # inside\n\n  # apart\n\n  # "
      "of "
      "b\n  b:\n    image: y\n\n  c: {image: z}  # z\n\n# of meta\nmeta:\n  tags: [t]\n";
  CHECK(removed(text, "a") ==
        "# top\nsandboxes:\n  # apart\n\n  # of b\n  b:\n    image: y\n\n  c: {image: z}  # z\n\n# "
        "of meta\nmeta:\n  tags: [t]\n");
  CHECK(removed(text, "b") ==
        "# top\nsandboxes:\n  # of a\n  # too\n  a:\n    image: x\n    # inside\n\n  # apart\n\n  "
        "c: {image: z}  # z\n\n# of meta\nmeta:\n  tags: [t]\n");
  CHECK(
      removed(text, "c") ==
      "# top\nsandboxes:\n  # of a\n  # too\n  a:\n    image: x\n    # inside\n\n  # apart\n\n  # "
      "of b\n  b:\n    image: y\n\n# of meta\nmeta:\n  tags: [t]\n");
  CHECK(removed("sandboxes:\n  a:\n    image: x", "a") == "sandboxes:\n");
  CHECK(removed("sandboxes:\r\n  a: {image: x}\r\n\r\n  b: {image: y}\r\n", "b") ==
        "sandboxes:\r\n  a: {image: x}\r\n");
  CHECK(removed(
            "sandboxes:\n  a:\n    image: x\n    scripts:\n      s: |+\n        y\n\n  b: {image: "
            "y}\n",
            "b") == "sandboxes:\n  a:\n    image: x\n    scripts:\n      s: |+\n        y\n\n");
}

TEST_CASE("what cannot be removed is said") {
  const std::string text = "sandboxes:\n  a: {image: x}\n  b: {image: y, depends_on: [a]}\n";
  CHECK(removed(text, "c") == "error: there is no sandbox 'c'");
  CHECK(removed(text, "a") == "error: 'b' depends on 'a'; remove 'b' too, or its depends_on");
  CHECK(
      removed("sandboxes: {a: {image: x}}", "a").starts_with("error: the Sandboxfile is written"));
  const std::array<std::string, 2> both = {"a", "b"};
  CHECK(remove_sandboxes(text, both) == "sandboxes:\n");
}

// Specs of what may be in one, chosen at random.
class RandomSpecs {
 public:
  SandboxSpec next() {
    SandboxSpec spec;
    spec.image =
        pick({"python:3.12", "./image", "/an image", "a/b@sha256:" + std::string(64, 'a')});
    if (chance()) {
      spec.cpus = 1 + random_() % 64;
    }
    if (chance()) {
      spec.memory_mib = 32 + random_() % 10'000;
      spec.disk_mib = 16 + random_() % 100'000;
      spec.processes = 1 + random_() % 1000;
      spec.timeout_s = 1 + random_() % 1000;
      spec.idle_timeout_s = 1 + random_() % 1000;
    }
    for (std::size_t i = random_() % 4; i > 0; --i) {
      spec.volumes.push_back(
          {pick({".", "./a: b", "/x#y", "- z", "'q'"}), fmt::format("/v{}", i), chance()});
      spec.ports.push_back(fmt::format("{}:80", 1000 + i));
      spec.envs.push_back("N=" + text());
      spec.env_files.push_back(pick({".env", "null", "a: b", "\u00e9"}));
      spec.command.push_back("c" + text());
      spec.scripts[pick({"start", "null", "1", "-", "a.b"})] = text();
    }
    spec.workdir = pick({"", "/", "/a: #b"});
    spec.user = pick({"", "0", "no", "a:b"});
    spec.shell = pick({"", "bash", "/bin/sh"});
    if (chance()) {
      spec.scope = static_cast<Scope>(random_() % 4);
      spec.network = {pick({"allow any", "deny udp fd00::/8 1-9"}), "deny dns"};
    }
    return spec;
  }

 private:
  bool chance() { return random_() % 2 == 0; }
  std::string pick(const std::vector<std::string>& words) {
    return words[random_() % words.size()];
  }
  // Pieces that mean something in YAML, and others.
  std::string text() {
    std::string all;
    for (std::size_t i = random_() % 8; i > 0; --i) {
      all +=
          pick({"a",    "echo b", " ",    "\n",     "\n\n", "\t",   "#", ": ", "- ",     "\"",
                "'",    "\\",     "\x01", "\r",     "{",    "]",    "|", "%",  "\u00e9", "\u2028",
                "\x7f", "---\n",  "0",    "\u0085", "~",    "\n  ", "*", "&",  "!"});
    }
    return all;
  }

  std::mt19937 random_{7};
};

TEST_CASE("every spec comes back from the file that it was added to, and leaves it again") {
  const std::string before =
      "# top\nsandboxes:\n  # one\n  one:\n    image: x\n\n  two: {image: y}\n\n# end\nmeta:\n";
  RandomSpecs specs;
  for (int round = 0; round < 200; ++round) {
    const SandboxSpec spec = specs.next();
    const auto with = add_sandbox(before, "new", spec);
    REQUIRE_MESSAGE(with, with.error().message);
    const auto file = parse_sandboxfile(*with, "S");
    REQUIRE(file);
    REQUIRE(file->sandboxes.size() == 3);
    CHECK(file->sandboxes[2].spec == spec);
    CHECK(with->starts_with(before.substr(0, before.find("\n\n# end"))));
    CHECK(with->ends_with("\n\n# end\nmeta:\n"));
    CHECK(remove_sandbox(*with, "new") == before);
  }
}

}  // namespace
}  // namespace msb::sandbox
