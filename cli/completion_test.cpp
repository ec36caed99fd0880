// SPDX-License-Identifier: Apache-2.0
#include "cli/completion.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

namespace msb::cli {
namespace {

using Names = std::vector<std::string>;

// A command line of a few of msb's kinds of commands.
std::unique_ptr<CLI::App> small_app() {
  static std::string text;
  static Names texts;
  static bool flag = false;
  auto app = std::make_unique<CLI::App>("", "msb");
  app->set_version_flag("-V,--version", "1");
  const auto add = [&](const char* name) {
    CLI::App* command = app->add_subcommand(name);
    command->add_option("-f,--file", text)->type_name("PATH");
    return command;
  };
  CLI::App* run = add("run");
  run->alias("r");
  run->add_flag("-d,--detach", flag);
  run->add_option("--secret", text)->group("");
  run->add_option("name", text)->type_name("NAME[~SCRIPT]");
  CLI::App* stop = add("stop");
  stop->add_option("--format", text)->type_name("FORMAT");
  stop->add_option("-t,--timeout", text)->type_name("SECONDS");
  stop->add_option("name", texts)->type_name("NAME");
  CLI::App* copy = add("cp");
  copy->add_option("source", text)->type_name("[NAME:]PATH");
  copy->add_option("destination", text)->type_name("[NAME:]PATH");
  add("exe")->add_option("image", text)->type_name("IMAGE[~SCRIPT]");
  CLI::App* new_one = add("add");
  new_one->add_option("-i,--image", text)->type_name("IMAGE");
  new_one->add_option("name", texts)->type_name("NAME");
  CLI::App* image = app->add_subcommand("image");
  image->add_subcommand("remove")->add_option("image", texts)->type_name("IMAGE");
  image->add_subcommand("list");
  app->add_subcommand("__hidden")->group("");
  return app;
}

Names completed(const Names& words) {
  const auto names = [](NameSet set, const std::string& file, const std::string& sandbox) -> Names {
    switch (set) {
      case NameSet::kProject:
        return file.empty() ? Names{"web", "db"} : Names{"of-" + file};
      case NameSet::kRunning:
        return {"web", "other"};
      case NameSet::kImages:
        return {"alpine:3", "python:3.12"};
      case NameSet::kScripts:
        return {sandbox + "-test", "start", "x;reboot", "$(reboot)", "a b"};
      default:
        return {"everything"};
    }
  };
  return complete(*small_app(), words, names);
}

TEST_CASE("commands are completed, but for hidden ones") {
  CHECK(completed({"msb", "r"}) == Names{"run"});
  CHECK(completed({"msb", ""}) == Names{"add", "cp", "exe", "image", "run", "stop"});
  CHECK(completed({"msb", "__"}).empty());
  CHECK(completed({"msb", "image", ""}) == Names{"list", "remove"});
  CHECK(completed({"msb"}).empty());
  CHECK(completed({}).empty());
}

TEST_CASE("options are completed, but for hidden ones") {
  CHECK(completed({"msb", "run", "--"}) == Names{"--detach", "--file", "--help"});
  CHECK(completed({"msb", "run", "-d", "--f"}) == Names{"--file"});
  CHECK(completed({"msb", "--v"}) == Names{"--version"});
  CHECK(completed({"msb", "nonsense", "--v"}) == Names{"--version"});
}

TEST_CASE("names are those that the command takes") {
  CHECK(completed({"msb", "run", "w"}) == Names{"web"});
  CHECK(completed({"msb", "r", ""}) == Names{"db", "web"});
  CHECK(completed({"msb", "stop", "web", ""}) == Names{"other", "web"});
  CHECK(completed({"msb", "run", "web", ""}).empty());
  CHECK(completed({"msb", "add", ""}).empty());
  CHECK(completed({"msb", "image", "remove", "p"}) == Names{"python:3.12"});
  CHECK(completed({"/usr/bin/msx", "alp"}) == Names{"alpine:3"});
}

TEST_CASE("the Sandboxfile that was named is the one that is looked into") {
  CHECK(completed({"msb", "run", "-f", "x", ""}) == Names{"of-x"});
  CHECK(completed({"msb", "run", "--file=x", "o"}) == Names{"of-x"});
}

TEST_CASE("values of options are completed where they are known") {
  CHECK(completed({"msb", "stop", "--format", ""}) == Names{"json", "table"});
  CHECK(completed({"msb", "stop", "--format=j"}) == Names{"--format=json"});
  CHECK(completed({"msb", "add", "--image", "py"}) == Names{"python:3.12"});
  CHECK(completed({"msb", "stop", "-t", ""}).empty());
  CHECK(completed({"msb", "stop", "-t", "5", "o"}) == Names{"other"});
}

TEST_CASE("scripts come behind a tilde, but for those whose names a shell would run") {
  CHECK(completed({"msb", "run", "web~"}) == Names{"web~start", "web~web-test"});
  CHECK(completed({"msb", "run", "web~s"}) == Names{"web~start"});
}

TEST_CASE("cp takes names of what runs, with a colon, or files") {
  CHECK(completed({"msb", "cp", "w"}) == Names{"web:"});
  CHECK(completed({"msb", "cp", "./x", ""}) == Names{"other:", "web:"});
  CHECK(completed({"msb", "cp", "a", "b", ""}).empty());
  CHECK(completed({"msb", "cp", "web:/e"}).empty());
}

TEST_CASE("what is behind -- is somebody else's") {
  CHECK(completed({"msb", "run", "web", "--", ""}).empty());
  CHECK(completed({"msb", "run", "web", "--", "--f"}).empty());
}

TEST_CASE("there are scripts for three shells") {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    REQUIRE(completion_script(shell));
    CHECK(completion_script(shell)->find("msb __complete") != std::string_view::npos);
  }
  CHECK_FALSE(completion_script("tcsh"));
}

}  // namespace
}  // namespace msb::cli
