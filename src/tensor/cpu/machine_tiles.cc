// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/machine_tiles.h"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined operand of its own intrinsics for one of ours.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

namespace banyan {
namespace {

constexpr int kTiles = 8;
constexpr int kTileRows = 16;
constexpr int kTileRowBytes = 64;

// Intel SDM volume 1, section 18.3: memory of LDTILECFG, palette 1.
struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfiguration) == 64);

constexpr TileConfiguration full_tiles() {
  TileConfiguration configuration;
  for (int tile = 0; tile < kTiles; ++tile) {
    configuration.row_bytes[tile] = kTileRowBytes;
    configuration.rows[tile] = kTileRows;
  }
  return configuration;
}

}  // namespace

__attribute__((target("amx-tile,amx-bf16"))) float multiply_add_tiles(int64_t rounds) {
  static constexpr TileConfiguration kConfiguration = full_tiles();
  alignas(64) uint16_t operand[kTileRows * kTileRowBytes / 2];
  for (uint16_t& element : operand) element = 0x3c00;  // bf16 2^-7: sums stay finite
  alignas(64) float sum[kTileRows * kTileRowBytes / 4];

  _tile_loadconfig(&kConfiguration);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, operand, kTileRowBytes);
  _tile_loadd(5, operand, kTileRowBytes);
  _tile_loadd(6, operand, kTileRowBytes);
  _tile_loadd(7, operand, kTileRowBytes);
  for (int64_t round = 0; round < rounds; ++round) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  float total = 0;
  _tile_stored(0, sum, kTileRowBytes);
  total += sum[0];
  _tile_stored(1, sum, kTileRowBytes);
  total += sum[0];
  _tile_stored(2, sum, kTileRowBytes);
  total += sum[0];
  _tile_stored(3, sum, kTileRowBytes);
  total += sum[0];
  _tile_release();
  return total;
}

__attribute__((target("avx512f,avx512vnni"))) float multiply_add_pairs(int64_t rounds) {
  using Sums =
      int32_t __attribute__((vector_size(64)));  // GCC 12 keeps arrays of __m512i in memory
  volatile int operand_source = 0x10001;         // two ones, unknown to the compiler
  const __m512i operand = _mm512_set1_epi32(operand_source);
  Sums chain[kPairChains] = {};
  for (int j = 0; j < kPairChains; ++j) chain[j][0] = j;  // all alike would be one to the compiler
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int j = 0; j < kPairChains; ++j) {
      chain[j] = (Sums)_mm512_dpwssd_epi32((__m512i)chain[j], operand, operand);
    }
  }
  float total = 0;
  for (const Sums& sum : chain) total += static_cast<float>(sum[0]);
  return total;
}

}  // namespace banyan

#else

namespace banyan {

float multiply_add_tiles(int64_t) { return 0; }
float multiply_add_pairs(int64_t) { return 0; }

}  // namespace banyan

#endif
