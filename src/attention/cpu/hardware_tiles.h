// SPDX-License-Identifier: Apache-2.0
#pragma once
// The instructions of AMX-TILE and AMX-BF16 (Intel SDM volume 2), on tiles numbered by constants
// as compilers' intrinsics want them, but for templates. For x86-64.

#include <cstddef>
#include <cstdint>

#include "attention/cpu/tile_kernels-inl.h"

namespace banyan::pairs {

struct HardwareTiles {
  // Tiles of A and C have `rows` rows, those of B 16, all of 64 bytes.
  static void configure(int rows) {
    struct alignas(64) {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } layout;
    for (int tile = 0; tile < kTiles; ++tile) {
      layout.row_bytes[tile] = kTileSide * sizeof(uint32_t);
      layout.rows[tile] = tile < kB ? rows : kTileSide;
    }
    asm volatile("ldtilecfg %0" : : "m"(layout));
  }

  // Tells the processor that the tiles hold nothing it must save.
  static void release() { asm volatile("tilerelease"); }

  template <int kTile>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }

  // Rows that begin `stride` elements apart.
  template <int kTile, class T>
  static void load(const T* from, size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
                 :
                 : "r"(from), "r"(stride * sizeof(T)), "i"(kTile)
                 : "memory");
  }

  template <int kTile, class T>
  static void store(T* to, size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
                 :
                 : "r"(to), "r"(stride * sizeof(T)), "i"(kTile)
                 : "memory");
  }

  // C += A x B
  template <int kSum, int kLeft, int kRight>
  static void add_product() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kLeft), "i"(kRight));
  }
};

}  // namespace banyan::pairs
