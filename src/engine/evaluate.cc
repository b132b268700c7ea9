// SPDX-License-Identifier: Apache-2.0
#include "engine/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

namespace banyan {
namespace {

// Rows of logits held at once while scoring: 128 rows of a 49,152-token vocabulary are 25 MB.
constexpr int kScoredRows = 128;

// -log softmax(logits)[token], summed in double.
double negative_log_likelihood(std::span<const float> logits, TokenId token) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - top);
  return std::log(sum) + top - logits[token];
}

Result<void> check_tokens(const Engine& engine, std::span<const TokenId> tokens) {
  if (tokens.empty()) return bad_input("there are no tokens to evaluate; give at least one");
  if (tokens.size() > static_cast<size_t>(engine.context())) {
    return bad_input(
        fmt::format("{} tokens do not fit the context of {}", tokens.size(), engine.context()));
  }
  for (const TokenId token : tokens) {
    if (token < 0 || token >= engine.model().hp.vocab) {
      return bad_input(fmt::format("token {} is not in the vocabulary of {} tokens", token,
                                   engine.model().hp.vocab));
    }
  }
  return {};
}

// A sequence of its own that takes nothing from the cache and leaves nothing in it.
class FreshSequence {
 public:
  explicit FreshSequence(KvTree& tree) : tree_(tree), seq_(tree.open({}, 0).seq) {}
  ~FreshSequence() {
    tree_.truncate(seq_, 0);
    tree_.close(seq_);
  }
  FreshSequence(const FreshSequence&) = delete;
  FreshSequence& operator=(const FreshSequence&) = delete;
  SeqId id() const { return seq_; }

 private:
  KvTree& tree_;
  SeqId seq_;
};

// One window: the summed and squared negative log-likelihoods of tokens after `first_scored`.
struct WindowScore {
  double nll = 0;
  double nll_squared = 0;
};

Result<WindowScore> score_window(Engine& engine, std::span<const TokenId> window,
                                 int first_scored) {
  WindowScore score;
  FreshSequence sequence(engine.tree());
  std::vector<uint32_t> indices;
  const int n = static_cast<int>(window.size());
  int done = 0;
  while (done < n - 1) {
    // Predictions at positions [first_scored, n - 1) are wanted; rows before need no logits.
    const bool scoring = done >= first_scored;
    const int limit = scoring ? std::min(kScoredRows, engine.steps().max_rows())
                              : std::min(engine.steps().max_rows(), first_scored - done);
    const int rows = std::min(limit, n - 1 - done);
    indices.resize(scoring ? rows : 0);
    std::iota(indices.begin(), indices.end(), 0U);
    const Piece piece{sequence.id(), window.subspan(done, rows), indices};
    BANYAN_TRY(engine.steps().run({&piece, 1}));
    for (const uint32_t i : indices) {
      const double nll = negative_log_likelihood(engine.steps().logits(0, i), window[done + i + 1]);
      score.nll += nll;
      score.nll_squared += nll * nll;
    }
    done += rows;
  }
  return score;
}

}  // namespace

Result<std::vector<LogitsAt>> evaluate_logits(Engine& engine, std::span<const TokenId> tokens,
                                              std::span<const int> positions, int piece) {
  BANYAN_TRY(check_tokens(engine, tokens));
  const int n = static_cast<int>(tokens.size());
  for (size_t i = 0; i < positions.size(); ++i) {
    if (positions[i] < 0 || positions[i] >= n || (i > 0 && positions[i] <= positions[i - 1])) {
      return bad_input(
          fmt::format("position {} is not one of 0 to {} in ascending order", positions[i], n - 1));
    }
  }
  const int max_rows = engine.steps().max_rows();
  const int size = piece > 0 ? std::min(piece, max_rows) : max_rows;
  std::vector<LogitsAt> found;
  std::vector<uint32_t> indices;
  FreshSequence sequence(engine.tree());
  auto next = positions.begin();
  for (int begin = 0; begin < n; begin += size) {
    const int end = std::min(n, begin + size);
    indices.clear();
    const auto first = next;
    for (; next != positions.end() && *next < end; ++next) indices.push_back(*next - begin);
    const Piece step{sequence.id(), tokens.subspan(begin, end - begin), indices};
    BANYAN_TRY(engine.steps().run({&step, 1}));
    for (size_t i = 0; i < indices.size(); ++i) {
      const auto logits = engine.steps().logits(0, i);
      found.push_back({first[i], {logits.begin(), logits.end()}});
    }
  }
  return found;
}

