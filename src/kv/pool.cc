// SPDX-License-Identifier: Apache-2.0
#include "kv/pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"

namespace banyan {
namespace {

constexpr uint64_t kPlaneAlignment = 64;  // a cache line, and the widest vector

uint64_t align_up(uint64_t bytes) {
  return (bytes + kPlaneAlignment - 1) / kPlaneAlignment * kPlaneAlignment;
}

}  // namespace

Result<PanelPool> PanelPool::create(const KvShape& shape, uint64_t budget_bytes) {
  BANYAN_CHECK(shape.n_layers > 0 && shape.n_kv_heads > 0 && shape.head_dim > 0,
               "a KV shape has layers, heads and dimensions");
  const uint64_t panel_bytes = shape.panel_bytes();
  if (budget_bytes < panel_bytes) {
    return bad_input(
        fmt::format("--kv-budget {} ({} bytes) is too small: {} positions of this model's KV need "
                    "{} bytes ({})",
                    format_bytes(budget_bytes), budget_bytes, kPanelTokens, panel_bytes,
                    format_bytes(panel_bytes)));
  }

  PanelPool pool;
  pool.shape_ = shape;
  pool.budget_bytes_ = budget_bytes;
  // The highest id stays free, so that counts of panels fit PanelId too.
  pool.capacity_ = static_cast<uint32_t>(
      std::min<uint64_t>(budget_bytes / panel_bytes, std::numeric_limits<PanelId>::max() - 1));
  // No overflow: capacity * panel bytes <= budget, and what alignment adds is checked below.
  pool.k_plane_bytes_ = align_up(uint64_t{pool.capacity_} * shape.k_panel_bytes());
  pool.v_plane_bytes_ = align_up(uint64_t{pool.capacity_} * shape.v_panel_bytes());
  const uint64_t planes = uint64_t(shape.n_layers) * shape.n_kv_heads;
  const std::optional<uint64_t> bytes =
      checked_mul(pool.k_plane_bytes_ + pool.v_plane_bytes_, planes);
  if (!bytes) {
    return bad_input(
        fmt::format("--kv-budget {} is larger than an address space", format_bytes(budget_bytes)));
  }
  Result<PageReservation> memory = PageReservation::reserve(*bytes);
  if (!memory) {
    return Error{memory.error().code,
                 fmt::format("--kv-budget {} cannot be had: {}", format_bytes(budget_bytes),
                             memory.error().message)};
  }
  pool.memory_ = std::move(memory).value();
  try {
    pool.free_.reserve(pool.capacity_);  // untouched pages until panels are released
  } catch (const std::bad_alloc&) {
    return failed(fmt::format("--kv-budget {} cannot be had: no memory to keep account of it",
                              format_bytes(budget_bytes)));
  }
  return pool;
}

std::optional<PanelId> PanelPool::allocate() {
  if (used_ == capacity_) return std::nullopt;
  PanelId panel;
  if (!free_.empty()) {
    // Last in first out: the panel most likely still in a cache.
    panel = free_.back();
    free_.pop_back();
  } else {
    panel = next_fresh_++;
  }
  ++used_;
  peak_ = std::max(peak_, used_);
  return panel;
}

void PanelPool::release(PanelId panel) {
  BANYAN_CHECK(panel < next_fresh_ && used_ > 0, "a released panel was allocated");
  free_.push_back(panel);  // within its capacity
  --used_;
}

KvPlanes PanelPool::planes(int layer) const {
  BANYAN_CHECK(layer >= 0 && layer < shape_.n_layers, "a layer of this pool");
  const uint64_t layer_bytes = (k_plane_bytes_ + v_plane_bytes_) * shape_.n_kv_heads;
  std::byte* base = memory_.data() + layer * layer_bytes;
  KvPlanes planes;
  planes.shape = shape_;
  planes.k = base;
  planes.v = base + k_plane_bytes_ * shape_.n_kv_heads;
  planes.k_head_stride = k_plane_bytes_;
  planes.v_head_stride = v_plane_bytes_;
  return planes;
}

}  // namespace banyan
