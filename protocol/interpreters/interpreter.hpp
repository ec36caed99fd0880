// SPDX-License-Identifier: Apache-2.0
// A session of an interpreter in a guest: code runs in it piece by piece and finds what earlier
// pieces left. docs/interpreters.md says what a session keeps, and what an interrupt can reach.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "protocol/interpreters/language.hpp"
#include "protocol/interpreters/session_message.hpp"
#include "protocol/interpreters/session_process.hpp"

namespace msb::protocol {

// A value of the session, shown by the code or as its last expression.
struct Representations {
  const std::map<std::string, std::string, std::less<>>& data;  // as in SessionMessage
  const std::map<std::string, std::uint64_t, std::less<>>& cut;
};

struct RunError {
  std::string name;
  std::string message;
  std::vector<std::string> traceback;
  std::optional<std::uint32_t>
      exit;  // the code asked to exit with this status; the session goes on
};

struct RunOutcome {
  enum class Kind {
    kDone,         // also after an error, which was reported
    kInterrupted,  // it ended after interrupt() or its timeout
    kStuck,        // it did not end within the grace after that: only restart() helps, or patience
    kEnded         // the session's process ended with it, or the connection to it
  };
  Kind kind = Kind::kDone;
  bool timed_out = false;               // its timeout was over
  bool failed = false;                  // an error was reported, or the status is not 0
  std::optional<std::uint32_t> status;  // of a shell: exit status
  std::optional<std::uint32_t> exit;    // as in RunError
  std::string reason;                   // kStuck, kEnded: one sentence
};

// All optional. None is called inside run(). Each but `done` may be called many times.
struct RunCallbacks {
  std::function<void(std::string_view)> output;  // standard output, while the run is under way
  std::function<void(std::string_view)> error_output;
  std::function<void(const Representations&)> display;
  std::function<void(const Representations&)> result;
  std::function<void(const RunError&)> error;
  std::function<void(const RunOutcome&)> done;  // exactly once, last
};

struct SessionSpec {
  Language language = Language::kPython;
  std::string name;
  std::string user;
  std::string directory = "/";
  std::vector<std::string> variables;
  std::chrono::milliseconds start_timeout{180'000};
  std::chrono::milliseconds grace{2'000};  // for a run to end after it was interrupted

  // What comes outside runs: of threads, tasks, background jobs. Optional.
  std::function<void(std::string_view)> output;
  std::function<void(std::string_view)> error_output;
  std::function<void(const Representations&)> display;
  // The session's process ended, or cannot be spoken with any more; also while a run is under way,
  // after its `done`. Not after close(). Optional.
  std::function<void(const SessionEnd&)> ended;
};

// Used on the loop's thread. Destroying it lets go of the session, which goes on in the guest; that
// may happen inside a callback. `host` must outlive it.
//
//   auto session = Interpreter::open(host, {.language = Language::kPython, .name = "main"},
//                                    [&](Result<std::string> version) { … });
//   (*session)->run("1 + 1", 10s, {.result = …, .done = …});
class Interpreter {
 public:
  // Called once the interpreter answers: with its version, or with why it cannot be used.
  using Ready = std::function<void(Result<std::string>)>;

  // Fails when the name is not one, or the process cannot be asked for.
  static Result<std::unique_ptr<Interpreter>> open(SessionHost& host, SessionSpec spec,
                                                   Ready ready);
  // Takes over a session that this or another host process started: `process` is its id, and its
  // label gives `spec` the language and the name. What earlier runs still say is passed over. Ready
  // comes when a run that is under way has ended; interrupt() works meanwhile.
  static Result<std::unique_ptr<Interpreter>> attach(SessionHost& host, SessionSpec spec,
                                                     std::uint32_t process, Ready ready);
  ~Interpreter();

  // Fails when the session is not ready, has a run under way or has ended, and when encode_run()
  // refuses the code. `timeout` zero: none.
  Result<void> run(std::string_view code, std::chrono::milliseconds timeout,
                   RunCallbacks callbacks);
  // Asks the run that is under way to end; nothing without one.
  void interrupt();
  // Kills the process and starts another, with nothing of the old one's state. A run that is under
  // way ends as kEnded, inside this call.
  Result<void> restart(Ready ready);
  // Asks the interpreter to end, and kills it when it has not within the grace.
  void close(std::function<void()> closed);

  enum class State { kStarting, kIdle, kRunning, kStuck, kClosing, kEnded };
  [[nodiscard]] State state() const;

 private:
  class Session;
  explicit Interpreter(std::shared_ptr<Session> session);
  std::shared_ptr<Session> session_;
};

}  // namespace msb::protocol
