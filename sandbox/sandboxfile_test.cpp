// SPDX-License-Identifier: Apache-2.0
#include "sandbox/sandboxfile.hpp"

#include <doctest/doctest.h>

#include <string>

namespace msb::sandbox {
namespace {

std::string error_of(std::string_view text) {
  const auto file = parse_sandboxfile(text, "Sandboxfile");
  return file ? "none" : file.error().message;
}

// Of the fields of a sandbox, which begin in line 3, column 5.
std::string field_error(std::string_view fields) {
  std::string text = "sandboxes:\n  web:\n    image: a\n";
  for (std::size_t begin = 0; begin < fields.size();) {
    const std::size_t end = std::min(fields.find('\n', begin), fields.size());
    text += fmt::format("    {}\n", fields.substr(begin, end - begin));
    begin = end + 1;
  }
  return error_of(text);
}

constexpr std::string_view kFull = R"(# comment
meta:
  authors: [a, b]
  description: d
  tags: []
sandboxes:
  db:
    image: postgres:16
  web:
    version: 1.0
    meta: {readme: ./README.md, icon: x, homepage: h, repository: r}
    image: ./image
    memory: 1G
    cpus: 2
    disk: 10G
    processes: 500
    volumes: ["./src:/app", "/data:ro"]
    ports:
      - 8080:80
      - 0.0.0.0:53:53/udp
      - 22:22
      - 9000
    envs: [A=1, "B=x y"]
    env_files: .env
    depends_on: [db]
    workdir: /app
    user: "1000:1000"
    shell: /bin/bash
    scripts:
      start: |
        echo a
        echo b
      test: no
    command: [sleep, 10, yes]
    imports: {a: ./b}
    exports: {c: ./d}
    scope: none
    network: [allow tcp 10.0.0.5 443, deny dns]
    timeout: 1h
    idle_timeout: 600
)";

TEST_CASE("a Sandboxfile's fields become specs, in the file's order") {
  const auto file = parse_sandboxfile(kFull, "Sandboxfile");
  REQUIRE_MESSAGE(file, file.error().message);
  REQUIRE(file->sandboxes.size() == 2);
  CHECK(file->sandboxes[0].name == "db");
  CHECK(file->sandboxes[1].name == "web");
  SandboxSpec spec;
  spec.image = "./image";
  spec.cpus = 2;
  spec.memory_mib = 1024;
  spec.disk_mib = 10 * 1024;
  spec.processes = 500;
  spec.volumes = {{"./src", "/app", false}, {"/data", "/data", true}};
  spec.ports = {"8080:80", "0.0.0.0:53:53/udp", "22:22", "9000"};
  spec.envs = {"A=1", "B=x y"};
  spec.env_files = {".env"};
  spec.depends_on = {"db"};
  spec.workdir = "/app";
  spec.user = "1000:1000";
  spec.shell = "/bin/bash";
  spec.scripts = {{"start", "echo a\necho b\n"}, {"test", "no"}};
  spec.command = {"sleep", "10", "yes"};
  spec.scope = Scope::kNone;
  spec.network = {"allow tcp 10.0.0.5 443", "deny dns"};
  spec.timeout_s = 3600;
  spec.idle_timeout_s = 600;
  CHECK(file->sandboxes[1].spec == spec);
  const Sandboxfile::Places& places = file->sandboxes[1].places;
  CHECK(places.name == Position{9, 3});
  CHECK(places.image == Position{12, 12});
  CHECK(places.volumes == std::vector<Position>{{17, 15}, {17, 29}});
  CHECK(places.ports == std::vector<Position>{{19, 9}, {20, 9}, {21, 9}, {22, 9}});
  CHECK(places.env_files == std::vector<Position>{{24, 16}});
  CHECK(places.depends_on == std::vector<Position>{{25, 18}});
}

TEST_CASE("a file without sandboxes, and fields without a value, are as if they were not there") {
  for (const char* text : {"", "# nothing\n", "sandboxes:\n", "sandboxes: {}\n", "meta:\n",
                           "# Sandbox configurations\nsandboxes:\n"}) {
    CAPTURE(text);
    const auto file = parse_sandboxfile(text, "Sandboxfile");
    REQUIRE(file);
    CHECK(file->sandboxes.empty());
  }
  CHECK(field_error("memory:\nvolumes: null\nports: []\nscope: ~\ncommand: []\nscripts:") ==
        "none");
}

TEST_CASE("documents that are no map of sandboxes are refused where they begin") {
  constexpr const char* kWhole =
      "Sandboxfile:1:1: a Sandboxfile is a map that begins with \"sandboxes:\"";
  CHECK(error_of("text") == kWhole);
  CHECK(error_of("- a\n") == kWhole);
  CHECK(
      error_of("sandboxes: [a]\n") ==
      "Sandboxfile:1:12: sandboxes has to be a map, each \"NAME:\" with the sandbox's fields below "
      "it");
  CHECK(error_of("sandboxes:\n  web: a\n") ==
        "Sandboxfile:2:8: there have to be fields here, each \"FIELD: VALUE\"");
  CHECK(
      error_of("sandboxes:\n  web:\n") ==
      "Sandboxfile:2:3: \"web\" has no image; write one below it, such as \"image: python:3.12\"");
  CHECK(error_of("a: 1\n---\nb: 2\n").starts_with("Sandboxfile:2:1: there is a second document"));
  CHECK(error_of("sandboxes:\n  a: {image: x}\n  a: {image: x}\n") ==
        "Sandboxfile:3:3: \"a\" is there a second time");
  CHECK(parse_sandboxfile("x", "dir/a\x1b\n").error().message.starts_with("dir/a\\x1b\\x0a:1:1: "));
}

TEST_CASE("fields that there are not are refused with what was meant") {
  CHECK(error_of("sandbox:\n") ==
        "Sandboxfile:1:1: \"sandbox\" is none of the fields that there are here; did you mean "
        "\"sandboxes\"?");
  CHECK(field_error("memroy: 1") ==
        "Sandboxfile:4:5: \"memroy\" is none of the fields that there are here; did you mean "
        "\"memory\"?");
  CHECK(field_error("xyzzy: 1") ==
        "Sandboxfile:4:5: \"xyzzy\" is none of the fields that there are here");
  CHECK(
      field_error("meta: {author: [a]}") ==
      "Sandboxfile:4:12: meta: \"author\" is none of the fields that there are here; did you mean "
      "\"authors\"?");
  CHECK(error_of("modules:\n") == "Sandboxfile:1:1: \"modules\" is not supported; remove it");
  CHECK(error_of("builds: {a: {}}\n") == "Sandboxfile:1:1: \"builds\" is not supported; remove it");
  CHECK(field_error("groups: [a]") == "Sandboxfile:4:5: \"groups\" is not supported; remove it");
  CHECK(field_error("<<: {a: b}").starts_with("Sandboxfile:4:5: \"<<\" is none"));
}

TEST_CASE("values of another type, or beyond their limits, are refused where they are") {
  struct Row {
    const char* fields;
    const char* error;
  };
  for (const Row& row : {
           Row{"memory: 1X", "4:13: memory: \"1X\" is no size"},
           Row{"memory: [1]", "4:13: memory: it has to be one value, not a list or a map"},
           Row{"memory: 16", "4:13: memory: \"16\" is not from 32M to"},
           Row{"cpus: 1.5", "4:11: cpus: \"1.5\" is no whole number from 1 to 64"},
           Row{"disk: 1", "4:11: disk: \"1\" is not from 16M to 16384G"},
           Row{"processes: many", "4:16: processes: \"many\" is no whole number"},
           Row{"ports: 80", "4:12: ports: it has to be a list; write [\"80\"]"},
           Row{"ports: {80: 80}", "4:12: ports: it has to be a list, with"},
           Row{"ports: [80, 80:x]", "4:17: ports: port \"80:x\" has \"x\" where a port from 1"},
           Row{"ports: [1:2, \"127.0.0.1:1:3\"]",
               "4:18: ports: \"127.0.0.1:1:3\" publishes the same"},
           Row{"volumes:\n  - ./a:/a\n  - ./b:/a/",
               "6:9: volumes: there is another volume at \"/a\""},
           Row{"volumes: [a:b]", "4:15: volumes: \"a:b\" says no place"},
           Row{"envs: [SECRET]", "4:12: envs: \"SECRET\" has no value; write SECRET=VALUE"},
           Row{"envs: {A: b}", "4:11: envs: it has to be a list"},
           Row{"envs: [null]", "4:12: envs: it is null; write it in quotation marks"},
           Row{"env_files: {}", "4:16: env_files: it has to be a list"},
           Row{"env_files: ['']", "4:17: env_files: \"\" is no path"},
           Row{"workdir: app", "4:14: workdir: \"app\" is no absolute path"},
           Row{"shell: bin/sh", "4:12: shell: \"bin/sh\" is neither"},
           Row{"user: a b", "4:11: user: \"a b\" is not USER[:GROUP]"},
           Row{"scripts: [a]", "4:14: scripts: it has to be a map"},
           Row{"scripts: {a/b: c}", "4:15: scripts: \"a/b\" is no name for a script"},
           Row{"scripts: {a: [b]}", "4:18: scripts: it has to be one value"},
           Row{"command: sleep 10", "4:14: command: it has to be a list of words"},
           Row{"command: ['', a]", "4:15: command: the program's name is empty"},
           Row{"command: [\"a\\0b\"]", "4:15: command: \"a\\x00b\" has a NUL character"},
           Row{"network: [deny any, public]",
               "4:25: network: the rule \"public\" begins neither with allow nor with deny"},
           Row{"scope: no", "4:12: scope: \"no\" is none of none, local, public and any"},
           Row{"timeout: 0", "4:14: timeout: \"0\" is not from 1s to 365d"},
           Row{"idle_timeout: soon", "4:19: idle_timeout: \"soon\" is no duration"},
           Row{"version: [1]", "4:14: version: it has to be one value"},
           Row{"meta: text", "4:11: meta: there have to be fields here"},
           Row{"imports: [a]", "4:14: imports: it has to be a map"},
           Row{"exports: {a: {}}", "4:18: exports: it has to be one value"},
       }) {
    CAPTURE(row.fields);
    const std::string error = field_error(row.fields);
    CHECK_MESSAGE(error.starts_with(std::string("Sandboxfile:") + row.error), error);
  }
  CHECK(error_of("sandboxes:\n  a:\n    image: A:x\n").starts_with("Sandboxfile:3:12: image: "));
}

TEST_CASE("names are short and serve as file names") {
  for (const std::string& name : {std::string("a/b"), std::string("..'"), std::string("\"a b\""),
                                  std::string("-a"), std::string(300, 'a'), std::string("\"\"")}) {
    CAPTURE(name);
    const std::string error = error_of(fmt::format("sandboxes:\n  {}:\n    image: a\n", name));
    CHECK_MESSAGE(error.starts_with("Sandboxfile:2:3: '"), error);
    CHECK(error.find("is no name for a sandbox") != std::string::npos);
  }
  CHECK(error_of("sandboxes:\n  123:\n    image: a\n  A_b-9: {image: b}\n") == "none");
}

TEST_CASE("dependencies are on others that are there, without circles or long chains") {
  const auto with = [](std::string_view dependencies) {
    return error_of(
        fmt::format("sandboxes:\n  web: {{image: a, depends_on: {}}}\n  worker: {{image: a, "
                    "depends_on: [web]}}\n",
                    dependencies));
  };
  CHECK(with("[wroker]") ==
        "Sandboxfile:2:32: depends_on names \"wroker\", which is no sandbox here; did you mean "
        "\"worker\"?");
  CHECK(with("[web]") == "Sandboxfile:2:32: \"web\" depends on itself");
  CHECK(with("[worker]") == "Sandboxfile:3:35: depends_on goes in a circle: web -> worker -> web");
  CHECK(error_of("sandboxes:\n  a: {image: x}\n  b: {image: x, depends_on: [a, a]}\n") ==
        "Sandboxfile:3:33: depends_on names \"a\" twice");
  const auto chain = [](int length) {
    std::string text = "sandboxes:\n  s0: {image: x}\n";
    for (int i = 1; i <= length; ++i) {
      text += fmt::format("  s{}: {{image: x, depends_on: [s{}]}}\n", i, i - 1);
    }
    return error_of(text);
  };
  CHECK(chain(32) == "none");
  CHECK(chain(33) == "Sandboxfile:35:32: \"s33\" depends on others over more than 32 steps");
}

TEST_CASE("no more than 256 sandboxes, 60 volumes and 64 ports are taken") {
  std::string text = "sandboxes:\n";
  for (int i = 0; i < 256; ++i) {
    text += fmt::format("  s{}: {{image: a}}\n", i);
  }
  CHECK(error_of(text) == "none");
  CHECK(error_of(text + "  t: {image: a}\n") ==
        "Sandboxfile:258:3: there are more than 256 sandboxes");
  std::string volumes = "volumes:";
  std::string ports = "ports:";
  for (int i = 0; i < 65; ++i) {
    volumes += fmt::format("\n  - ./a:/v{}", i);
    ports += fmt::format("\n  - {}:80", 1000 + i);
  }
  CHECK(field_error(volumes) == "Sandboxfile:65:9: volumes: there are more than 60 of them");
  CHECK(field_error(ports) == "Sandboxfile:69:9: ports: there are more than 64 of them");
}

}  // namespace
}  // namespace msb::sandbox
