// SPDX-License-Identifier: Apache-2.0
#include "kv/pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <set>
#include <utility>

namespace banyan {
namespace {

constexpr KvShape kShape{.n_layers = 3, .n_kv_heads = 2, .head_dim = 8};

PanelPool make_pool(const KvShape& shape, uint64_t budget) {
  Result<PanelPool> pool = PanelPool::create(shape, budget);
  EXPECT_TRUE(pool.has_value());
  return std::move(pool).value();
}

TEST(PanelPool, HoldsAsManyWholePanelsAsFitTheBudget) {
  const uint64_t panel = kShape.panel_bytes();
  EXPECT_EQ(panel, 3U * 2 * 16 * 8 * (2 + 2));
  EXPECT_EQ(make_pool(kShape, panel).capacity(), 1U);
  EXPECT_EQ(make_pool(kShape, 2 * panel - 1).capacity(), 1U);
  EXPECT_EQ(make_pool(kShape, 2 * panel).capacity(), 2U);
  EXPECT_EQ(make_pool(kShape, 1000 * panel + 17).capacity(), 1000U);
}

TEST(PanelPool, ABudgetBelowOnePanelIsBadInputThatNamesTheOptionAndBothSizes) {
  for (const uint64_t budget : {uint64_t{0}, kShape.panel_bytes() - 1}) {
    const Result<PanelPool> pool = PanelPool::create(kShape, budget);
    ASSERT_FALSE(pool.has_value());
    EXPECT_EQ(pool.error().code, ErrorCode::kBadInput);
    EXPECT_NE(pool.error().message.find("--kv-budget"), std::string::npos);
    EXPECT_NE(pool.error().message.find(std::to_string(budget)), std::string::npos);
    EXPECT_NE(pool.error().message.find(std::to_string(kShape.panel_bytes())), std::string::npos);
  }
}

TEST(PanelPool, ABudgetBeyondTheAddressSpaceIsAnErrorThatNamesTheOption) {
  for (const uint64_t budget : {uint64_t{1} << 62, ~uint64_t{0}}) {
    const KvShape large{.n_layers = 64, .n_kv_heads = 64, .head_dim = 4096};
    const Result<PanelPool> pool = PanelPool::create(large, budget);
    ASSERT_FALSE(pool.has_value());
    EXPECT_NE(pool.error().message.find("--kv-budget"), std::string::npos);
  }
}

TEST(PanelPool, RandomAllocationAgreesWithASetAndNeverPassesTheBudget) {
  const uint64_t budget = 50 * kShape.panel_bytes() + 100;
  PanelPool pool = make_pool(kShape, budget);
  std::mt19937 random(1);
  std::set<PanelId> held;
  uint64_t peak = 0;
  for (int step = 0; step < 20000; ++step) {
    // Phases that lean to filling and to emptying, so that both ends are met.
    const bool grow = random() % 100 < (step / 500 % 2 == 0 ? 70U : 30U);
    if (grow) {
      const std::optional<PanelId> panel = pool.allocate();
      ASSERT_EQ(panel.has_value(), held.size() < 50);
      if (panel) {
        EXPECT_LT(*panel, pool.capacity());
        ASSERT_TRUE(held.insert(*panel).second) << "handed out twice";
      }
    } else if (!held.empty()) {
      auto it = std::next(held.begin(), random() % held.size());
      pool.release(*it);
      held.erase(it);
    }
    peak = std::max<uint64_t>(peak, held.size());
    ASSERT_EQ(pool.used(), held.size());
    ASSERT_EQ(pool.used_bytes(), held.size() * kShape.panel_bytes());
    ASSERT_LE(pool.used_bytes(), pool.budget_bytes());
    ASSERT_EQ(pool.peak_bytes(), peak * kShape.panel_bytes());
  }
  EXPECT_EQ(peak, 50U);
}

// Fills every panel of every plane with its own byte and looks whether any was overwritten.
void expect_no_overlap(const KvShape& shape, uint32_t n_panels) {
  PanelPool pool = make_pool(shape, n_panels * shape.panel_bytes());
  ASSERT_EQ(pool.capacity(), n_panels);
  std::vector<PanelId> panels;
  while (const auto panel = pool.allocate()) panels.push_back(*panel);
  ASSERT_EQ(panels.size(), n_panels);

  const auto for_each = [&](auto&& f) {
    uint8_t pattern = 1;
    for (int layer = 0; layer < shape.n_layers; ++layer) {
      const KvPlanes planes = pool.planes(layer);
      for (int head = 0; head < shape.n_kv_heads; ++head) {
        EXPECT_EQ(reinterpret_cast<uintptr_t>(planes.k_panel(head, 0)) % 64, 0U);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(planes.v_panel(head, 0)) % 64, 0U);
        for (const PanelId panel : panels) {
          f(planes.k_panel(head, panel), shape.k_panel_bytes(), pattern);
          pattern = pattern * 5 + 1;  // period 256: neighbours differ, and so do neighbour planes
          f(planes.v_panel(head, panel), shape.v_panel_bytes(), pattern);
          pattern = pattern * 5 + 1;
        }
      }
    }
  };
  for_each([](std::byte* at, uint32_t bytes, uint8_t pattern) { std::memset(at, pattern, bytes); });
  for_each([](const std::byte* at, uint32_t bytes, uint8_t pattern) {
    for (uint32_t i = 0; i < bytes; ++i) ASSERT_EQ(std::to_integer<uint8_t>(at[i]), pattern);
  });
}

TEST(PanelPool, PanelsOverlapInNoPlaneAndPlanesAreAligned) {
  expect_no_overlap(kShape, 7);
  expect_no_overlap({.n_layers = 1, .n_kv_heads = 1, .head_dim = 1}, 3);
  expect_no_overlap({.n_layers = 2, .n_kv_heads = 3, .head_dim = 5}, 9);
  expect_no_overlap({.n_layers = 2,
                     .n_kv_heads = 1,
                     .head_dim = 64,
                     .k_type = DType::kF32,
                     .v_type = DType::kBF16},
                    11);
  expect_no_overlap({.n_layers = 2,
                     .n_kv_heads = 3,
                     .head_dim = 40,
                     .k_type = DType::kQ8_0,
                     .v_type = DType::kQ8_0},
                    5);
}

// 8 bits an element and a scale of 16 for each 32 dimensions begun.
TEST(PanelPool, APanelInQ8TakesItsScalesToo) {
  const std::pair<int, uint64_t> kBytesOfHeads[] = {
      {1, 3}, {16, 18}, {32, 34}, {40, 44}, {128, 136}};
  for (const auto& [head_dim, bytes] : kBytesOfHeads) {
    const KvShape shape{1, 1, head_dim, DType::kQ8_0, DType::kF32};
    EXPECT_EQ(shape.panel_bytes(), 16 * (bytes + 4 * head_dim)) << head_dim;
  }
}

// Layers of a model may have different numbers of KV heads.
TEST(PanelPool, LayersOfDifferentShapesLieApart) {
  const KvShape shapes[] = {{.n_layers = 2, .n_kv_heads = 3, .head_dim = 5},
                            {.n_layers = 1, .n_kv_heads = 1, .head_dim = 16},
                            {.n_layers = 1, .n_kv_heads = 2, .head_dim = 5}};
  uint64_t panel_bytes = 0;
  for (const KvShape& shape : shapes) panel_bytes += shape.panel_bytes();
  auto created = PanelPool::create(shapes, 5 * panel_bytes + 1);
  ASSERT_TRUE(created) << created.error().message;
  PanelPool pool = std::move(created).value();
  EXPECT_EQ(pool.panel_bytes(), panel_bytes);
  ASSERT_EQ(pool.capacity(), 5U);
  while (pool.allocate()) {
  }
  EXPECT_EQ(pool.used_bytes(), 5 * panel_bytes);
  const auto for_each = [&](auto&& f) {
    uint8_t pattern = 1;
    for (int layer = 0; layer < 4; ++layer) {
      const KvPlanes planes = pool.planes(layer);
      EXPECT_EQ(planes.shape.n_kv_heads, layer < 2 ? 3 : layer - 1 == 1 ? 1 : 2);
      for (int head = 0; head < planes.shape.n_kv_heads; ++head) {
        for (PanelId panel = 0; panel < 5; ++panel) {
          f(planes.k_panel(head, panel), planes.shape.k_panel_bytes(), pattern++);
          f(planes.v_panel(head, panel), planes.shape.v_panel_bytes(), pattern++);
        }
      }
    }
  };
  for_each([](std::byte* at, uint32_t bytes, uint8_t pattern) { std::memset(at, pattern, bytes); });
  for_each([](const std::byte* at, uint32_t bytes, uint8_t pattern) {
    for (uint32_t i = 0; i < bytes; ++i) ASSERT_EQ(std::to_integer<uint8_t>(at[i]), pattern);
  });
}

// The K and V of one position as the layout defines them, byte by byte.
std::vector<std::byte> position_bytes(const PanelPool& pool, int n_layers, const KvSlot& slot) {
  std::vector<std::byte> bytes;
  for (int layer = 0; layer < n_layers; ++layer) {
    const KvPlanes planes = pool.planes(layer);
    const KvShape& shape = planes.shape;
    const size_t k = element_bytes(shape.k_type);
    const size_t v = element_bytes(shape.v_type);
    for (int head = 0; head < shape.n_kv_heads; ++head) {
      const std::byte* k_panel = planes.k_panel(head, slot.panel);
      const std::byte* v_panel = planes.v_panel(head, slot.panel);
      for (size_t d = 0; d < size_t(shape.head_dim); ++d) {
        const std::byte* of_k = k_panel + (d * kPanelTokens + slot.slot) * k;
        const std::byte* of_v = v_panel + (size_t(slot.slot) * shape.head_dim + d) * v;
        bytes.insert(bytes.end(), of_k, of_k + k);
        bytes.insert(bytes.end(), of_v, of_v + v);
      }
      if (shape.k_type != DType::kQ8_0) continue;
      for (int block = 0; block < scale_blocks(shape.head_dim); ++block) {
        const size_t at = scales_offset(shape.head_dim) + (block * kPanelTokens + slot.slot) * 2;
        bytes.insert(bytes.end(), k_panel + at, k_panel + at + 2);
        bytes.insert(bytes.end(), v_panel + at, v_panel + at + 2);
      }
    }
  }
  return bytes;
}

TEST(PanelPool, CopiesPositionsAndNothingElse) {
  std::mt19937 random(2);
  constexpr uint32_t kPanels = 6;
  for (const DType type : {DType::kF32, DType::kF16, DType::kQ8_0}) {
    const KvShape shape{
        .n_layers = 2, .n_kv_heads = 2, .head_dim = 40, .k_type = type, .v_type = type};
    PanelPool pool = make_pool(shape, kPanels * shape.panel_bytes());
    for (int layer = 0; layer < 2; ++layer) {
      const KvPlanes planes = pool.planes(layer);
      for (int head = 0; head < 2; ++head) {
        for (PanelId panel = 0; panel < kPanels; ++panel) {
          for (std::byte* at : {planes.k_panel(head, panel), planes.v_panel(head, panel)}) {
            for (uint32_t i = 0; i < shape.k_panel_bytes(); ++i) at[i] = std::byte(random() % 256);
          }
        }
      }
    }
    for (int trial = 0; trial < 20; ++trial) {
      std::vector<KvSlot> slots;
      for (PanelId panel = 0; panel < kPanels; ++panel) {
        for (int slot = 0; slot < kPanelTokens; ++slot) slots.push_back({panel, slot});
      }
      std::vector<std::vector<std::byte>> want;
      for (const KvSlot& slot : slots) want.push_back(position_bytes(pool, 2, slot));
      std::vector<size_t> places(slots.size());
      std::iota(places.begin(), places.end(), 0);
      std::shuffle(places.begin(), places.end(), random);
      const auto before = want;
      std::vector<KvSlot> from;
      std::vector<KvSlot> to;
      for (size_t i = 0; i < 30; ++i) {
        const size_t source = random() % slots.size();  // some are written too
        from.push_back(slots[source]);
        to.push_back(slots[places[i]]);
        want[places[i]] = before[source];
      }
      pool.copy(from, to);
      for (size_t i = 0; i < slots.size(); ++i) {
        ASSERT_EQ(position_bytes(pool, 2, slots[i]), want[i]) << i;
      }
    }
  }
}

}  // namespace
}  // namespace banyan
