// SPDX-License-Identifier: Apache-2.0
#include "launcher/network/dns_forward.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "launcher/network/dns_message.hpp"
#include "launcher/network/dns_testing.hpp"
#include "launcher/network/testing.hpp"

namespace msb::launcher {
namespace {

using testing::bind_socket;
using testing::dns_answer;
using testing::dns_query;
using testing::framed;
using testing::framed_by_tcp;
using testing::Peer;
using testing::unix_pair;
using namespace std::string_literals;

const std::string kName = "\3www\7example\0"s;

// Addresses of this process's own, so that no other one has a socket on the ports that are chosen.
std::string own_address(int last) {
  const auto process = static_cast<unsigned>(::getpid());
  return fmt::format("127.{}.{}.{}", process / 250 % 250 + 1, process % 250 + 1, last);
}
const std::string kFirst = own_address(1);
const std::string kSecond = own_address(2);
const std::string kOther = own_address(3);

// A resolver on an address of loopback, all on one port.
struct FakeResolver {
  FakeResolver(const std::string& its_address, std::uint16_t port)
      : address(its_address), socket(bind_socket(SOCK_DGRAM, *parse_address(its_address, port))) {}
  // The next query.
  std::optional<std::string> asked() {
    char buffer[65536];
    sockaddr_in from{};
    socklen_t size = sizeof from;
    const ssize_t count = ::recvfrom(socket.get(), buffer, sizeof buffer, MSG_DONTWAIT,
                                     reinterpret_cast<sockaddr*>(&from), &size);
    if (count < 0) {
      return std::nullopt;
    }
    client = SocketAddress(reinterpret_cast<const sockaddr*>(&from), size);
    return std::string(buffer, static_cast<std::size_t>(count));
  }
  // To who asked last.
  void say(const std::string& text) const {
    REQUIRE(::sendto(socket.get(), text.data(), text.size(), 0, client.get(), client.size()) ==
            static_cast<ssize_t>(text.size()));
  }
  std::string address;
  Fd socket;
  SocketAddress client;
};

struct Fixture {
  Fixture() {
    limits.port = 0;  // until the first resolver has one
    REQUIRE(::mkdtemp(directory.data()) != nullptr);
  }
  ~Fixture() {
    if (forward) {
      forward->close();
    }
    wire.loop->drain();
    std::filesystem::remove_all(directory);
  }
  void configure(const std::vector<std::string>& servers) const {
    std::ofstream file(directory + "/new");
    for (const std::string& server : servers) {
      file << "nameserver " << server << "\n";
    }
    file.close();
    std::filesystem::rename(directory + "/new", directory + "/resolv.conf");
  }
  // A resolver, on the port of the others.
  FakeResolver& resolver(const std::string& address) {
    FakeResolver& added = resolvers.emplace_back(address, limits.port);
    limits.port = bound_address(added.socket.get()).port();
    return added;
  }
  void start(const std::vector<std::string>& servers) {
    configure(servers);
    forward = std::make_unique<DnsForward>(*wire.loop, directory + "/resolv.conf", limits);
  }
  Peer sender() const {
    auto [given, kept] = unix_pair();
    forward->accept_udp(std::move(given));
    return std::move(kept);
  }
  Peer connection() const {
    auto [given, kept] = unix_pair();
    forward->accept_tcp(std::move(given));
    return std::move(kept);
  }
  bool run_until(const std::function<bool()>& condition) const {
    return testing::run_until(wire, condition);
  }
  void settle() const {
    int rounds = 0;
    CHECK(run_until([&] { return ++rounds > 20; }));
  }
  bool is_asked(FakeResolver& resolver, const std::string& query) const {
    std::optional<std::string> heard;
    return run_until([&] { return (heard = resolver.asked()).has_value(); }) && *heard == query;
  }
  static std::string failure(const std::string& query) {
    return protocol::testing::text_of(dns_server_failure(protocol::testing::bytes_of(query)));
  }
  bool is_answered(Peer& guest, const std::string& answer) const {
    return run_until([&] { return guest.hear() == framed(answer); });
  }

