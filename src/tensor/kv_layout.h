// SPDX-License-Identifier: Apache-2.0
#pragma once
// How keys and values lie in memory. kv allocates it, model writes it, attention reads it; none of
// them knows another for that.
//
// A panel holds 16 token positions on the absolute grid (slot = position mod 16) for all layers of
// one layer group. For each layer and KV head there are two planes, one of K and one of V, each an
// array of panels indexed by PanelId:
//   K panel: [head_dim][16]   scores of 16 keys are one vector per dimension, whatever the ISA
//   V panel: [16][head_dim]   an output row grows by one vector of V per key
// In q8_0 these are numbers of 8 bits, and behind them, in K as in V, come the scales of blocks of
// 32 dimensions (the last may be shorter) as f16, [blocks][16]: those of 16 keys are one vector.

#include <cstddef>
#include <cstdint>

#include "base/ids.h"
#include "tensor/dtype.h"

namespace banyan {

inline constexpr int kPanelTokens = 16;  // unit of allocation
inline constexpr int kChunkTokens = 64;  // unit of hashing, of moving, and of the softmax blocks
inline constexpr int kScaleDims = 32;    // dimensions that share a scale in q8_0

// Scales of one position's K or V in q8_0.
constexpr int scale_blocks(int head_dim) { return (head_dim + kScaleDims - 1) / kScaleDims; }

// Byte of a panel in q8_0 at which its scales begin.
constexpr size_t scales_offset(int head_dim) { return size_t(head_dim) * kPanelTokens; }

// Shape of the KV of one layer group. Types: f32, f16, bf16 or q8_0.
struct KvShape {
  int n_layers = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  DType k_type = DType::kF16;
  DType v_type = DType::kF16;

  // Bytes of one panel in one plane.
  uint32_t k_panel_bytes() const { return panel_bytes_of(k_type); }
  uint32_t v_panel_bytes() const { return panel_bytes_of(v_type); }
  // Bytes of one panel in all planes: what an allocation costs the budget.
  uint64_t panel_bytes() const {
    return uint64_t{k_panel_bytes() + v_panel_bytes()} * n_layers * n_kv_heads;
  }

 private:
  uint32_t panel_bytes_of(DType type) const {
    const int scales = type == DType::kQ8_0 ? scale_blocks(head_dim) : 0;
    return kPanelTokens * (head_dim * element_bytes(type) + scales * sizeof(uint16_t));
  }
};

// The planes of one layer. Panel p of head h: k + h * k_head_stride + p * shape.k_panel_bytes().
struct KvPlanes {
  KvShape shape;
  std::byte* k = nullptr;
  std::byte* v = nullptr;
  uint64_t k_head_stride = 0;  // bytes between the K planes of neighbouring KV heads
  uint64_t v_head_stride = 0;

  std::byte* k_panel(int kv_head, PanelId panel) const {
    return k + kv_head * k_head_stride + uint64_t{panel} * shape.k_panel_bytes();
  }
  std::byte* v_panel(int kv_head, PanelId panel) const {
    return v + kv_head * v_head_stride + uint64_t{panel} * shape.v_panel_bytes();
  }
};

// Consecutive positions that lie in one panel: slots [slot_begin, slot_end). A list of these, in
// order of position and without gaps, is where a run of positions lives. Where a node ends inside a
// panel, its child's panel holds the rest and two refs meet in one grid panel.
struct PanelRef {
  PanelId panel = 0;
  uint8_t slot_begin = 0;
  uint8_t slot_end = 0;
  friend bool operator==(const PanelRef&, const PanelRef&) = default;
};

// Where the K and V of one row go.
struct KvSlot {
  PanelId panel = 0;
  int slot = 0;  // in [0, kPanelTokens)
};

}  // namespace banyan
