// SPDX-License-Identifier: Apache-2.0
#include "cli/login.hpp"

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/fd.hpp"
#include "cli/context.hpp"
#include "oci/reference.hpp"
#include "oci/registry/credentials.hpp"
#include "oci/registry/registry.hpp"

namespace msb::cli {
namespace {

constexpr std::size_t kMaxSecret = 65536;  // bytes

// A line, or all there is, without the newline at its end.
Result<std::string> read_line(int fd, std::string_view what) {
  std::string text;
  for (;;) {
    char c = 0;
    const ssize_t count = ::read(fd, &c, 1);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return fail_errno(errno, "cannot read the {}", what);
    }
    if (count == 0 || c == '\n') {
      break;
    }
    text += c;
    if (text.size() > kMaxSecret) {
      return fail("the {} is longer than {} bytes", what, kMaxSecret);
    }
  }
  if (text.ends_with('\r')) {
    text.pop_back();
  }
  if (text.empty()) {
    return fail("the {} is empty", what);
  }
  return text;
}

// A terminal that does not show what is typed, as long as this lives.
class HiddenInput {
 public:
  explicit HiddenInput(int terminal) : terminal_(terminal) {
    if (::tcgetattr(terminal_, &before_) == 0) {
      termios hidden = before_;
      hidden.c_lflag &= ~static_cast<tcflag_t>(ECHO);
      changed_ = ::tcsetattr(terminal_, TCSAFLUSH, &hidden) == 0;
    }
  }
  HiddenInput(const HiddenInput&) = delete;
  HiddenInput& operator=(const HiddenInput&) = delete;
  ~HiddenInput() {
    if (changed_) {
      ::tcsetattr(terminal_, TCSAFLUSH, &before_);
    }
  }

 private:
  int terminal_;
  termios before_{};
  bool changed_ = false;
};

Result<std::string> ask(std::string_view what, bool hidden) {
  const Fd terminal(::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY));
  if (!terminal) {
    return fail("there is no terminal to ask for the {}: use `--user USER --password-stdin`", what);
  }
  const std::string prompt = fmt::format("{}: ", what);
  if (::write(terminal.get(), prompt.data(), prompt.size()) < 0) {
    return fail_errno(errno, "cannot ask for the {}", what);
  }
  if (!hidden) {
    return read_line(terminal.get(), what);
  }
  auto text = [&] {
    const HiddenInput hide(terminal.get());
    return read_line(terminal.get(), what);
  }();
  if (::write(terminal.get(), "\n", 1) < 0) {
    return fail_errno(errno, "cannot ask for the {}", what);
  }
  return text;
}

Result<oci::Credentials> ask_credentials(const LoginOptions& options) {
  auto user = options.user.empty() ? ask("Username", false) : Result<std::string>(options.user);
  if (!user) {
    return std::unexpected(user.error());
  }
  auto password =
      options.password_from_input ? read_line(STDIN_FILENO, "password") : ask("Password", true);
  if (!password) {
    return std::unexpected(password.error());
  }
  return oci::Credentials{std::move(*user), std::move(*password), ""};
}

Result<std::string> registry_of(const std::string& text) {
  return text.empty() ? Result<std::string>(std::string(oci::kDefaultRegistry))
                      : oci::parse_registry_host(text);
}

}  // namespace

Result<void> login(const LoginOptions& options) {
  const auto host = registry_of(options.registry);
  if (!host) {
    return std::unexpected(host.error());
  }
  const auto path = oci::DockerConfig::default_path();
  if (!path) {
    return std::unexpected(path.error());
  }
  const auto settings_path = oci::settings_path();
  auto settings = settings_path ? oci::load_settings(*settings_path)
                                : Result<oci::Settings>(std::unexpected(settings_path.error()));
  if (!settings) {
    return std::unexpected(settings.error());
  }
  if (options.password_from_input && options.user.empty()) {
    return fail("--password-stdin needs the user's name: add `--user USER`");
  }
  const auto credentials = ask_credentials(options);
  if (!credentials) {
    return std::unexpected(credentials.error());
  }
  const auto checked = oci::check_login(
      *host, {.settings = std::move(*settings),
              .credentials = [&](const std::string&) { return std::optional(*credentials); },
              .insecure = options.insecure,
              .notice = [](const std::string& sentence) { write_error(sentence + "\n"); },
              .stop = {}});
  if (!checked) {
    return std::unexpected(checked.error());
  }
  const auto kept = oci::DockerConfig(*path).store(*host, *credentials);
  if (!kept) {
    return std::unexpected(kept.error());
  }
  return print(fmt::format(
      "Logged in to {} as {}{}; the password is kept in {}\n", *host, credentials->username,
      *checked ? "" : " (it lets everybody in, so the password was not checked)", *kept));
}

Result<void> logout(const std::string& registry) {
  const auto host = registry_of(registry);
  if (!host) {
    return std::unexpected(host.error());
  }
  const auto path = oci::DockerConfig::default_path();
  if (!path) {
    return std::unexpected(path.error());
  }
  const auto erased = oci::DockerConfig(*path).erase(*host);
  if (!erased) {
    return std::unexpected(erased.error());
  }
  return print(*erased ? fmt::format("Logged out of {}\n", *host)
                       : fmt::format("Nobody was logged in to {}\n", *host));
}

}  // namespace msb::cli
