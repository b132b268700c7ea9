// SPDX-License-Identifier: Apache-2.0
#pragma once
// Mixture of experts: which rows go to which expert, and with what weight.

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/matrix.h"

namespace banyan {

// The rows of each expert, ascending: those of expert e are at [begin[e], begin[e + 1]). Kept from
// step to step for its capacity.
struct Routing {
  std::vector<uint32_t> begin;   // [n_experts + 1]
  std::vector<uint32_t> rows;    // [n_rows * n_used]
  std::vector<float> weights;    // likewise
  std::vector<uint32_t> chosen;  // scratch: [n_rows * n_used], experts of each row
  std::vector<float> shares;     // scratch: likewise
};

// Every row goes to the `n_used` experts of largest score (the lower number where scores are
// equal), weighted by the softmax over these alone, which equals the softmax over all divided by
// the sum of the chosen ones (Mixtral: Jiang et al. 2024, arXiv 2401.04088, section 2.1). `scores`:
// [rows][n_experts].
void route(ConstMatrix scores, int n_used, Routing& routing);

}  // namespace banyan
