// SPDX-License-Identifier: Apache-2.0
#pragma once
// Rows and blocks in pairs of bf16 (pair_kernels.h), for x86-64 with AVX512_BF16. Q and K pair
// neighbouring dimensions, P and V neighbouring keys; there are no scales. Where a row sees one of
// 32 keys from an even panel on, V of all 32 is finite.

#include "attention/cpu/pair_kernels.h"

namespace banyan::pairs {

// As PairKernels::pack_q and pack_block.
bool pack_q_bf16(const float* q, int n, int head_dim, int n_pairs, const PairRows& out);
bool pack_block_bf16(const StoredBlock& block, int n_pairs, const PairBlock& out);

}  // namespace banyan::pairs
