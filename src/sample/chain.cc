// SPDX-License-Identifier: Apache-2.0
#include "sample/chain.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "sample/scan.h"

namespace banyan {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool is_better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// Shows `enough` one candidate after the other in the order of `before` until it says true; returns
// how many it saw, which then are the first. Sorts no more than needed: a nucleus is small.
template <class Before, class Enough>
size_t ordered_prefix(std::vector<Candidate>& candidates, Before before, Enough enough) {
  size_t seen = 0;
  for (size_t step = 128; seen < candidates.size(); step *= 4) {
    const size_t end = std::min(candidates.size(), seen + step);
    const auto begin = candidates.begin() + seen;
    if (end < candidates.size()) {
      std::nth_element(begin, candidates.begin() + end, candidates.end(), before);
    }
    std::sort(begin, candidates.begin() + end, before);
    while (seen < end) {
      if (enough(candidates[seen++])) return seen;
    }
  }
  return seen;
}

}  // namespace

void select_top_k(std::span<const float> logits, size_t k, std::vector<Candidate>& out) {
  out.clear();
  out.reserve(logits.size());
  const bool all = k == 0 || k >= logits.size();
  // The list fills to twice k, is cut to the best k, and from then on only what beats the worst of
  // these comes in: later ids lose against equal logits, so "beats" is strict.
  const size_t full = all ? logits.size() : std::min(logits.size(), std::max<size_t>(2 * k, 128));
  float threshold = -kInfinity;
  for (size_t i = next_above(logits, 0, threshold); i < logits.size();
       i = next_above(logits, i + 1, threshold)) {
    out.push_back({static_cast<TokenId>(i), logits[i], 0});
    if (out.size() == full && !all) {
      std::nth_element(out.begin(), out.begin() + (k - 1), out.end(), is_better);
      threshold = out[k - 1].logit;
      out.resize(k);
    }
  }
  if (all) return;
  const size_t kept = std::min(k, out.size());
  std::partial_sort(out.begin(), out.begin() + kept, out.end(), is_better);
  out.resize(kept);
}

void keep_typical(std::vector<Candidate>& candidates, float p) {
  if (p >= 1) return;
  const double sum = weigh(candidates, 1);
  double entropy = 0;
  double max_logit = -std::numeric_limits<double>::infinity();
  for (const Candidate& c : candidates) {
    if (c.p > 0) entropy -= c.p / sum * std::log(c.p / sum);
    max_logit = std::max<double>(max_logit, c.logit);
  }
  const double log_sum = max_logit + std::log(sum);
  for (Candidate& c : candidates) {
    c.p = static_cast<float>(std::abs(log_sum - c.logit - entropy));  // distance to the entropy
  }
  const auto closer = [](const Candidate& a, const Candidate& b) {
    return a.p != b.p ? a.p < b.p : is_better(a, b);
  };
  double mass = 0;
  candidates.resize(ordered_prefix(candidates, closer, [&](const Candidate& c) {
    mass += std::exp(c.logit - log_sum);
    return mass > p;
  }));
}

void keep_top_p(std::vector<Candidate>& candidates, float p) {
  if (p >= 1) return;
  const double enough = p * weigh(candidates, 1);
  double mass = 0;
  candidates.resize(ordered_prefix(candidates, is_better, [&](const Candidate& c) {
    mass += c.p;
    return mass >= enough;
  }));
}

void keep_min_p(std::vector<Candidate>& candidates, float p) {
  if (p <= 0) return;
  float max = -kInfinity;
  for (const Candidate& c : candidates) max = std::max(max, c.logit);
  const float lowest = max + std::log(p);
  std::erase_if(candidates, [lowest](const Candidate& c) { return c.logit < lowest; });
}

double weigh(std::vector<Candidate>& candidates, float temperature) {
  float max = -kInfinity;
  for (const Candidate& c : candidates) max = std::max(max, c.logit);
  double sum = 0;
  for (Candidate& c : candidates) {
    c.p = std::exp((c.logit - max) / temperature);
    sum += c.p;
  }
  return sum;
}

TokenId draw(std::span<const Candidate> candidates, double sum, double fraction) {
  const double target = fraction * sum;
  double mass = 0;
  const Candidate* last = nullptr;
  for (const Candidate& c : candidates) {
    if (!(c.p > 0)) continue;
    mass += c.p;
    last = &c;
    if (mass > target) break;
  }
  BANYAN_CHECK(last != nullptr, "the best candidate has weight 1");
  return last->token;  // the last one of all if rounding left `mass` at `target`
}

}  // namespace banyan
