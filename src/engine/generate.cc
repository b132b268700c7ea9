// SPDX-License-Identifier: Apache-2.0
// A request's way to its reply: admit, match, prefill in pieces, then sample and decode.
#include <algorithm>
#include <array>
#include <exception>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "sample/stop.h"

namespace banyan {
namespace {

// Closes a sequence when its request ends, however it ends. Its KV stays in the tree, but what an
// exception may have left unwritten (no memory, a caller's listener) does not.
class OpenSequence {
 public:
  OpenSequence(KvTree& tree, std::span<const TokenId> prompt)
      // The last token is always computed: its logits choose the first new one.
      : tree_(tree), opened_(tree.open(prompt, static_cast<int32_t>(prompt.size()) - 1)) {}
  ~OpenSequence() {
    if (std::uncaught_exceptions() > exceptions_) tree_.truncate(opened_.seq, opened_.matched);
    tree_.close(opened_.seq);
  }
  OpenSequence(const OpenSequence&) = delete;
  OpenSequence& operator=(const OpenSequence&) = delete;
  SeqId seq() const { return opened_.seq; }
  int matched() const { return opened_.matched; }

 private:
  KvTree& tree_;
  KvTree::Opened opened_;
  int exceptions_ = std::uncaught_exceptions();
};

SamplerParams sampler_of(const Request& request, const Tokenizer& tokenizer) {
  SamplerParams params = request.sampler;
  if (request.ignore_eos) {
    for (TokenId token = 0; token < tokenizer.size(); ++token) {
      if (tokenizer.is_end(token)) {
        params.logit_bias.emplace_back(token, -std::numeric_limits<float>::infinity());
      }
    }
  }
  return params;
}

// The text side of a reply: tokens in, text to the listener, stop strings watched.
class ReplyText {
 public:
  ReplyText(const Tokenizer& tokenizer, const Request& request, const Listener& listener,
            std::string& text)
      : detokenizer_(tokenizer, Special::kPlain, /*skip_first_space=*/false),
        stop_(request.stop),
        on_token_(listener.on_token),
        text_(text) {}

  enum class State { kGoOn, kStopped, kCancelled };

  State push(TokenId token) {
    auto [emit, stopped] = stop_.push(detokenizer_.push(token));
    if (!say(token, emit)) return State::kCancelled;
    return stopped ? State::kStopped : State::kGoOn;
  }

  void finish() {
    auto [emit, stopped] = stop_.push(detokenizer_.finish());
    if (!stopped) emit += stop_.finish();
    if (!emit.empty()) say(kNoToken, emit);
  }

 private:
  bool say(TokenId token, const std::string& text) {
    text_ += text;
    if (on_token_ == nullptr) return true;
    const bool go_on = (*on_token_)(token, text);
    if (!go_on) on_token_ = nullptr;  // it has heard enough
    return go_on;
  }

