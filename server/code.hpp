// SPDX-License-Identifier: Apache-2.0
// Code in the interpreters of one sandbox: sessions by language and name, each of which runs one
// piece of code at a time. The guest keeps a session when it is let go, which happens after a few
// idle seconds, so that a sandbox with an idle time-out can end, and that the next server finds it.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "protocol/interpreters/client_session_host.hpp"
#include "protocol/interpreters/interpreter.hpp"
#include "protocol/interpreters/session_list.hpp"
#include "server/async.hpp"
#include "server/guest.hpp"
#include "server/problem.hpp"

namespace msb::server {

// What a run says, one after the other. The last one is a RunOutcome or a Problem.
struct CodeOutput {
  bool error = false;  // of standard error
  std::string text;
};
struct CodeValue {
  bool result = false;  // the value of the last expression, else one that the code shows
  std::map<std::string, std::string, std::less<>> data;  // as in docs/interpreters.md
};
using CodeEvent =
    std::variant<CodeOutput, CodeValue, protocol::RunError, protocol::RunOutcome, Problem>;

struct CodeWords {
  protocol::Language language = protocol::Language::kPython;
  std::string session = "main";
  std::string code;
  std::chrono::milliseconds timeout{0};  // 0: none
};

// One run of code, from when it is asked for. Destroying it interrupts the code; the session goes
// on.
class CodeRun {
 public:
  // More than this of output and values that nobody has taken yet is dropped.
  static constexpr std::size_t kHeld = std::size_t{48} << 20;

  CodeRun(CodeRun&&) = default;
  CodeRun& operator=(CodeRun&&) = delete;
  ~CodeRun();

  Async<CodeEvent> next();
  // Asks the code to end, as a time-out does.
  void interrupt();
  // Whether something was dropped.
  [[nodiscard]] bool cut() const;

 private:
  friend class CodeSessions;
  struct State;
  explicit CodeRun(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

class CodeSessions {
 public:
  struct Session;
  using Place = std::pair<protocol::Language, std::string>;

  CodeSessions(asio::any_io_executor executor, std::shared_ptr<const Guest> guest);
  CodeSessions(const CodeSessions&) = delete;
  CodeSessions& operator=(const CodeSessions&) = delete;
  ~CodeSessions();

  // Starts the interpreter, takes the session up again where there is one, and waits for its turn
  // among those that want the same session. Fails with kFull when too many do.
  Async<Outcome<CodeRun>> run(CodeWords words);
  // Ends one: kNotFound when there is none.
  Async<Outcome<void>> close(protocol::Language language, const std::string& name);
  // Interrupts what runs in one of this server's: kNotFound when nothing does.
  Outcome<void> interrupt(protocol::Language language, const std::string& name);
  // All of the sandbox, whoever started them.
  Async<Outcome<std::vector<protocol::ListedSession>>> list() const;

 private:
  Async<Outcome<void>> open(std::shared_ptr<Session> session);
  Outcome<std::unique_ptr<protocol::Interpreter>> make(
      const Place& place, const std::vector<protocol::ListedSession>& listed,
      const protocol::Interpreter::Ready& ready);
  std::shared_ptr<Session> find(const Place& place);
  static void let_go_later(const asio::any_io_executor& executor,
                           const std::shared_ptr<Session>& session);

  asio::any_io_executor executor_;
  std::shared_ptr<const Guest> guest_;
  protocol::ClientSessionHost host_;
  std::map<Place, std::shared_ptr<Session>> sessions_;
};

}  // namespace msb::server
