// SPDX-License-Identifier: Apache-2.0
#include "engine/normal_table.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "base/check.h"
#include "tensor/cpu/kernels.h"

namespace banyan {
namespace {

constexpr size_t kTableSize = size_t{1} << 20;

// Of q8_0 the numbers of 8 bits, for scales of about kQ8Scale.
constexpr float kQ8Scale = 1.0f / 32;

std::vector<std::byte> as_type(const std::vector<float>& table, DType type, Isa isa) {
  std::vector<std::byte> stored(table.size() * element_bytes(type));
  const auto n = static_cast<int64_t>(table.size());
  if (type == DType::kF32) {
    std::memcpy(stored.data(), table.data(), stored.size());
  } else if (type == DType::kQ8_0) {
    std::transform(table.begin(), table.end(), stored.begin(), [](float x) {
      const auto number = static_cast<int8_t>(std::clamp(std::round(x / kQ8Scale), -127.f, 127.f));
      return static_cast<std::byte>(number);
    });
  } else if (type == DType::kF16) {
    kernels(isa).f32_to_f16(table.data(), reinterpret_cast<uint16_t*>(stored.data()), n);
  } else {
    kernels(isa).f32_to_bf16(table.data(), reinterpret_cast<uint16_t*>(stored.data()), n);
  }
  return stored;
}

// splitmix64 (Steele, Lea, Flood 2014): a well mixed number for each index.
uint64_t mixed(uint64_t index) {
  uint64_t z = (index + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Where piece `index` of `size` numbers begins in the table.
size_t table_offset(uint64_t index, size_t size) { return mixed(index) % (kTableSize - size + 1); }

}  // namespace

NormalTable::NormalTable() : numbers_(kTableSize) {
  std::mt19937_64 bits(1);
  std::normal_distribution<float> normal;
  for (float& number : numbers_) number = normal(bits);
}

void NormalTable::fill_kv(PanelPool& kv, ThreadPool& pool, Isa isa) const {
  const KvShape shape = kv.planes(0).shape;
  BANYAN_CHECK(size_t(shape.head_dim) * kPanelTokens <= kTableSize, "a panel fits the table");
  const std::vector<std::byte> stored = as_type(numbers_, shape.k_type, isa);
  const size_t element = element_bytes(shape.k_type);
  const size_t panel_size = static_cast<size_t>(shape.head_dim) * kPanelTokens;
  std::vector<std::byte> scales;  // as many as there are numbers in the table, from 1/2 to 3/2
  if (shape.k_type == DType::kQ8_0) {
    std::vector<float> factors(numbers_.size());
    for (size_t i = 0; i < factors.size(); ++i) {
      factors[i] = kQ8Scale * (0.5f + static_cast<float>(mixed(i) % 1024) / 1024);
    }
    scales = as_type(factors, DType::kF16, isa);
  }
  const size_t n_scales = size_t(scale_blocks(shape.head_dim)) * kPanelTokens;
  const auto write = [&](std::byte* to, uint64_t piece) {
    const size_t from = table_offset(piece, panel_size);
    std::memcpy(to, stored.data() + from * element, panel_size * element);
    if (scales.empty()) return;
    std::memcpy(to + scales_offset(shape.head_dim), scales.data() + from * sizeof(uint16_t),
                n_scales * sizeof(uint16_t));
  };
  const uint32_t n_panels = kv.capacity();
  for (int layer = 0; layer < shape.n_layers; ++layer) {
    const KvPlanes planes = kv.planes(layer);
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      const uint64_t plane = uint64_t(layer) * shape.n_kv_heads + head;
      pool.parallel_for(n_panels, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t panel = begin; panel < end; ++panel) {
          const uint64_t piece = (plane * n_panels + panel) * 2;
          write(planes.k_panel(head, static_cast<PanelId>(panel)), piece);
          write(planes.v_panel(head, static_cast<PanelId>(panel)), piece + 1);
        }
      });
    }
  }
}

void NormalTable::fill_rows(std::span<float> rows, int dim, ThreadPool& pool) const {
  BANYAN_CHECK(rows.size() % dim == 0 && size_t(dim) <= kTableSize,
               "whole rows that fit the table");
  pool.parallel_for(static_cast<int64_t>(rows.size()) / dim, 1,
                    [&](int64_t begin, int64_t end, int) {
                      for (int64_t i = begin; i < end; ++i) {
                        const uint64_t piece = ~static_cast<uint64_t>(i);  // none of a panel
                        const float* from = numbers_.data() + table_offset(piece, dim);
                        std::copy(from, from + dim, rows.data() + i * dim);
                      }
                    });
}

}  // namespace banyan
