// SPDX-License-Identifier: Apache-2.0
#include "model/experts.h"

#include <algorithm>
#include <cmath>

namespace banyan {
namespace {

// Selects by insertion: there are few to select. `chosen` and `shares`: [n_used].
void choose(const float* scores, int n_experts, std::span<uint32_t> chosen,
            std::span<float> shares) {
  size_t n = 0;
  for (int e = 0; e < n_experts; ++e) {
    size_t at = n;
    while (at > 0 && scores[e] > shares[at - 1]) --at;
    if (at == chosen.size()) continue;
    n = std::min(n + 1, chosen.size());
    for (size_t i = n - 1; i > at; --i) {
      chosen[i] = chosen[i - 1];
      shares[i] = shares[i - 1];
    }
    chosen[at] = static_cast<uint32_t>(e);
    shares[at] = scores[e];
  }
  const float largest = shares[0];
  float sum = 0;
  for (float& share : shares) sum += share = std::exp(share - largest);
  for (float& share : shares) share /= sum;
}

}  // namespace

void route(ConstMatrix scores, int n_used, Routing& routing) {
  const auto n_experts = static_cast<size_t>(scores.cols);
  const auto n_rows = static_cast<size_t>(scores.rows);
  const size_t total = n_rows * n_used;
  routing.chosen.assign(total, 0);  // also where scores are NaN and none is the largest
  routing.shares.assign(total, 0);
  routing.begin.assign(n_experts + 1, 0);
  routing.rows.resize(total);
  routing.weights.resize(total);
  for (size_t r = 0; r < n_rows; ++r) {
    choose(scores.row(static_cast<int64_t>(r)), static_cast<int>(n_experts),
           std::span(routing.chosen).subspan(r * n_used, n_used),
           std::span(routing.shares).subspan(r * n_used, n_used));
  }
  // A counting sort by expert keeps rows in order.
  for (const uint32_t expert : routing.chosen) ++routing.begin[expert + 1];
  for (size_t e = 0; e < n_experts; ++e) routing.begin[e + 1] += routing.begin[e];
  for (size_t i = 0; i < total; ++i) {
    const uint32_t at = routing.begin[routing.chosen[i]]++;
    routing.rows[at] = static_cast<uint32_t>(i / n_used);
    routing.weights[at] = routing.shares[i];
  }
  // Every begin has moved to its end, which is where the next one began.
  std::copy_backward(routing.begin.begin(), routing.begin.end() - 1, routing.begin.end());
  routing.begin[0] = 0;
}

}  // namespace banyan
