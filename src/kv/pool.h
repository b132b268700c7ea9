// SPDX-License-Identifier: Apache-2.0
#pragma once
// The memory of all KV: panels from one reservation under one budget. A panel holds its positions
// for all layers, whose shapes may differ. Thread rule: engine thread only.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "base/ids.h"
#include "base/result.h"
#include "tensor/kv_layout.h"

namespace banyan {

class PanelPool {
 public:
  // Room for floor(budget_bytes / panel_bytes()) panels. `shapes`: of runs of layers, one after
  // another, n_layers in each. Address space is taken now, memory as panels are first written.
  // kBadInput if not even one panel fits, kFailed if the address space cannot be had; both name
  // --kv-budget. Requires shapes whose counts are all > 0.
  static Result<PanelPool> create(std::span<const KvShape> shapes, uint64_t budget_bytes);
  static Result<PanelPool> create(const KvShape& shape, uint64_t budget_bytes) {
    return create(std::span(&shape, 1), budget_bytes);
  }

  // A panel with unspecified contents (zeros, or what an earlier owner wrote); nothing when the
  // budget is used up. O(1), no heap allocation.
  std::optional<PanelId> allocate();

  // Gives back a panel of allocate(). O(1), no heap allocation.
  void release(PanelId panel);

  // Copies the K and V of positions, in all layers: to[i] gets what from[i] held, though some slots
  // of `to` lie in panels of `from`. Requires distinct slots in `to`.
  void copy(std::span<const KvSlot> from, std::span<const KvSlot> to);

  // The planes of one layer, counted through all shapes. Every plane begins at a multiple of 64
  // bytes and holds `capacity()` panels.
  KvPlanes planes(int layer) const;

  uint64_t panel_bytes() const { return panel_bytes_; }  // in all planes
  uint32_t capacity() const { return capacity_; }        // panels
  uint32_t used() const { return used_; }                // panels
  uint64_t used_bytes() const { return used_ * panel_bytes_; }
  uint64_t peak_bytes() const { return peak_ * panel_bytes_; }
  uint64_t budget_bytes() const { return budget_bytes_; }

 private:
  Result<void> reserve(std::span<const KvShape> shapes);

  uint64_t panel_bytes_ = 0;
  uint64_t budget_bytes_ = 0;
  std::vector<KvPlanes> layers_;
  uint32_t capacity_ = 0;
  uint32_t used_ = 0;
  uint32_t peak_ = 0;
  uint32_t next_fresh_ = 0;    // panels [next_fresh_, capacity_) were never used
  std::vector<PanelId> free_;  // released ones, last in first out; capacity: capacity_
  PageReservation memory_;
};

}  // namespace banyan
