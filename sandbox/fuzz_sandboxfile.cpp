// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: the text of a Sandboxfile. Whatever it is, it becomes sandboxes within their
// limits, or one line that says what is wrong; and changes to it leave the rest as it is. Seeds:
// tests/corpus/sandboxfile.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "sandbox/dependency_order.hpp"
#include "sandbox/sandboxfile.hpp"
#include "sandbox/sandboxfile_edit.hpp"

namespace {

using namespace msb;
using namespace msb::sandbox;

void require(bool condition, const char* what) {
  if (!condition) {
    std::fprintf(stderr, "%s\n", what);
    std::abort();
  }
}

SandboxSpec some_spec() {
  SandboxSpec spec;
  spec.image = "python:3.12";
  spec.ports = {"8080:80"};
  spec.scripts = {{"start", "echo a\necho b\n"}};
  return spec;
}

bool same(const Sandboxfile& a, const Sandboxfile& b) {
  return std::ranges::equal(a.sandboxes, b.sandboxes, [](const auto& left, const auto& right) {
    return left.name == right.name && left.spec == right.spec;
  });
}

void check_add(const std::string& text, Sandboxfile before) {
  const std::string name = "added-by-fuzzer";
  const auto added = add_sandbox(text, name, some_spec());
  if (!added) {
    require(!added.error().message.contains('\n'), "what cannot be added is said in one line");
    return;
  }
  before.sandboxes.push_back({name, some_spec(), {}});
  const auto after = parse_sandboxfile(*added, "S");
  require(after && same(*after, before), "one sandbox is added, and the others stay");
  const auto removed = remove_sandbox(*added, name);
  require(removed.has_value(), "what was added can be removed");
  before.sandboxes.pop_back();
  const auto again = parse_sandboxfile(*removed, "S");
  require(again && same(*again, before), "what was added is gone, and the others stay");
}

void check_remove(const std::string& text, Sandboxfile before) {
  const std::string name = before.sandboxes.front().name;
  const auto removed = remove_sandbox(text, name);
  if (!removed) {
    require(!removed.error().message.contains('\n'), "what cannot be removed is said in one line");
    return;
  }
  before.sandboxes.erase(before.sandboxes.begin());
  const auto after = parse_sandboxfile(*removed, "S");
  require(after && same(*after, before), "one sandbox is removed, and the others stay");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto file = parse_sandboxfile(text, "S");
  if (!file) {
    const std::string_view message = file.error().message;
    require(message.starts_with("S:") && !message.contains('\n'),
            "what is wrong is said in one line");
    return 0;
  }
  require(file->sandboxes.size() <= kMaxSandboxes, "there are no more sandboxes than may be");
  const auto levels = dependency_levels(*file, {});
  require(levels && levels->size() <= kMaxDependencyDepth + 1, "all can be started in an order");
  check_add(text, *file);
  if (!file->sandboxes.empty()) {
    check_remove(text, *file);
  }
  return 0;
}