  StreamDetokenizer detokenizer_;
  StopMatcher stop_;
  const FunctionRef<bool(TokenId, const std::string&)>* on_token_;
  std::string& text_;
};

void record(const Choice& choice, Reply& reply) {
  reply.tokens.push_back(choice.token);
  reply.logprobs.push_back(choice.logprob);
  if (!choice.top.empty()) reply.top_logprobs.emplace_back(choice.top.begin(), choice.top.end());
}

}  // namespace

int Engine::context() const { return options_.context; }

Result<void> Engine::admit(const Request& request) const {
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
  BANYAN_TRY(validate(request.sampler, tokenizer().size()));
  return {};
}

// Computes the rest of the prompt; false if the listener cancelled.
Result<bool> Engine::prefill(SeqId seq, std::span<const TokenId> rest, int cached,
                             const Listener& listener) {
  const int total = cached + static_cast<int>(rest.size());
  while (!rest.empty()) {
    const size_t n = std::min<size_t>(rest.size(), steps_.max_rows());
    const bool last = n == rest.size();
    const std::array index = {static_cast<uint32_t>(n - 1)};
    const Piece piece{seq, rest.first(n),
                      last ? std::span<const uint32_t>(index) : std::span<const uint32_t>()};
    BANYAN_TRY(steps_.run({&piece, 1}));
    rest = rest.subspan(n);
    if (listener.on_prompt != nullptr &&
        !(*listener.on_prompt)(total - static_cast<int>(rest.size()), total)) {
      return false;
    }
  }
  return true;
}

Result<Reply> Engine::generate(const Request& request, const Listener& listener) {
  BANYAN_TRY(admit(request));
  const auto prompt = std::span<const TokenId>(request.prompt);
  const int n_prompt = static_cast<int>(prompt.size());
  // Without -c the answer may run past the context the model was trained with, if -n asks for it
  // and positions are not learned one by one.
  int max_tokens = request.max_tokens;
  if (max_tokens < 0 || context_binds_) {
    const int room = std::max(1, context() - n_prompt);
    max_tokens = max_tokens < 0 ? room : std::min(max_tokens, room);
  }

  const int64_t start = now_ns();
  OpenSequence sequence(tree_, prompt);
  // Room for as many tokens as were asked for and the budget can hold.
  const int64_t positions = int64_t{pool_.capacity()} * kPanelTokens;
  const auto longest =
      static_cast<int>(std::min({positions, int64_t{n_prompt} + max_tokens, int64_t{INT32_MAX}}));
  const size_t most_new = longest - n_prompt + 1;
  tree_.reserve(sequence.seq(), longest);
  steps_.reserve(longest);
  // Embeddings may have more rows than there are tokens; those stand for nothing.
  const auto n_tokens = static_cast<size_t>(tokenizer().size());
  Sampler sampler(sampler_of(request, tokenizer()), tokenizer().size());
  for (const TokenId token : prompt) sampler.accept(token);

  Reply reply;
  reply.prompt_tokens = n_prompt;
  reply.cached_tokens = sequence.matched();
  reply.tokens.reserve(most_new);
  reply.logprobs.reserve(most_new);
  reply.text.reserve(most_new * 8);
  reply.finish = FinishReason::kLength;
  ReplyText text(tokenizer(), request, listener, reply.text);

  auto done =
      prefill(sequence.seq(), prompt.subspan(sequence.matched()), sequence.matched(), listener);
  if (!done) return done.error();
  if (!*done) {
    reply.finish = FinishReason::kCancelled;
    max_tokens = 0;
  }
  constexpr std::array<uint32_t, 1> kOnly = {0};
  int64_t first_token = 0;
  for (int i = 0; i < max_tokens; ++i) {
    const Choice choice = sampler.sample(steps_.logits(0, 0).first(n_tokens));
    if (i == 0) first_token = now_ns();
    if (tokenizer().is_end(choice.token)) {
      reply.finish = FinishReason::kStop;
      break;
    }
    record(choice, reply);
    sampler.accept(choice.token);
    const auto state = text.push(choice.token);
    if (state != ReplyText::State::kGoOn) {
      reply.finish =
          state == ReplyText::State::kStopped ? FinishReason::kStop : FinishReason::kCancelled;
      break;
    }
    if (i + 1 == max_tokens) break;
    const Piece piece{sequence.seq(), {&choice.token, 1}, kOnly};
    if (auto stepped = steps_.run({&piece, 1}); !stepped) {
      reply.note = stepped.error().message;  // the text so far is good; the budget has ended it
      break;
    }
  }
  text.finish();
  const int64_t end = now_ns();
  if (first_token == 0) first_token = end;
  reply.prompt_ms = static_cast<double>(first_token - start) * 1e-6;
  reply.predicted_ms = static_cast<double>(end - first_token) * 1e-6;
  reply.kv_bytes_peak = pool_.peak_bytes();
  reply.kv_exact = options_.k_type != DType::kQ8_0 && options_.v_type != DType::kQ8_0;
  return reply;
}

}  // namespace banyan
