// SPDX-License-Identifier: Apache-2.0
#include "sandbox/metrics_sampler.hpp"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "protocol/opener.hpp"

namespace msb::sandbox {

std::optional<double> cpu_percent(const msb_metrics& before, const msb_metrics& now) {
  const std::uint64_t busy_before = before.user_us + before.system_us;
  const std::uint64_t busy_now = now.user_us + now.system_us;
  if (now.time_ns <= before.time_ns || busy_now < busy_before) {
    return std::nullopt;
  }
  constexpr double kMicrosecond = 1000;  // nanoseconds
  constexpr double kPercent = 100;
  return kPercent * kMicrosecond * static_cast<double>(busy_now - busy_before) /
         static_cast<double>(now.time_ns - before.time_ns);
}

MetricsSampler::MetricsSampler(std::unique_ptr<Loop> loop)
    : loop_(std::move(loop)),
      patience_([this](std::int32_t) {
        over_ = true;
        loop_->stop();
      }),
      stop_([this](std::int32_t) {
        over_ = true;
        loop_->stop();
      }) {}

MetricsSampler::~MetricsSampler() {
  agents_.clear();
  loop_->drain();
}

Result<std::unique_ptr<MetricsSampler>> MetricsSampler::create() {
  auto loop = Loop::create();
  if (!loop) {
    return std::unexpected(loop.error());
  }
  return std::unique_ptr<MetricsSampler>(new MetricsSampler(std::move(*loop)));
}

Result<void> MetricsSampler::sample(const std::vector<Running>& sandboxes,
                                    std::chrono::milliseconds patience, int stop) {
  std::erase_if(agents_, [&](const auto& agent) {
    return std::ranges::none_of(sandboxes,
                                [&](const Running& one) { return one.id == agent.first; });
  });
  ++round_;
  over_ = false;
  awaited_ = 0;
  for (const Running& sandbox : sandboxes) {
    ask(sandbox);
  }
  if (stop >= 0 && !stop_.pending()) {
    loop_->poll(stop, POLLIN, stop_);
  }
  loop_->timeout(static_cast<std::uint64_t>(std::chrono::nanoseconds(patience).count()), patience_);
  while (awaited_ > 0 && !over_) {
    if (auto ran = loop_->run(); !ran) {
      return ran;
    }
  }
  loop_->cancel(patience_);
  while (patience_.pending()) {
    if (auto ran = loop_->run(); !ran) {
      return ran;
    }
  }
  return {};
}

void MetricsSampler::ask(const Running& sandbox) {
  auto& agent = agents_[sandbox.id];
  if (!agent) {
    agent = std::make_unique<Agent>();
  }
  if (agent->asked) {
    agent->answer.reset();
    return;
  }
  if (!agent->requests || !agent->requests->open()) {
    auto socket = protocol::connect_sandbox(sandbox.agent_socket(), MSB_PORT_AGENT);
    if (!socket) {
      agent->answer.reset();
      return;  // it has just ended, or has no agent yet
    }
    agent->requests.emplace(*loop_, std::move(*socket));
  }
  agent->asked = true;
  ++awaited_;
  // An agent is destroyed together with its questions.
  agent->requests->metrics(
      [this, one = agent.get(), round = round_](const protocol::Answer<msb_metrics>& answer) {
        on_answer(*one, answer);
        if (round == round_ && --awaited_ == 0) {
          loop_->stop();
        }
      });
}

void MetricsSampler::on_answer(Agent& agent, const protocol::Answer<msb_metrics>& answer) {
  agent.asked = false;
  if (!answer) {
    agent.answer.reset();
    return;
  }
  const std::optional<double> cpu =
      agent.before ? cpu_percent(*agent.before, *answer) : std::nullopt;
  agent.before = *answer;
  agent.answer = MetricsSample{*answer, cpu};
}

std::optional<MetricsSample> MetricsSampler::find(const std::string& id) const {
  const auto agent = agents_.find(id);
  return agent == agents_.end() || agent->second->asked ? std::nullopt : agent->second->answer;
}

}  // namespace msb::sandbox
