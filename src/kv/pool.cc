// SPDX-License-Identifier: Apache-2.0
#include "kv/pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
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

Result<PanelPool> PanelPool::create(std::span<const KvShape> shapes, uint64_t budget_bytes) {
  PanelPool pool;
  for (const KvShape& shape : shapes) {
    BANYAN_CHECK(shape.n_layers > 0 && shape.n_kv_heads > 0 && shape.head_dim > 0,
                 "a KV shape has layers, heads and dimensions");
    pool.panel_bytes_ += shape.panel_bytes();
  }
  BANYAN_CHECK(pool.panel_bytes_ > 0, "a pool is for some layers");
  if (budget_bytes < pool.panel_bytes_) {
    return bad_input(
        fmt::format("--kv-budget {} ({} bytes) is too small: {} positions of this model's KV need "
                    "{} bytes ({})",
                    format_bytes(budget_bytes), budget_bytes, kPanelTokens, pool.panel_bytes_,
                    format_bytes(pool.panel_bytes_)));
  }
  pool.budget_bytes_ = budget_bytes;
  // The highest id stays free, so that counts of panels fit PanelId too.
  pool.capacity_ = static_cast<uint32_t>(std::min<uint64_t>(
      budget_bytes / pool.panel_bytes_, std::numeric_limits<PanelId>::max() - 1));
  if (Result<void> reserved = pool.reserve(shapes); !reserved) return reserved.error();
  try {
    pool.free_.reserve(pool.capacity_);  // untouched pages until panels are released
  } catch (const std::bad_alloc&) {
    return failed(fmt::format("--kv-budget {} cannot be had: no memory to keep account of it",
                              format_bytes(budget_bytes)));
  }
  return pool;
}

// Lays out [layer][K planes of all heads, V planes of all heads].
Result<void> PanelPool::reserve(std::span<const KvShape> shapes) {
  const auto too_large = [this] {
    return bad_input(
        fmt::format("--kv-budget {} is larger than an address space", format_bytes(budget_bytes_)));
  };
  std::vector<uint64_t> offsets;
  uint64_t total = 0;
  for (const KvShape& shape : shapes) {
    // No overflow: capacity * panel bytes <= budget, and what alignment adds is checked.
    const uint64_t k_plane = align_up(uint64_t{capacity_} * shape.k_panel_bytes());
    const uint64_t v_plane = align_up(uint64_t{capacity_} * shape.v_panel_bytes());
    const auto layer = checked_mul(k_plane + v_plane, shape.n_kv_heads);
    for (int i = 0; i < shape.n_layers; ++i) {
      layers_.push_back({shape, nullptr, nullptr, k_plane, v_plane});
      offsets.push_back(total);
      const auto next = layer ? checked_add(total, *layer) : layer;
      if (!next) return too_large();
      total = *next;
    }
  }
  Result<PageReservation> memory = PageReservation::reserve(total);
  if (!memory) {
    return Error{memory.error().code,
                 fmt::format("--kv-budget {} cannot be had: {}", format_bytes(budget_bytes_),
                             memory.error().message)};
  }
  memory_ = std::move(memory).value();
  for (size_t i = 0; i < layers_.size(); ++i) {
    KvPlanes& planes = layers_[i];
    planes.k = memory_.data() + offsets[i];
    planes.v = planes.k + planes.k_head_stride * planes.shape.n_kv_heads;
  }
  return {};
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

void PanelPool::copy(std::span<const KvSlot> from, std::span<const KvSlot> to) {
  BANYAN_CHECK(from.size() == to.size(), "a slot for each position");
  std::vector<std::byte> held;
  // What a slot has of a plane: `n` elements, `stride` bytes from each other.
  const auto copy_elements = [&]<class T>(T, auto panel, size_t first, size_t slot_stride, int n,
                                          size_t stride) {
    const auto elements = [&](const KvSlot& slot) {
      return panel(slot.panel) + first + slot.slot * slot_stride;
    };
    held.resize(from.size() * n * sizeof(T));
    std::byte* next = held.data();
    for (const KvSlot& slot : from) {
      const std::byte* element = elements(slot);
      for (int i = 0; i < n; ++i, next += sizeof(T)) {
        std::memcpy(next, element + i * stride, sizeof(T));
      }
    }
    next = held.data();
    for (const KvSlot& slot : to) {
      std::byte* element = elements(slot);
      for (int i = 0; i < n; ++i, next += sizeof(T)) {
        std::memcpy(element + i * stride, next, sizeof(T));
      }
    }
  };
  const auto copy_values = [&](DType type, auto panel, size_t slot_stride, int n, size_t stride) {
    const size_t bytes = element_bytes(type);
    const auto copy_as = [&](auto element) {
      copy_elements(element, panel, 0, bytes * slot_stride, n, bytes * stride);
    };
    if (bytes == 4) {
      copy_as(uint32_t{});
    } else if (bytes == 2) {
      copy_as(uint16_t{});
    } else {
      copy_as(uint8_t{});
    }
  };
  const auto copy_scales = [&](DType type, auto panel, int head_dim) {
    if (type != DType::kQ8_0) return;
    copy_elements(uint16_t{}, panel, scales_offset(head_dim), sizeof(uint16_t),
                  scale_blocks(head_dim), kPanelTokens * sizeof(uint16_t));
  };
  for (const KvPlanes& planes : layers_) {
    const KvShape& shape = planes.shape;
    const int dim = shape.head_dim;
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      const auto k_panel = [&](PanelId panel) { return planes.k_panel(head, panel); };
      const auto v_panel = [&](PanelId panel) { return planes.v_panel(head, panel); };
      copy_values(shape.k_type, k_panel, 1, dim, kPanelTokens);
      copy_values(shape.v_type, v_panel, dim, dim, 1);
      copy_scales(shape.k_type, k_panel, dim);
      copy_scales(shape.v_type, v_panel, dim);
    }
  }
}

KvPlanes PanelPool::planes(int layer) const {
  BANYAN_CHECK(layer >= 0 && static_cast<size_t>(layer) < layers_.size(), "a layer of this pool");
  return layers_[layer];
}

}  // namespace banyan
