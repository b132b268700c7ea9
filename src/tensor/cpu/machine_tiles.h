// SPDX-License-Identifier: Apache-2.0
#pragma once
// The peaks of instructions for 16-bit numbers: products of tiles of bf16 (AMX) into f32, or of
// pairs of whole numbers (AVX512_VNNI).

#include <cstdint>

namespace banyan {

// Two by two accumulators; a tile of 16 x 32 times one of 32 x 16 is 16 * 16 * 32 multiply-adds.
inline constexpr int64_t kTileFlopsPerRound = int64_t{4} * 16 * 16 * 32 * 2;

// Requires that the OS granted tiles (Isa::kAmx of detect_isa()); 0 where the build has none.
float multiply_add_tiles(int64_t rounds);

inline constexpr int kPairChains = 24;  // of 16 sums, which get two products each
inline constexpr int64_t kPairFlopsPerRound = int64_t{kPairChains} * 16 * 2 * 2;

// Requires has_avx512_vnni(); 0 where the build has none.
float multiply_add_pairs(int64_t rounds);

}  // namespace banyan
