// SPDX-License-Identifier: Apache-2.0
// Declares the commands about images and registries.
#include <functional>
#include <string>
#include <vector>

#include "cli/archives.hpp"
#include "cli/command_line.hpp"
#include "cli/images.hpp"
#include "cli/login.hpp"
#include "cli/pull.hpp"

namespace msb::cli {
namespace {

// What the command line says.
struct Words {
  std::function<void(std::function<Result<void>()>)> run;  // leaves what the command will do
  Format format = Format::kTable;
  PullOptions pull;
  LoadOptions load;
  SaveOptions save;
  LoginOptions login;
  std::vector<std::string> references;
  std::string reference;
  bool whole = false;
  PruneWords prune;
};

void add_references(CLI::App& command, std::vector<std::string>& references) {
  command.add_option("image", references, "References, or first digits of digests")
      ->required()
      ->type_name("IMAGE");
}

void add_pull(CLI::App& app, Words& words) {
  CLI::App* pull = app.add_subcommand("pull", "Pull images from registries.");
  pull->add_flag("-q,--quiet", words.pull.quiet, "Show no progress");
  pull->add_flag("--insecure", words.pull.insecure,
                 "Speak to the registry without verified TLS, or without TLS where it has none");
  pull->add_option("--timeout", words.pull.timeout, "How long a registry may send nothing")
      ->type_name("SECONDS")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  pull->add_option("--errors", words.pull.errors)->group("");  // for fetch_image()
  pull->add_option("--report", words.pull.report)->group("");  // for the server
  add_format(*pull, words.pull.format);
  pull->add_option("image", words.pull.references, "References, for example python:3.12-slim")
      ->required()
      ->type_name("IMAGE");
  add_examples(*pull,
               "  msb pull python:3.12-slim\n"
               "  msb pull --quiet alpine redis:7\n"
               "  msb pull --insecure localhost:5000/shop:1");
  pull->callback([&] { words.run([&] { return cli::pull(words.pull); }); });
}

void add_store_commands(CLI::App& app, Words& words) {
  CLI::App* image = app.add_subcommand("image", "See and remove the images that are here.");
  image->require_subcommand(1);
  add_examples(*image,
               "  msb image list\n"
               "  msb image history python:3.12-slim\n"
               "  msb image prune");

  CLI::App* list = image->add_subcommand("list", "List them.")->alias("ls");
  add_format(*list, words.format);
  add_examples(*list, "  msb image list\n  msb image list --format json");
  list->callback([&] { words.run([&] { return list_images(words.format); }); });

  CLI::App* inspect = image->add_subcommand("inspect", "Show all about images, as JSON.");
  add_format(*inspect, words.format);
  add_references(*inspect, words.references);
  add_examples(*inspect, "  msb image inspect alpine\n  msb image inspect alpine redis:7");
  inspect->callback([&] { words.run([&] { return inspect_images(words.references); }); });

  CLI::App* history = image->add_subcommand("history", "Show how an image was made.");
  add_format(*history, words.format);
  history->add_flag("--no-trunc", words.whole, "Show commands in full");
  history->add_option("image", words.reference, "Reference, or first digits of a digest")
      ->required()
      ->type_name("IMAGE");
  add_examples(*history,
               "  msb image history alpine\n"
               "  msb image history --no-trunc python:3.12-slim");
  history->callback(
      [&] { words.run([&] { return show_history(words.reference, words.whole, words.format); }); });

  CLI::App* remove = image->add_subcommand("remove", "Remove images.")->alias("rm");
  add_format(*remove, words.format);
  add_references(*remove, words.references);
  add_examples(*remove, "  msb image remove alpine\n  msb image remove alpine redis:7");
  remove->callback(
      [&] { words.run([&] { return remove_images(words.references, words.format); }); });

  CLI::App* prune = image->add_subcommand(
      "prune", "Remove images without a name, and files that belong to no image.");
  add_format(*prune, words.format);
  prune->add_flag("-a,--all", words.prune.all, "Also images with a name that no sandbox uses");
  prune->add_flag("--dry-run", words.prune.dry_run, "Only say what would be removed");
  add_examples(*prune, "  msb image prune\n  msb image prune --all --dry-run");
  prune->callback([&] { words.run([&] { return prune_images(words.prune, words.format); }); });
}

void add_archive_commands(CLI::App& app, Words& words) {
  CLI::App* load = app.add_subcommand(
      "load",
      "Load images from an archive of `docker save` or an OCI layout, as tar or directory.");
  load->add_option("-i,--input", words.load.input,
                   "The archive, a layout or LAYOUT:TAG, or - for standard input")
      ->required()
      ->type_name("FILE");
  load->add_option("--name", words.load.name, "Name the image so, not as the archive does")
      ->type_name("REFERENCE");
  load->add_flag("-q,--quiet", words.load.quiet, "Show no progress");
  add_format(*load, words.load.format);
  add_examples(*load,
               "  msb load -i alpine.tar\n"
               "  docker save alpine | msb load -i -\n"
               "  msb load -i ./layout:latest --name shop:1");
  load->callback([&] { words.run([&] { return cli::load(words.load); }); });

  CLI::App* save = app.add_subcommand("save", "Save images as an archive.");
  save->add_option("-o,--output", words.save.output, "The archive, or - for standard output")
      ->required()
      ->type_name("FILE");
  add_choice(
      *save, "--type", words.save.kind,
      {{"oci-archive", oci::ArchiveKind::kOci}, {"docker-archive", oci::ArchiveKind::kDocker}},
      "oci-archive (the default; keeps every digest) or docker-archive")
      ->type_name("TYPE");
  add_references(*save, words.save.references);
  add_examples(*save,
               "  msb save -o alpine.tar alpine\n"
               "  msb save -o images.tar --type docker-archive alpine redis:7\n"
               "  msb save -o - alpine | gzip > alpine.tar.gz");
  save->callback([&] { words.run([&] { return cli::save(words.save); }); });
}

void add_login_commands(CLI::App& app, Words& words) {
  CLI::App* login = app.add_subcommand("login", "Log in to a registry.");
  login->add_option("-u,--user,--username", words.login.user, "User name; asked for otherwise")
      ->type_name("USER");
  login->add_flag("--password-stdin", words.login.password_from_input,
                  "Read the password from standard input");
  login->add_flag("--insecure", words.login.insecure,
                  "Speak to the registry without verified TLS, or without TLS where it has none");
  login->add_option("registry", words.login.registry, "Host, or host:port; Docker Hub otherwise")
      ->type_name("REGISTRY");
  add_examples(*login,
               "  msb login\n"
               "  msb login ghcr.io\n"
               "  msb login --user me --password-stdin localhost:5000 < password.txt");
  login->callback([&] { words.run([&] { return cli::login(words.login); }); });

  CLI::App* logout = app.add_subcommand("logout", "Forget the password for a registry.");
  logout->add_option("registry", words.login.registry, "Host, or host:port; Docker Hub otherwise")
      ->type_name("REGISTRY");
  add_examples(*logout, "  msb logout\n  msb logout ghcr.io");
  logout->callback([&] { words.run([&] { return cli::logout(words.login.registry); }); });
}

}  // namespace

void add_image_commands(CLI::App& app, Invocation& invocation) {
  static Words words;
  words.run = [&invocation](std::function<Result<void>()> action) {
    invocation.action = succeeding(std::move(action));
  };
  add_pull(app, words);
  add_store_commands(app, words);
  add_archive_commands(app, words);
  add_login_commands(app, words);
}

}  // namespace msb::cli
