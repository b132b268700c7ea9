// SPDX-License-Identifier: Apache-2.0
#pragma once
// The kernels on pairs that a machine can be tested with.

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "attention/cpu/pair_kernels.h"
#include "base/check.h"
#include "base/isa.h"
#include "hwy/base.h"

#if HWY_ARCH_X86_64
#include "attention/cpu/tile_kernels-inl.h"

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
namespace banyan::testing {

// HardwareTiles for machines without: does what the instructions do, bit for bit (Intel SDM volume
// 2, TDPBF16PS), on AVX-512. The tiles of a thread are arrays.
class EmulatedTiles {
 public:
  static void configure(int rows) {
    BANYAN_CHECK(rows > 0 && rows <= pairs::kTileSide, "tiles have 1 to 16 rows");
    BANYAN_CHECK(state_.rows == 0, "tiles that were configured are released first");
    state_.rows = rows;
  }
  static void release() {
    BANYAN_CHECK(state_.rows != 0, "tiles are released once");
    std::memset(&state_, 0, sizeof(state_));
  }

  template <int kTile>
  static void zero() {
    std::memset(tile<kTile>(), 0, sizeof(state_.tiles[0]));
  }
  template <int kTile, class T>
  static void load(const T* from, size_t stride) {
    zero<kTile>();
    for (int row = 0; row < rows<kTile>(); ++row) {
      std::memcpy(tile<kTile>()[row], from + row * stride, kRowBytes);
    }
  }
  template <int kTile, class T>
  static void store(T* to, size_t stride) {
    for (int row = 0; row < rows<kTile>(); ++row) {
      std::memcpy(to + row * stride, tile<kTile>()[row], kRowBytes);
    }
  }

  // Even and odd terms are summed apart from zero, each in one rounding, then together, then to C.
  // Denormals are zero, as operands and as results.
  template <int kSum, int kLeft, int kRight>
  static void add_product() {
    constexpr uint32_t kToNearestDenormalsZero = 0x9fc0;
    const uint32_t before = _mm_getcsr();
    _mm_setcsr(kToNearestDenormalsZero);
    for (int row = 0; row < rows<kSum>(); ++row) {
      __m512 even = _mm512_setzero_ps();
      __m512 odd = _mm512_setzero_ps();
      for (int i = 0; i < pairs::kTileSide; ++i) {
        const __m512i a = _mm512_set1_epi32(static_cast<int>(tile<kLeft>()[row][i]));
        const __m512i b = _mm512_loadu_si512(tile<kRight>()[i]);
        even = _mm512_fmadd_ps(first_of(a), first_of(b), even);
        odd = _mm512_fmadd_ps(second_of(a), second_of(b), odd);
      }
      uint32_t* sum = tile<kSum>()[row];
      _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), _mm512_add_ps(even, odd)));
    }
    _mm_setcsr(before);
  }

 private:
  // The first and the second numbers of pairs.
  static __m512 first_of(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  }
  static __m512 second_of(__m512i pairs) {
    return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(~0xffff)));
  }

  static constexpr size_t kRowBytes = pairs::kTileSide * sizeof(uint32_t);
  struct State {
    int rows;  // of tiles of A and C; 0: not configured
    uint32_t tiles[pairs::kTiles][pairs::kTileSide][pairs::kTileSide];
  };

  template <int kTile>
  static uint32_t (*tile())[pairs::kTileSide] {
    BANYAN_CHECK(state_.rows != 0, "tiles are configured before they are used");
    return state_.tiles[kTile];
  }
  template <int kTile>
  static int rows() {
    return kTile < pairs::kB ? state_.rows : pairs::kTileSide;
  }

  static inline thread_local State state_{};  // NOLINT(readability-identifier-naming): a member
};

}  // namespace banyan::testing
HWY_POP_ATTRIBUTES
#endif

namespace banyan::testing {

enum class PairWay { kIntegers, kTiles, kEmulatedTiles };

inline std::string name(PairWay way) {
  constexpr const char* kNames[] = {"Integers", "Tiles", "EmulatedTiles"};
  return kNames[static_cast<int>(way)];
}

// Null where this machine cannot run them.
inline const PairKernels* kernels_of([[maybe_unused]] PairWay way) {
#if HWY_ARCH_X86_64
  if (detect_isa() < Isa::kAvx512) return nullptr;
  if (way == PairWay::kIntegers) return has_avx512_vnni() ? integer_kernels() : nullptr;
  if (!has_avx512_bf16()) return nullptr;
  if (way == PairWay::kTiles) return detect_isa() >= Isa::kAmx ? tile_kernels() : nullptr;
  static const PairKernels kEmulated = pairs::tile_kernels_by<EmulatedTiles>();
  return &kEmulated;
#else
  return nullptr;
#endif
}

// Those of some ways that the machine has. None of them: suites then need
// GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST.
inline std::vector<PairWay> machine_ways(const std::vector<PairWay>& some) {
  std::vector<PairWay> ways;
  for (const PairWay way : some) {
    if (kernels_of(way) != nullptr) ways.push_back(way);
  }
  return ways;
}
inline std::vector<PairWay> machine_ways() {
  return machine_ways({PairWay::kIntegers, PairWay::kTiles, PairWay::kEmulatedTiles});
}

// Tests that run with each of them.
class InPairs : public ::testing::TestWithParam<PairWay> {
 protected:
  const PairKernels* const kernels_ = kernels_of(GetParam());
};

}  // namespace banyan::testing