  protocol::testing::Wire wire;
  std::string directory = "/tmp/msb-dns-XXXXXX";
  std::list<FakeResolver> resolvers;
  DnsForward::Limits limits;
  std::unique_ptr<DnsForward> forward;
};

TEST_CASE_FIXTURE(Fixture, "a query goes to the first resolver, and its answer comes back") {
  FakeResolver& first = resolver(kFirst);
  FakeResolver& second = resolver(kSecond);
  start({kFirst, kSecond});
  Peer guest = sender();
  const std::string query = dns_query(1, kName);
  guest.say(framed(query));
  REQUIRE(is_asked(first, query));
  const SocketAddress port = first.client;
  first.say(dns_answer(query) + "records");
  CHECK(is_answered(guest, dns_answer(query) + "records"));
  guest.say(framed(query));
  REQUIRE(is_asked(first, query));
  CHECK_FALSE(first.client == port);
  CHECK_FALSE(second.asked());
}

TEST_CASE_FIXTURE(Fixture, "a false answer is not one, and the right one still comes") {
  FakeResolver& first = resolver(kFirst);
  start({kFirst});
  Peer guest = sender();
  const std::string query = dns_query(1, kName);
  guest.say(framed(query));
  REQUIRE(is_asked(first, query));
  first.say(dns_answer(dns_query(2, kName)) + "false");
  first.say(dns_answer(dns_query(1, "\3not\7example\0"s)) + "false");
  first.say(query);
  first.say("");
  first.say("short");
  // Not from where it was asked.
  const Fd stranger = bind_socket(SOCK_DGRAM);
  const std::string right = dns_answer(query) + "stranger's";
  ::sendto(stranger.get(), right.data(), right.size(), 0, first.client.get(), first.client.size());
  settle();
  CHECK(guest.hear().empty());
  first.say(dns_answer(query) + "right");
  CHECK(is_answered(guest, dns_answer(query) + "right"));
}

TEST_CASE_FIXTURE(Fixture, "a resolver that does not answer is joined by the next") {
  FakeResolver& first = resolver(kFirst);
  FakeResolver& second = resolver(kSecond);
  limits.times.next = std::chrono::milliseconds(20);
  start({kFirst, kSecond});
  Peer guest = sender();
  const std::string query = dns_query(1, kName);
  guest.say(framed(query));
  REQUIRE(is_asked(first, query));
  REQUIRE(is_asked(second, query));
  SUBCASE("who answers") {
    second.say(dns_answer(query));
  }
  SUBCASE("and answers late") {
    first.say(dns_answer(query));
  }
  CHECK(is_answered(guest, dns_answer(query)));
}

TEST_CASE_FIXTURE(Fixture, "where nobody listens the next is asked at once") {
  FakeResolver& second = resolver(kSecond);
  start({kFirst, kSecond});
  Peer guest = sender();
  const std::string query = dns_query(1, kName);
  guest.say(framed(query));
  REQUIRE(is_asked(second, query));
  second.say(dns_answer(query));
  CHECK(is_answered(guest, dns_answer(query)));
}

TEST_CASE_FIXTURE(Fixture, "with nobody to ask it is a failure at once") {
  resolver(kOther);
  start({kFirst, kSecond});
  Peer guest = sender();
  const std::string query = dns_query(1, kName);
  guest.say(framed(query));
  CHECK(run_until([&] { return !guest.hear().empty(); }));
  CHECK(guest.heard ==
        framed(protocol::testing::text_of(dns_server_failure(protocol::testing::bytes_of(query)))));
}

TEST_CASE_FIXTURE(Fixture, "a query that nobody answers is forgotten") {
  FakeResolver& first = resolver(kFirst);
  limits.times = {.next = std::chrono::milliseconds(5), .all = std::chrono::milliseconds(20)};
  limits.queries = 1;
  start({kFirst});
  Peer guest = sender();
  const std::string query = dns_query(1, kName);
  guest.say(framed(query));
  REQUIRE(is_asked(first, query));
  // Its place is free then.
  CHECK(run_until([&] {
    guest.say(framed(dns_query(2, kName)));
    return first.asked() == dns_query(2, kName);
  }));
  CHECK(guest.hear().find(failure(query)) == std::string::npos);
}

TEST_CASE_FIXTURE(Fixture, "what is no query is dropped, and the next one is answered") {
  FakeResolver& first = resolver(kFirst);
  start({kFirst});
  Peer guest = sender();
  const std::string query = dns_query(1, kName);
  guest.say(framed("") + framed("short") + framed(dns_answer(query)) +
            framed(std::string(65535, 'x')) + framed(query).substr(0, 9));
  settle();
  CHECK_FALSE(first.asked());
  guest.say(framed(query).substr(9));
  REQUIRE(is_asked(first, query));
}

TEST_CASE_FIXTURE(Fixture, "no more than so many queries are under way, and none of who left") {
  FakeResolver& first = resolver(kFirst);
  limits.queries = 3;
  start({kFirst});
  Peer guest = sender();
  for (std::uint16_t id = 0; id < 10; ++id) {
    guest.say(framed(dns_query(id, kName)));
  }
  for (std::uint16_t id = 0; id < 3; ++id) {
    CHECK(is_asked(first, dns_query(id, kName)));
  }
  // The others fail at once.
  std::string failures;
  for (std::uint16_t id = 3; id < 10; ++id) {
    failures += framed(failure(dns_query(id, kName)));
  }
  CHECK(run_until([&] { return guest.hear() == failures; }));
  CHECK_FALSE(first.asked());
  guest.socket.reset();
  Peer other = sender();
  CHECK(run_until([&] {
    other.say(framed(dns_query(20, kName)));
    return first.asked() == dns_query(20, kName);
  }));
}

TEST_CASE_FIXTURE(Fixture, "one sender does not take the places of all") {
  FakeResolver& first = resolver(kFirst);
  limits.queries_of_sender = 2;
  start({kFirst});
  Peer guest = sender();
  for (std::uint16_t id = 0; id < 3; ++id) {
    guest.say(framed(dns_query(id, kName)));
  }
  CHECK(is_answered(guest, failure(dns_query(2, kName))));
  CHECK(is_asked(first, dns_query(0, kName)));
  CHECK(is_asked(first, dns_query(1, kName)));
  const Peer other = sender();
  other.say(framed(dns_query(3, kName)));
  CHECK(is_asked(first, dns_query(3, kName)));
}

TEST_CASE_FIXTURE(Fixture, "a sender whose query is on its way does not give way") {
  FakeResolver& first = resolver(kFirst);
  limits.senders = 1;
  limits.unasked_for = std::chrono::minutes(10);
  start({kFirst});
  Peer guest = sender();
  Peer more = sender();
  CHECK(run_until([&] { return more.has_ended(); }));
  guest.say(framed(dns_query(1, kName)));
  REQUIRE(is_asked(first, dns_query(1, kName)));
  first.say(dns_answer(dns_query(1, kName)));
  CHECK(is_answered(guest, dns_answer(dns_query(1, kName))));
  const Peer next = sender();
  CHECK(run_until([&] { return guest.has_ended(); }));
}

TEST_CASE_FIXTURE(Fixture, "a resolver's failure counts when no other one has an answer") {
  FakeResolver& first = resolver(kFirst);
  FakeResolver& second = resolver(kSecond);
  start({kFirst, kSecond});
  Peer guest = sender();
  const std::string query = dns_query(1, kName);
  const auto failing = [&](int code) {
    std::string answer = dns_answer(query) + "kept";
    answer[3] = static_cast<char>(code);
    return answer;
  };
  guest.say(framed(query));
  REQUIRE(is_asked(first, query));
  first.say(failing(5));
  REQUIRE(is_asked(second, query));
  CHECK(guest.hear().empty());
  SUBCASE("which has") {
    second.say(dns_answer(query));
    CHECK(is_answered(guest, dns_answer(query)));
  }
  SUBCASE("which fails too") {
    second.say(failing(2));
    CHECK(is_answered(guest, failing(2)));
  }
  SUBCASE("which is gone") {
    second.socket.reset();
    guest.say(framed(dns_query(2, kName)));
    REQUIRE(is_asked(first, dns_query(2, kName)));
    std::string answer = dns_answer(dns_query(2, kName));
    answer[3] = 4;
    first.say(answer);
    CHECK(is_answered(guest, answer));
  }
}

TEST_CASE_FIXTURE(Fixture, "the sender that was idle longest gives way to a new one") {
  limits.unasked_for = {};
  FakeResolver& first = resolver(kFirst);
  limits.senders = 2;
  start({kFirst});
  Peer busy = sender();
  Peer idle = sender();
  busy.say(framed(dns_query(1, kName)));
  REQUIRE(is_asked(first, dns_query(1, kName)));
  Peer next = sender();
  CHECK(run_until([&] { return idle.has_ended(); }));
  next.say(framed(dns_query(2, kName)));
  REQUIRE(is_asked(first, dns_query(2, kName)));
  Peer more = sender();  // than there is room for
  CHECK(run_until([&] { return more.has_ended(); }));
  first.say(dns_answer(dns_query(2, kName)));
  CHECK(is_answered(next, dns_answer(dns_query(2, kName))));
}

TEST_CASE_FIXTURE(Fixture, "a host that has moved to another network asks there") {
  resolver(kFirst);
  FakeResolver& second = resolver(kSecond);
  start({kFirst});
  Peer guest = sender();
  configure({kSecond});
  guest.say(framed(dns_query(1, kName)));
  CHECK(is_asked(second, dns_query(1, kName)));
}

TEST_CASE_FIXTURE(Fixture, "a TCP connection goes to the first resolver that accepts") {
  const Fd listener = bind_socket(SOCK_STREAM | SOCK_NONBLOCK, *parse_address(kSecond, 0));
  limits.port = bound_address(listener.get()).port();
  start({kFirst, kSecond});
  Peer guest = connection();
  const std::string query = framed_by_tcp(dns_query(1, kName));
  guest.say(query);
  guest.end();
  Peer resolver;
  CHECK(run_until([&] {
    if (!resolver.socket) {
      resolver.socket = Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
    return resolver.has_ended();
  }));
  CHECK(resolver.heard == query);
  resolver.say("answer");
  resolver.end();
  CHECK(run_until([&] { return guest.has_ended(); }));
  CHECK(guest.heard == "answer");
}

TEST_CASE_FIXTURE(Fixture, "by TCP only whole queries pass, and what is none ends the connection") {
  const Fd listener = bind_socket(SOCK_STREAM | SOCK_NONBLOCK, *parse_address(kFirst, 0));
  limits.port = bound_address(listener.get()).port();
  start({kFirst});
  Peer guest = connection();
  Peer resolver;
  const auto hears = [&](const std::string& expected) {
    return run_until([&] {
      if (!resolver.socket) {
        resolver.socket = Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      }
      return resolver.hear() == expected;
    });
  };
  const std::string one = framed_by_tcp(dns_query(1, kName));
  const std::string large = framed_by_tcp(
      dns_query(2, kName) + std::string(kMaxDnsQuery - dns_query(2, kName).size(), 'x'));
  guest.say(one + large + one.substr(0, 20));
  REQUIRE(hears(one + large));
  resolver.heard.clear();
  guest.say(one.substr(20));
  REQUIRE(hears(one));
  std::string wrong;
  SUBCASE("an answer") {
    wrong = framed_by_tcp(dns_answer(dns_query(3, kName)));
  }
  SUBCASE("an update") {
    wrong = one;
    wrong[4] = 5 << 3;
  }
  SUBCASE("a transfer") {
    wrong = framed_by_tcp(dns_query(3, kName, 252));
  }
  SUBCASE("nothing") {
    wrong = framed_by_tcp("");
  }
  SUBCASE("a length that no query has") {
    wrong = "\xff\xff";
  }
  guest.say(wrong);
  CHECK(run_until([&] { return resolver.was_reset() && guest.has_ended(); }));
  CHECK(resolver.heard == one);
}

TEST_CASE_FIXTURE(Fixture, "a TCP connection is closed when no resolver accepts, or too many are") {
  const Fd listener = bind_socket(SOCK_STREAM | SOCK_NONBLOCK, *parse_address(kSecond, 0));
  limits.port = bound_address(listener.get()).port();
  limits.connections = 1;
  SUBCASE("none accepts") {
    start({kFirst});
    Peer guest = connection();
    CHECK(run_until([&] { return guest.has_ended(); }));
  }
  SUBCASE("too many") {
    start({kSecond});
    Peer guest = connection();
    Peer more = connection();
    CHECK(more.has_ended());
    settle();
    Peer yet_more = connection();
    CHECK(yet_more.has_ended());
    CHECK_FALSE(guest.has_ended());
  }
  SUBCASE("after the end") {
    start({kSecond});
    Peer before = connection();
    Peer before_by_udp = sender();
    forward->close();
    Peer after = connection();
    Peer after_by_udp = sender();
    CHECK(after.has_ended());
    CHECK(after_by_udp.has_ended());
    CHECK(run_until([&] { return before.has_ended() && before_by_udp.has_ended(); }));
  }
}

// A listener whose queue is full, so that connections to it come to nothing.
TEST_CASE_FIXTURE(Fixture, "a resolver that does not accept in time is passed over") {
  const Fd second = bind_socket(SOCK_STREAM | SOCK_NONBLOCK, *parse_address(kSecond, 0));
  limits.port = bound_address(second.get()).port();
  limits.connect_timeout_ns = 20'000'000;
  const auto address = *parse_address(kFirst, limits.port);
  const Fd full(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(full.get(), address.get(), address.size()) == 0);
  REQUIRE(::listen(full.get(), 0) == 0);
  std::vector<Fd> queue;
  for (int i = 0; i < 4; ++i) {
    queue.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    [[maybe_unused]] const int queued =
        ::connect(queue.back().get(), address.get(), address.size());
  }
  start({kFirst, kSecond});
  Peer guest = connection();
  const std::string query = framed_by_tcp(dns_query(1, kName));
  guest.say(query);
  Peer resolver;
  CHECK(run_until([&] {
    if (!resolver.socket) {
      resolver.socket = Fd(::accept4(second.get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
    return resolver.hear() == query;
  }));
}

}  // namespace
}  // namespace msb::launcher