Result<std::vector<float>> embed(Engine& engine, std::span<const TokenId> tokens, Pooling pooling,
                                 const FunctionRef<bool(int, int)>* on_tokens) {
  BANYAN_TRY(check_tokens(engine, tokens));
  const size_t n = tokens.size();
  const size_t first_wanted = pooling == Pooling::kMean ? 0 : n - 1;
  std::vector<double> sum(engine.model().hp.hidden);
  std::vector<uint32_t> indices;
  FreshSequence sequence(engine.tree());
  const size_t size = engine.steps().max_rows();
  for (size_t begin = 0; begin < n; begin += size) {
    const size_t end = std::min(n, begin + size);
    const size_t wanted = std::max(begin, first_wanted);
    indices.resize(end - std::min(wanted, end));
    std::iota(indices.begin(), indices.end(), static_cast<uint32_t>(wanted - begin));
    const Piece piece{sequence.id(), tokens.subspan(begin, end - begin), indices};
    BANYAN_TRY(engine.steps().run({&piece, 1}, StepOutput::kHidden));
    for (size_t i = 0; i < indices.size(); ++i) {
      const auto hidden = engine.steps().hidden(0, i);
      for (size_t c = 0; c < sum.size(); ++c) sum[c] += hidden[c];
    }
    if (on_tokens != nullptr && !(*on_tokens)(static_cast<int>(end), static_cast<int>(n))) {
      return Error{ErrorCode::kCancelled, "the embedding was cancelled"};
    }
  }
  const double norm = std::sqrt(std::inner_product(sum.begin(), sum.end(), sum.begin(), 0.0));
  std::vector<float> embedding(sum.size());
  for (size_t c = 0; c < sum.size(); ++c) {
    embedding[c] = norm > 0 ? static_cast<float>(sum[c] / norm) : 0.0F;
  }
  return embedding;
}

Result<Perplexity> evaluate_perplexity(
    Engine& engine, std::span<const TokenId> tokens, int context, int max_windows,
    const FunctionRef<void(int done, int total, double ppl)>* progress) {
  if (context < 4) return bad_input("perplexity needs a context (-c) of at least 4 tokens");
  int windows = static_cast<int>(tokens.size() / context);
  if (windows == 0) {
    return bad_input(fmt::format("the text has {} tokens, fewer than one window of {}; lower -c",
                                 tokens.size(), context));
  }
  if (max_windows > 0) windows = std::min(windows, max_windows);
  const Vocabulary& v = engine.tokenizer().vocabulary();
  Perplexity result;
  double nll_squared = 0;
  std::vector<TokenId> window(context);
  const int first_scored = context / 2;
  for (int w = 0; w < windows; ++w) {
    const auto from = tokens.subspan(size_t(w) * context, context);
    window.assign(from.begin(), from.end());
    if (v.add_bos && v.bos >= 0) window[0] = v.bos;
    BANYAN_TRY(check_tokens(engine, window));
    auto score = score_window(engine, window, first_scored);
    if (!score) return score.error();
    result.nll += score->nll;
    nll_squared += score->nll_squared;
    result.tokens_scored += context - 1 - first_scored;
    const auto n = static_cast<double>(result.tokens_scored);
    result.ppl = std::exp(result.nll / n);
    const double variance = nll_squared / n - (result.nll / n) * (result.nll / n);
    result.standard_error = n > 1 ? result.ppl * std::sqrt(std::max(0.0, variance) / (n - 1)) : 0.0;
    if (progress != nullptr) (*progress)(w + 1, windows, result.ppl);
  }
  return result;
}

}  // namespace banyan
