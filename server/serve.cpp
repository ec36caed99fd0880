// SPDX-License-Identifier: Apache-2.0
#include "server/serve.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <optional>
#include <utility>

#include "base/home.hpp"
#include "sandbox/project.hpp"
#include "server/app.hpp"
#include "server/http_server.hpp"
#include "server/mcp.hpp"
#include "server/mcp_http.hpp"
#include "server/mcp_stdio.hpp"
#include "server/presence.hpp"

namespace msb::server {

namespace {

// What blocks: starts, stops, the store. Most of it waits for other processes.
constexpr std::size_t kThreads = 24;
constexpr std::chrono::seconds kDrainPatience{30};

// All that an interface needs. It is never destroyed: coroutines that are suspended still refer to
// it when the process ends.
struct Ground {
  explicit Ground(std::string its) : home(std::move(its)) {}

  const std::string home;  // $MSB_HOME
  asio::io_context io{1};
  std::unique_ptr<AsioIo> guests;
  std::optional<Workers> workers;
  std::optional<Sandboxes> sandboxes;
  std::optional<App> app;
  std::optional<Keys> keys;
  std::optional<McpSessions> sessions;
  std::optional<HttpServer> http;
  RequestLog log{io, STDERR_FILENO, home};

  Result<void> prepare(const std::string& project) {
    const auto path = server_settings_path();
    auto settings =
        path ? load_server_settings(*path) : Result<Settings>(std::unexpected(path.error()));
    if (!settings) {
      return std::unexpected(settings.error());
    }
    auto keeper = Keeper::begin(home);
    if (!keeper) {
      return std::unexpected(keeper.error());
    }
    auto made = AsioIo::create(io);
    if (!made) {
      return std::unexpected(made.error());
    }
    guests = std::move(*made);
    workers.emplace(io, kThreads);
    sandboxes.emplace(io, *guests, *workers,
                      Sandboxes::Options{home, project, std::move(*settings), std::move(*keeper)});
    app.emplace(io, *sandboxes);
    app->log = &log;
    sessions.emplace(*app);
    return {};
  }
};

std::string url_of(const asio::ip::tcp::endpoint& endpoint) {
  const auto address = endpoint.address();
  const bool six = address.is_v6();
  return fmt::format("http://{}{}{}:{}", six ? "[" : "", address.to_string(), six ? "]" : "",
                     endpoint.port());
}

void tell(int ready, const std::string& url) {
  const std::string line = fmt::format("ready {}\n", url);
  if (ready >= 0) {
    // Whoever started us may have gone, and then nobody wants to know.
    [[maybe_unused]] const ssize_t written = ::write(ready, line.data(), line.size());
    ::close(ready);
  }
}

// As many descriptors as this process may have: shells give 1024, which are fewer than the
// connections that are taken (HttpLimits). What it starts may have as many.
void take_all_descriptors(RequestLog& log) {
  rlimit files{};
  bool raised = ::getrlimit(RLIMIT_NOFILE, &files) == 0;
  files.rlim_cur = files.rlim_max;
  raised = raised && ::setrlimit(RLIMIT_NOFILE, &files) == 0;
  if (!raised || files.rlim_max < HttpLimits().connections) {
    log.write("warning",
              fmt::format("there are descriptors for {} connections at the most; `ulimit "
                          "-Hn` says how many a process may have",
                          files.rlim_max));
  }
}

// Until a signal says that it is enough.
Async<int> run(Ground& ground) {
  asio::co_spawn(ground.io, ground.http->run(), Unattended());
  asio::signal_set signals(ground.io, SIGTERM, SIGINT);
  boost::system::error_code error;
  co_await signals.async_wait(asio::redirect_error(asio::use_awaitable, error));
  ground.log.write("info", "draining");
  const auto deadline = Signal::Clock::now() + kDrainPatience;
  ground.app->draining = true;
  ground.http->stop();
  ground.app->drain.notify();
  co_await ground.sessions->end_all(deadline);
  const bool drained = co_await ground.http->drained(deadline);
  ground.log.write("info", drained ? "ended" : "ended with requests under way");
  ground.log.flush();
  co_return 0;
}

Async<int> adopt(Ground& ground) {
  std::vector<std::string> notices;
  co_await ground.sandboxes->adopt(notices);
  for (const std::string& notice : notices) {
    ground.log.write("warning", notice);
  }
  co_return 0;
}

// Runs a coroutine to its end.
Result<int> run_to_end(Ground& ground, Async<int> work) {
  std::optional<int> status;
  std::exception_ptr mistake;
  asio::co_spawn(ground.io, std::move(work), [&](std::exception_ptr error, int result) {
    mistake = std::move(error);
    status = result;
    ground.io.stop();
  });
  while (!status) {
    try {
      ground.io.restart();
      ground.io.run();
    } catch (const std::exception& error) {
      // Of what nobody waits for: the others go on.
      ground.log.write("error", error.what());
    }
  }
  if (mistake) {
    try {
      std::rethrow_exception(mistake);
    } catch (const std::exception& error) {
      return fail("the server ended by a mistake of its own: {}", error.what());
    }
  }
  return *status;
}

}  // namespace

Result<int> serve(const ServeOptions& options) {
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  const auto presence = Presence::take(*home);
  if (!presence) {
    return std::unexpected(presence.error());
  }
  std::string project;
  if (!options.project.empty()) {
    const auto file = sandbox::find_sandboxfile(options.project);
    const auto opened = file && *file
                            ? sandbox::open_project(**file)
                            : Result<sandbox::Project>(std::unexpected(
                                  file ? Error{"there is no Sandboxfile", 0} : file.error()));
    if (!opened) {
      return std::unexpected(opened.error().within("--path " + options.project));
    }
    project = opened->directory;
  }
  Ground& ground = *std::make_unique<Ground>(*home).release();
  if (auto prepared = ground.prepare(project); !prepared) {
    return std::unexpected(prepared.error());
  }
  ground.keys.emplace(server_folder(*home) + "/keys.json");
  if (!options.key.empty()) {
    if (auto taken = ground.keys->accept(options.key); !taken) {
      return std::unexpected(taken.error());
    }
  }
  take_all_descriptors(ground.log);
  App& app = *ground.app;
  McpSessions& sessions = *ground.sessions;
  const Settings& settings = ground.sandboxes->settings();
  HttpServer& http = ground.http.emplace(
      app, HttpAccess{options.dev ? nullptr : &*ground.keys, settings.hosts, settings.origins},
      HttpLimits(), ground.log);
  http.serve("api", [&app](Exchange& exchange) { return serve_rpc(app, exchange); });
  http.serve("v1", [&app](Exchange& exchange) { return serve_v1(app, exchange); });
  http.serve("mcp",
             [&app, &sessions](Exchange& exchange) { return serve_mcp(app, sessions, exchange); });
  const auto endpoint = http.listen(options.host, options.port);
  if (!endpoint) {
    return std::unexpected(endpoint.error());
  }
  if (options.dev && !endpoint->address().is_loopback()) {
    return fail("--dev asks for no key, and {} can be reached by other machines: use 127.0.0.1",
                endpoint->address().to_string());
  }
  // Those who connect meanwhile wait for it.
  if (auto adopted = run_to_end(ground, adopt(ground)); !adopted) {
    return adopted;
  }
  const std::string url = url_of(*endpoint);
  if (auto announced = presence->announce(url, options.dev); !announced) {
    return std::unexpected(announced.error());
  }
  ground.log.write("info", "listening at " + url);
  tell(options.ready, url);
  return run_to_end(ground, run(ground));
}

Result<int> serve_mcp_on_stdio() {
  const auto home = home_directory();
  if (!home) {
    return std::unexpected(home.error());
  }
  Ground& ground = *std::make_unique<Ground>(*home).release();
  if (auto prepared = ground.prepare(""); !prepared) {
    return std::unexpected(prepared.error());
  }
  const auto work = [](Ground& all) -> Async<int> {
    co_await adopt(all);
    Key everything;
    co_await serve_stdio(*all.app, std::move(everything));
    co_return 0;
  };
  return run_to_end(ground, work(ground));
}

}  // namespace msb::server
