// SPDX-License-Identifier: Apache-2.0
#pragma once
// Blocks stored in f16 as 16-bit whole numbers by AVX512_FP16, which scales and rounds 32 numbers
// in an instruction each. Steps are powers of two, so scaling is exact.

#include "attention/cpu/pair_kernels.h"

namespace banyan::pairs {

// Whether the compiler knows the instructions; if not, pack_block_fp16 is not called.
#if defined(__x86_64__) && ((defined(__clang__) && __clang_major__ >= 14) || \
                            (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 12))
#define BANYAN_HAS_AVX512_FP16 1
inline constexpr bool kHasFp16 = true;
#else
#define BANYAN_HAS_AVX512_FP16 0
inline constexpr bool kHasFp16 = false;
#endif

// As PairKernels::pack_block, of any type.
bool pack_block_fp16(const StoredBlock& block, int n_pairs, const PairBlock& out);

}  // namespace banyan::pairs
