// SPDX-License-Identifier: Apache-2.0
#pragma once
// Rows and blocks as 16-bit whole numbers, for x86-64 with AVX-512: a row of q in steps of its
// norm, each key in steps of its largest number, each column of V in steps of the largest of the
// block. So that sums of 32 bits hold all products:
//   scores  |q . k| <= |q| |k| (Cauchy-Schwarz): the largest number of keys follows from the norm
//           of q and from head_dim
//   values  the keys of a block times the largest weight times the largest value of a column

#include <cstdint>

#include "attention/cpu/pair_kernels.h"

namespace banyan::pairs {

inline constexpr int64_t kLargestSum = (int64_t{1} << 31) - 1;
inline constexpr float kQueryNorm = 23170;  // 2^14.5
inline constexpr int kLargestWeight = 5792;
inline constexpr int kLargestValue = 5791;
static_assert(int64_t{kChunkTokens} * kLargestWeight * kLargestValue <= kLargestSum);

// As PairKernels::pack_q and pack_block. P and V pair the keys i and i + 16 of each half block.
bool pack_q(const float* q, int n, int head_dim, int n_pairs, const PairRows& out);
bool pack_block(const StoredBlock& block, int n_pairs, const PairBlock& out);

}  // namespace banyan::pairs
