// SPDX-License-Identifier: Apache-2.0
#include "kv/pool.h"

#include <gtest/gtest.h>

#include <cstring>
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

}  // namespace
}  // namespace banyan
