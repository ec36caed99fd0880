// SPDX-License-Identifier: Apache-2.0
// Declares the commands of the server.
#include <string>

#include "cli/command_line.hpp"
#include "cli/server.hpp"

namespace msb::cli {
namespace {

// What the command line says.
struct Words {
  ServerWords start;
  KeygenWords keygen;
  ServerLogWords log;
  Format format = Format::kTable;
  std::string id;
  std::string name;
  std::string space{"default"};
};

void add_start(CLI::App& server, Words& words, Invocation& invocation) {
  CLI::App* start = server.add_subcommand("start", "Start it: in the foreground, or with -d.");
  start->add_option("--host", words.start.serve.host, "The address to listen on")
      ->type_name("ADDRESS")
      ->capture_default_str();
  start->add_option("--port", words.start.serve.port, "The port; 0 takes one that is free")
      ->type_name("PORT")
      ->capture_default_str();
  start
      ->add_option("-p,--path", words.start.serve.project,
                   "A project, whose Sandboxfile's sandboxes clients may start by name")
      ->type_name("DIRECTORY");
  start->add_flag("--dev", words.start.serve.dev, "Ask for no key; on loopback only");
  start->add_option("-k,--key", words.start.serve.key, "Also take this key, as long as it runs")
      ->type_name("KEY");
  start->add_flag("-d,--detach", words.start.detach, "Go on in the background");
  start->add_flag("-r,--reset-key", words.start.reset_key, "Revoke all keys first");
  start->add_option("--ready", words.start.serve.ready)->group("");  // for start_in_background()
  add_examples(*start,
               "  msb server start --dev\n"
               "  msb server start --detach\n"
               "  msb server start --host 0.0.0.0 --port 8443 --path ~/shop");
  start->callback([&] { invocation.action = [&] { return start_server(words.start); }; });
}

void add_state(CLI::App& server, Words& words, Invocation& invocation) {
  CLI::App* stop = server.add_subcommand("stop", "Stop it. Its sandboxes go on.");
  add_examples(*stop, "  msb server stop");
  stop->callback([&] { invocation.action = succeeding(stop_server); });

  CLI::App* status = server.add_subcommand("status", "Whether it runs, and where.");
  add_format(*status, words.format);
  add_examples(*status, "  msb server status\n  msb server status --format json");
  status->callback([&] { invocation.action = [&] { return show_server(words.format); }; });

  CLI::App* log = server.add_subcommand("log", "What one in the background has logged.");
  log->add_flag("-F,--follow", words.log.follow, "Go on with what comes");
  log->add_option("-t,--tail", words.log.tail, "So many lines from the end")
      ->type_name("LINES")
      ->check(CLI::Range(0, 1'000'000));
  add_examples(*log, "  msb server log --tail 20\n  msb server log --follow");
  log->callback([&] { invocation.action = [&] { return show_server_log(words.log); }; });

  CLI::App* list = server.add_subcommand("list", "Its sandboxes.")->alias("ls");
  add_format(*list, words.format);
  add_examples(*list, "  msb server list");
  list->callback(
      [&] { invocation.action = succeeding([&] { return list_served(words.format); }); });

  CLI::App* remove =
      server.add_subcommand("remove", "Remove what a sandbox of it has kept.")->alias("rm");
  remove->add_option("-n,--namespace", words.space, "The sandbox's namespace")
      ->type_name("NAMESPACE")
      ->capture_default_str();
  remove->add_option("name", words.name, "The sandbox")->required()->type_name("NAME");
  add_examples(*remove, "  msb server remove test");
  remove->callback([&] {
    invocation.action = succeeding([&] { return remove_served(words.name, words.space); });
  });
}

void add_keys(CLI::App& server, Words& words, Invocation& invocation) {
  CLI::App* keygen = server.add_subcommand("keygen", "Make a key, and print it.");
  KeygenWords& key = words.keygen;
  keygen->add_option("--expire", key.expire, "How long it is valid; for ever unless said")
      ->type_name("1s|2m|3h|4d|5w|6mo|7y");
  keygen->add_option("-n,--namespace", key.space, "The only namespace that it is for")
      ->type_name("NAMESPACE");
  keygen->add_option("--name", key.name, "What the list of keys calls it")->type_name("TEXT");
  keygen->add_flag("--read-only", key.read_only, "It may look, and change nothing");
  keygen->add_option("--max-sandboxes", key.max_sandboxes, "How many of its sandboxes may run")
      ->type_name("N")
      ->check(CLI::Range(1, 100'000));
  keygen->add_option("--max-memory", key.max_memory, "Memory of all of them together")
      ->type_name("MiB");
  keygen->add_option("--max-lifetime", key.max_lifetime, "How long each may run")
      ->type_name("TIME");
  add_format(*keygen, words.format);
  add_examples(*keygen,
               "  msb server keygen\n"
               "  msb server keygen --name ci --expire 4w --namespace ci\n"
               "  msb server keygen --read-only\n"
               "  msb server keygen --max-sandboxes 4 --max-memory 4G --max-lifetime 1h");
  keygen->callback([&] {
    invocation.action = succeeding([&] { return make_key(words.keygen, words.format); });
  });

  CLI::App* keys = server.add_subcommand("keys", "The keys that there are.");
  add_format(*keys, words.format);
  add_examples(*keys, "  msb server keys");
  keys->callback([&] { invocation.action = succeeding([&] { return list_keys(words.format); }); });

  CLI::App* revoke = server.add_subcommand("revoke", "Make a key invalid, at once.");
  revoke->add_option("id", words.id, "The key's id, which `msb server keys` shows")
      ->required()
      ->type_name("ID");
  add_examples(*revoke, "  msb server revoke 4f9a01c2");
  revoke->callback([&] { invocation.action = succeeding([&] { return revoke_key(words.id); }); });
}

}  // namespace

void add_server_commands(CLI::App& app, Invocation& invocation) {
  static Words words;
  CLI::App* server =
      app.add_subcommand("server", "A service by which programs and AI agents use sandboxes.");
  server->require_subcommand(1);
  add_examples(*server,
               "  msb server start\n"
               "  msb server keygen\n"
               "  msb server status");
  add_start(*server, words, invocation);
  add_state(*server, words, invocation);
  add_keys(*server, words, invocation);

  CLI::App* mcp = app.add_subcommand(
      "mcp", "Serve an AI agent on standard input and output (Model Context Protocol).");
  add_examples(*mcp, "  msb mcp");
  mcp->callback([&] { invocation.action = serve_mcp; });
}

}  // namespace msb::cli
