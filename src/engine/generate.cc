// SPDX-License-Identifier: Apache-2.0
// A request's way in and out: checked, put into the line, stepped until it is complete.
#include <algorithm>

#include <fmt/format.h>

#include "base/bytes.h"
#include "engine/engine.h"

namespace banyan {
namespace {

constexpr int kMostSamples = 128;

}  // namespace

std::string_view name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "stop";
}

int Engine::context() const { return options_.context; }

Result<void> Engine::check(const Request& request) const {
  const size_t n = request.prompt.size();
  if (n == 0) return bad_input("the prompt is empty; give at least one token");
  for (const TokenId token : request.prompt) {
    if (token < 0 || token >= tokenizer().size()) {
      return bad_input(
          fmt::format("token {} is not in the vocabulary of {} tokens", token, tokenizer().size()));
    }
  }
  if (n > static_cast<size_t>(context())) {
    return bad_input(
        fmt::format("the prompt has {} tokens, more than the context of {}; shorten it or raise -c",
                    n, context()));
  }
  const uint64_t positions = uint64_t{pool_.capacity()} * kPanelTokens;
  if (n > positions) {
    return bad_input(
        fmt::format("--kv-budget of {} holds {} tokens, the prompt has {}; raise it to at least {}",
                    format_bytes(pool_.budget_bytes()), positions, n,
                    format_bytes((n / kPanelTokens + 1) * pool_.panel_bytes())));
  }
  if (request.n < 1 || request.n > kMostSamples) {
    return bad_input(
        fmt::format("--n must be between 1 and {}, but is {}", kMostSamples, request.n));
  }
  if (request.best_of != 0 && (request.best_of < request.n || request.best_of > kMostSamples)) {
    return bad_input(fmt::format("--best-of must be between --n, which is {}, and {}, but is {}",
                                 request.n, kMostSamples, request.best_of));
  }
  return validate(request.sampler, tokenizer().size());
}

Result<RequestId> Engine::submit(Request request, const Listener& listener) {
  BANYAN_TRY(check(request));
  // Without -c the answer may run past the context the model was trained with, if -n asks for it
  // and positions are not learned one by one.
  if (request.max_tokens < 0 || context_binds_) {
    const int room = std::max(1, context() - static_cast<int>(request.prompt.size()));
    request.max_tokens = request.max_tokens < 0 ? room : std::min(request.max_tokens, room);
  }
  return scheduler_.submit(tokenizer(), std::move(request), listener);
}

bool Engine::step(std::vector<Completion>& finished) {
  std::ranges::move(completed_, std::back_inserter(finished));
  completed_.clear();
  return scheduler_.step(finished);
}

Result<CacheFacts> Engine::explain(const Request& request) const {
  BANYAN_TRY(check(request));
  return scheduler_.explain(tokenizer(), request.prompt, request.salt);
}

Result<Reply> Engine::generate(const Request& request, const Listener& listener) {
  const auto id = submit(request, listener);
  if (!id) return id.error();
  try {
    for (;;) {
      scheduler_.step(completed_);
      const auto mine = std::ranges::find(completed_, *id, &Completion::id);
      if (mine == completed_.end()) continue;
      Result<Reply> reply = std::move(mine->reply);
      completed_.erase(mine);
      return reply;
    }
  } catch (...) {
    scheduler_.drop(*id);
    throw;
  }
}

}  // namespace banyan
