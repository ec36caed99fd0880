// SPDX-License-Identifier: Apache-2.0
// Running code and commands to their end, and what they gave as one document in the shapes of the
// 0.2 line: for the interfaces that answer when it is all there.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/msb_exec.h"
#include "server/async.hpp"
#include "server/code.hpp"
#include "server/exchange.hpp"
#include "server/keys.hpp"
#include "server/problem.hpp"
#include "server/sandboxes.hpp"

namespace msb::server {

// Gets output as it comes; may be empty.
using OnText = std::function<void(std::string_view)>;

// The namespace that a client means when it names none: its key's, where that is for one alone.
std::string default_space(const Key& key);

// The sandbox of a call that runs something in it, or writes: find_running(), but for keys that are
// read-only.
Outcome<Served> find_usable(const Sandboxes& sandboxes, const Key& key, const std::string& space,
                            const std::string& name);

// A language as clients write it: also "nodejs", which the 0.2 line knows.
Outcome<protocol::Language> code_language(std::string_view word);

struct CodeResult {
  // {"status": "success" | "error", "language", "output": [{"stream", "text"}, ...]}: an element
  // for each line, without its end and in order; values as lines of "stdout", by their text/plain,
  // and an error's traceback as lines of "stderr". "exit_code" where a shell had one, or the code
  // asked to exit with one; "truncated": true when there was more output than OutputLines keeps.
  Json document;
  std::vector<CodeValue> values;  // in the order in which they were shown
};

// Of a sandbox that find_usable() gave. Fails with kTimeout when the time-out is over. Cancelling
// it interrupts the code.
Async<Outcome<CodeResult>> run_code(Served served, CodeWords words, OnText on_text);

struct CommandWords {
  std::string command;  // looked for along PATH when it has no slash
  std::vector<std::string> args;
  std::vector<std::string> envs;  // NAME=VALUE, beside the sandbox's own
  std::string workdir;            // absolute; empty: the sandbox's own, as is the next
  std::string user;
  std::chrono::milliseconds timeout{0};  // 0: none
};

// {"command", "args", "exit_code", "success", "output"}, the latter as above. A command that a
// signal ended has 128 + its number as exit code, and "signal"; "out_of_memory": true says why.
// Fails with kTimeout when the time-out is over: it is killed then, as it is when this is
// cancelled.
Async<Outcome<Json>> run_command(Served served, CommandWords words, OnText on_text);

// What each of them uses. Its agent has five seconds to say so.
Async<std::vector<Outcome<Usage>>> measure_all(Sandboxes& sandboxes, std::vector<Served> all);

// {"sandboxes": [{"namespace", "name", "running", "cpu_usage", "memory_usage", "disk_usage"}]}, in
// percent of one processor, MiB and bytes; null where it is not known. `space` empty or "*": all
// that the key may see. `name` empty: all in there.
Async<Outcome<Json>> metrics_result(Sandboxes& sandboxes, Key key, std::string space,
                                    std::string name);

// The lines of what is written to two streams, in the order of their ends, as long as there is
// room. Pure; the bytes are the guest's.
class OutputLines {
 public:
  static constexpr std::size_t kMost = std::size_t{16} << 20;     // bytes, as indented JSON
  static constexpr std::size_t kReserved = std::size_t{1} << 20;  // the same, of add_reserved()

  void add(msb_stream stream, std::string_view bytes);
  // Lines of their own, also where the stream is in the middle of one.
  void add_apart(msb_stream stream, std::string_view text);
  // The same, of what has to be told however much there was before.
  void add_reserved(msb_stream stream, std::string_view text);
  // What has no end is a line, too. To be called once, at last.
  Json take();
  // Whether there was more.
  [[nodiscard]] bool truncated() const { return truncated_; }

 private:
  void end_line(msb_stream stream);

  Json lines_ = Json::array();
  std::array<std::string, 2> parts_;  // of lines that have no end yet
  std::size_t room_ = kMost;
  bool truncated_ = false;
};

}  // namespace msb::server
