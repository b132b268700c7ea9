// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "attention/cpu/testing_tiles.h"
#include "attention/cpu/work_item.h"
#include "attention/testing_case.h"
#include "base/isa.h"
#include "base/thread_pool.h"

namespace banyan::testing {
namespace {

std::vector<Isa> machine_isas() {
  std::vector<Isa> isas{Isa::kBaseline};
  for (Isa isa : {Isa::kSse4, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa <= detect_isa()) isas.push_back(isa);
  }
  return isas;
}

class CpuExecutorOnEachIsa : public ::testing::TestWithParam<Isa> {
 protected:
  ThreadPool pool_{2};
  std::unique_ptr<AttentionExecutor> executor_ = make_cpu_executor(pool_, {.isa = GetParam()});
};

INSTANTIATE_TEST_SUITE_P(, CpuExecutorOnEachIsa, ::testing::ValuesIn(machine_isas()),
                         [](const auto& isa_info) { return std::string(name(isa_info.param)); });

constexpr int kHeadDims[] = {16, 24, 32, 64, 80, 96, 128, 256, 1, 3, 17, 40, 72, 100, 255};
constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0};

// Largest difference over the root mean square of the truth. Rounding of a sequential f32 sum over
// head_dim grows with its length, and the largest of some 10^5 outputs is 5 times the usual error.
double tolerance(const Case& c) { return 1e-5 * std::max(1.0, c.shape.head_dim / 64.0); }

CaseOptions random_options(uint32_t seed, std::mt19937& random) {
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  CaseOptions options{.seed = seed};
  options.n_sequences = draw(1, 5);
  options.max_node_len = draw(0, 3) == 0 ? 500 : 90;
  options.max_rows = draw(0, 2) == 0 ? 130 : 5;
  options.n_kv_heads = draw(1, 3);
  options.heads_per_kv_head = draw(0, 3) == 0 ? draw(1, 16) : draw(1, 4);
  options.head_dim = kHeadDims[seed % std::size(kHeadDims)];
  options.type = kTypes[draw(0, 2)];
  if (seed % 7 == 0) options.type = DType::kQ8_0;
  options.split_probability = draw(0, 1) == 0 ? 0 : 0.05;
  return options;
}

TEST_P(CpuExecutorOnEachIsa, AgreesWithTheOracleOverRandomShapes) {
  for (uint32_t seed = 0; seed < 90; ++seed) {
    std::mt19937 random(seed * 7919 + 1);
    Case c = make_case(random_options(seed, random));
    AttendOptions attend{.scale = default_scale(c)};
    if (random() % 3 == 0) attend.window = 1 + int32_t(random() % 200);
    if (random() % 4 == 0) attend.softcap = 20;
    const DeviceDescription device{.n_workers = 1 + int(random() % 9),
                                   .prefill_row_tile = 1 + int(random() % 70)};
    const Answer truth = oracle(c, attend);
    const Answer got = run_case(*executor_, c, attend, device);
    ASSERT_LT(relative_error(got.out, truth.out), tolerance(c))
        << "seed " << seed << " head_dim " << c.shape.head_dim << " window " << attend.window;
    ASSERT_LT(relative_error(got.lse, truth.lse), 1e-5) << "seed " << seed;
  }
}

TEST_P(CpuExecutorOnEachIsa, AgreesWithTheOracleForEveryNumberOfRowsAndType) {
  for (size_t type = 0; type < std::size(kTypes); ++type) {
    for (int rows = 1; rows <= 130; ++rows) {
      Case c = make_case({.seed = uint32_t(rows),
                          .min_node_len = rows + 61,
                          .max_node_len = rows + 61,
                          .max_rows = rows,
                          .all_max_rows = true,
                          .head_dim = kHeadDims[(rows + type) % 8],
                          .type = kTypes[type]});
      const AttendOptions attend{.scale = default_scale(c)};
      ASSERT_LT(relative_error(run_case(*executor_, c, attend).out, oracle(c, attend).out),
                tolerance(c))
          << rows << " rows of type " << static_cast<int>(kTypes[type]);
    }
  }
}

// Root mean square of the differences over that of the truth.
double mean_error(const std::vector<float>& got, const std::vector<float>& truth) {
  double squares = 0;
  double differences = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    squares += double{truth[i]} * truth[i];
    differences += (double{got[i]} - truth[i]) * (double{got[i]} - truth[i]);
  }
  return std::sqrt(differences / squares);
}

// Products of pairs are taken by many rows, and close to the truth: in bf16, where these see many
// keys, four roundings of 2^-9 at most, averaged over the keys; as whole numbers a seventh of that.
// The largest of 10^5 errors is met where a row gives much of its weight to one key.
class CpuExecutorInPairs : public InPairs {
 protected:
  ThreadPool pool_{2};
  std::unique_ptr<AttentionExecutor> executor_ = make_cpu_executor(pool_, detect_isa(), kernels_);
  const double coarse_ = kernels_->is_bf16 ? 1 : 0.15;
};

INSTANTIATE_TEST_SUITE_P(, CpuExecutorInPairs, ::testing::ValuesIn(machine_ways()),
                         [](const auto& way) { return name(way.param); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(CpuExecutorInPairs);

TEST_P(CpuExecutorInPairs, AgreesWithTheReference) {
  const auto reference = make_reference_executor();
  int in_pairs = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed * 104729 + 3);
    CaseOptions options = random_options(seed, random);
    const bool is_long = seed % 4 != 0;
    options.n_sequences = 1 + int(seed % 2);
    options.min_node_len = is_long ? 1100 : 0;
    options.max_node_len = is_long ? 1300 : 500;
    options.n_kv_heads = 1;
    options.max_rows = 20 + int(random() % 60);
    options.heads_per_kv_head = 1 + int(random() % 4);
    Case c = make_case(options);
    AttendOptions attend{.scale = default_scale(c)};
    if (random() % 3 == 0) attend.window = 900 + int32_t(random() % 300);
    if (random() % 4 == 0) attend.softcap = 20;
    const DeviceDescription device{.n_workers = 1 + int(random() % 9),
                                   .prefill_row_tile = 1 + int(random() % 70)};
    const Answer truth = run_case(*reference, c, attend, device);
    const Answer got = run_case(*executor_, c, attend, device);
    const double error = relative_error(got.out, truth.out);
    ASSERT_LT(mean_error(got.out, truth.out), coarse_ * 4e-3) << "seed " << seed;
    ASSERT_LT(error, c.shape.k_type == DType::kF32 ? tolerance(c) : coarse_ * 4e-2)
        << "seed " << seed << " head_dim " << c.shape.head_dim << " window " << attend.window;
    ASSERT_LT(relative_error(got.lse, truth.lse), coarse_ * 4e-3) << "seed " << seed;
    if (error > tolerance(c)) ++in_pairs;
  }
  EXPECT_GT(in_pairs, 15);
}

TEST_P(CpuExecutorInPairs, AgreesWithTheOracleForEveryNumberOfRows) {
  int in_pairs = 0;
  for (int rows = 1; rows <= 130; ++rows) {
    Case c = make_case({.seed = uint32_t(rows),
                        .min_node_len = rows + 400,
                        .max_node_len = rows + 400,
                        .max_rows = rows,
                        .all_max_rows = true,
                        .head_dim = kHeadDims[rows % 8],
                        .type = kTypes[1 + rows % 3],
                        .q_scale = 0.5,  // no key has most of a row's weight
                        .split_probability = rows % 5 == 0 ? 0.002 : 0});
    AttendOptions attend{.scale = default_scale(c)};
    if (rows % 7 < 2) attend.window = 300;
    if (rows % 4 == 0) attend.softcap = 20;
    const Answer truth = oracle(c, attend);
    const Answer got = run_case(*executor_, c, attend);
    const double error = relative_error(got.out, truth.out);
    ASSERT_LT(error, coarse_ * 2e-2)
        << rows << " rows of type " << static_cast<int>(c.shape.k_type);
    ASSERT_LT(mean_error(got.out, truth.out), coarse_ * 5e-3) << rows;
    if (error > tolerance(c)) ++in_pairs;
  }
  EXPECT_GT(in_pairs, 80);
}

TEST(PairKernelsFor, AreTilesWhereTheyAreAllowedAndWholeNumbersWithVnni) {
  for (const Isa isa : {Isa::kBaseline, Isa::kSse4, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    EXPECT_EQ(pair_kernels_for(isa, false, false), nullptr) << name(isa);
    if (isa < Isa::kAvx512) {
      EXPECT_EQ(pair_kernels_for(isa, true, true), nullptr) << name(isa);
    }
  }
  EXPECT_EQ(pair_kernels_for(Isa::kAvx512, true, true), integer_kernels());
  EXPECT_EQ(pair_kernels_for(Isa::kAvx512, false, true), nullptr);
  EXPECT_EQ(pair_kernels_for(Isa::kAmx, true, true), tile_kernels());
  EXPECT_EQ(pair_kernels_for(Isa::kAmx, true, false), integer_kernels());
}

TEST_P(CpuExecutorOnEachIsa, TakesTheKernelsOfPairsThatItsOptionsAllow) {
  Case c = make_case({.min_node_len = 700,
                      .max_node_len = 700,
                      .max_rows = 50,
                      .all_max_rows = true,
                      .head_dim = 64,
                      .type = DType::kF16});
  const AttendOptions attend{.scale = default_scale(c)};
  const Isa isa = GetParam();
  for (const bool allowed : {false, true}) {
    const auto chosen = make_cpu_executor(pool_, {.isa = isa, .pair_products = allowed});
    const PairKernels* kernels =
        allowed ? pair_kernels_for(isa, has_avx512_vnni(), has_avx512_bf16()) : nullptr;
    const auto given = make_cpu_executor(pool_, isa, kernels);
    EXPECT_TRUE(same_bits(run_case(*chosen, c, attend), run_case(*given, c, attend))) << allowed;
  }
}

TEST_P(CpuExecutorInPairs, KeepsInfinityInALaterValueFromRowsThatDoNotSeeIt) {
  Case c = make_case({.seed = 5,
                      .min_node_len = 1300,
                      .max_node_len = 1300,
                      .max_rows = 40,
                      .all_max_rows = true,
                      .heads_per_kv_head = 3,
                      .head_dim = 32,
                      .type = DType::kF16});
  std::fill_n(c.v_value(c.stored_positions() - 1, 0), 32, std::numeric_limits<float>::infinity());
  lay_out(c, 1, 0);
  const Answer got = run_case(*executor_, c, {.scale = default_scale(c)});
  const size_t others = got.out.size() - size_t{3} * 32;  // all rows but the last
  for (size_t i = 0; i < got.out.size(); ++i) {
    ASSERT_EQ(std::isfinite(got.out[i]), i < others) << i;
  }
}

TEST_P(CpuExecutorOnEachIsa, AgreesWithTheReferenceOnLongContextsThatAreCutIntoSegments) {
  const auto reference = make_reference_executor();
  for (uint32_t seed = 0; seed < 8; ++seed) {
    Case c = make_case({.seed = seed,
                        .n_sequences = 1 + int(seed % 2),
                        .min_node_len = 900,
                        .max_node_len = 3000,
                        .max_rows = 8,
                        .n_kv_heads = 2,
                        .heads_per_kv_head = 3,
                        .head_dim = 32,
                        .type = kTypes[(seed + seed / 4) % 4],
                        .split_probability = 0.01});
    AttendOptions attend{.scale = default_scale(c)};
    if (seed >= 5) attend.window = 1500;
    Plan plan;
    make_plan(PlanMethod::kAuto, c.view(), c.row_shape(attend.window), {.n_workers = 8}, plan);
    ASSERT_FALSE(plan.merges.empty());
    const Answer truth = run_plan(*reference, plan, c, attend);
    const Answer got = run_plan(*executor_, plan, c, attend);
    ASSERT_LT(relative_error(got.out, truth.out), 1e-5) << "seed " << seed;
    ASSERT_LT(relative_error(got.lse, truth.lse), 1e-5) << "seed " << seed;
  }
}

TEST_P(CpuExecutorOnEachIsa, GivesTheSameBitsHoweverThePlanIsCutAndWhoeverWorks) {
  ThreadPool one(1);
  ThreadPool three(3);
  const auto alone = make_cpu_executor(one, {.isa = GetParam()});
  const auto crowd = make_cpu_executor(three, {.isa = GetParam()});
  for (uint32_t seed = 0; seed < 12; ++seed) {
    Case c = make_case({.seed = seed,
                        .n_sequences = 1 + int(seed % 3),
                        .min_node_len = 100,
                        .max_node_len = 2200,
                        .max_rows = seed % 2 == 0 ? 3 : 70,
                        .n_kv_heads = 2,
                        .heads_per_kv_head = 1 + int(seed % 4),
                        .head_dim = seed % 4 == 3 ? 20 : 32,
                        .type = kTypes[(seed + seed / 4) % 4]});
    AttendOptions attend{.scale = default_scale(c)};
    if (seed % 3 == 2) attend.window = 1300;
    const Answer whole = run_case(*alone, c, attend, {.n_workers = 1, .prefill_row_tile = 64});
    for (const DeviceDescription device :
         {DeviceDescription{2, 64}, {64, 64}, {1000, 5}, {1, 1}, {1, 1000}, {1000, 1}}) {
      for (const auto& executor : {alone.get(), executor_.get(), crowd.get()}) {
        ASSERT_TRUE(same_bits(run_case(*executor, c, attend, device), whole))
            << "seed " << seed << " workers " << device.n_workers << " row tile "
            << device.prefill_row_tile;
      }
    }
  }
}

TEST_P(CpuExecutorOnEachIsa, GivesTheSameBitsHoweverPanelsAreSplit) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    Case c = make_case({.seed = seed,
                        .n_sequences = 2,
                        .max_node_len = 700,
                        .max_rows = seed % 2 == 0 ? 1 : 40,
                        .n_kv_heads = 2,
                        .heads_per_kv_head = 3,
                        .head_dim = seed % 3 == 2 ? 40 : 64,
                        .type = kTypes[(seed + seed / 4) % 4]});
    const AttendOptions attend{.scale = default_scale(c)};
    const Answer whole = run_case(*executor_, c, attend);
    for (double probability : {0.01, 0.2, 1.0}) {
      lay_out(c, seed + 100, probability);
      ASSERT_TRUE(same_bits(run_case(*executor_, c, attend), whole)) << "seed " << seed;
    }
  }
}

constexpr PlanMethod kSharingMethods[] = {PlanMethod::kTwoPhase, PlanMethod::kNode,
                                          PlanMethod::kNodeChunk, PlanMethod::kFlatten,
                                          PlanMethod::kAuto};

// Trees of several levels, with rows that decode and rows that read a prompt under one node.
Case shared_case(uint32_t seed, int max_node_len) {
  return make_case({.seed = seed,
                    .n_sequences = 2 + int(seed % 16),
                    .min_node_len = 1,
                    .max_node_len = max_node_len,
                    .max_rows = seed % 3 == 0 ? 40 : 1,
                    .n_kv_heads = 1 + int(seed % 3),
                    .heads_per_kv_head = 1 + int(seed % 4),
                    .head_dim = kHeadDims[seed % 8],
                    .type = kTypes[(seed + seed / 4) % 4],
                    .inner_probability = seed % 5 == 2 ? 0.5 : 0});
}

TEST_P(CpuExecutorOnEachIsa, AgreesWithTheOracleWhateverIsReadOnceForSeveral) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    Case c = shared_case(seed, seed % 4 == 0 ? 700 : 90);
    AttendOptions attend{.scale = default_scale(c), .softcap = seed % 5 == 0 ? 20.0f : 0.0f};
    if (seed % 4 == 1) attend.window = 1 + int32_t(seed * 7);
    const Answer truth = oracle(c, attend);
    for (const PlanMethod method : kSharingMethods) {
      for (const bool deterministic : {false, true}) {
        const DeviceDescription device{.n_workers = 1 + int(seed % 9),
                                       .deterministic = deterministic,
                                       .block = seed % 2 == 0 ? 128 : 16 + int32_t(seed * 5),
                                       .costs = {.item = seed % 2 == 0 ? 500.0 : 0.0}};
        const Answer got = run_case(*executor_, c, attend, device, method);
        ASSERT_LT(relative_error(got.out, truth.out), tolerance(c))
            << "seed " << seed << " " << name(method) << " head_dim " << c.shape.head_dim;
        ASSERT_LT(relative_error(got.lse, truth.lse), 1e-5) << "seed " << seed;
      }
    }
  }
}

TEST_P(CpuExecutorOnEachIsa, GivesTheSameBitsWhateverIsReadOnceForSeveral) {
  int shared = 0;
  for (uint32_t seed = 0; seed < 16; ++seed) {
    Case c = shared_case(seed, 1800);
    AttendOptions attend{.scale = default_scale(c)};
    if (seed % 4 == 3) attend.window = 1300;
    const Answer alone = run_case(*executor_, c, attend);
    for (const PlanMethod method : kSharingMethods) {
      for (const int workers : {1, 7, 100}) {
        Plan plan;
        make_plan(method, c.view(), c.row_shape(attend.window), {.n_workers = workers}, plan);
        for (const Partial& partial : plan.partials) {
          for (const SequenceView& s : c.sequences) {
            shared += partial.row_begin < s.row_begin && s.row_end <= partial.row_end ? 1 : 0;
          }
        }
        ASSERT_TRUE(same_bits(run_plan(*executor_, plan, c, attend), alone))
            << "seed " << seed << " " << name(method) << " workers " << workers;
      }
    }
  }
  EXPECT_GT(shared, 50);  // rows of several sequences were together
}

// One row of a case as a step of its own; later keys are in the panels already or not at all.
Case one_row(const Case& c, uint32_t row, bool later_keys_exist) {
  Case one = c;
  one.row_pos = {c.row_pos[row]};
  one.sequences[0] = {c.sequences[0].leaf, 0, 1};
  const size_t row_floats = size_t(c.n_heads) * c.shape.head_dim;
  one.q.assign(c.q.begin() + row * row_floats, c.q.begin() + (row + 1) * row_floats);
  if (later_keys_exist) return one;
  for (uint32_t n = 0; n < one.nodes.size(); ++n) {
    NodeView& node = one.nodes[n];
    node.kv_len = std::clamp(c.row_pos[row] + 1 - node.kv_begin, 0, node.kv_len);
    node.kv_begin = std::min(node.kv_begin, c.row_pos[row] + 1);
  }
  lay_out(one, row, 0);
  return one;
}

TEST_P(CpuExecutorOnEachIsa, GivesARowTheSameBitsAloneOrWithOthersAndWithOrWithoutLaterKeys) {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    Case c = make_case({.seed = seed,
                        .n_sequences = 1,
                        .min_node_len = 120,
                        .max_node_len = 400,
                        .max_rows = 100,
                        .all_max_rows = true,
                        .n_kv_heads = 1,
                        .heads_per_kv_head = 1 + int(seed % 4),
                        .head_dim = seed == 4 ? 20 : 48,
                        .type = kTypes[(seed + seed / 4) % 4]});
    AttendOptions attend{.scale = default_scale(c), .softcap = seed == 5 ? 10.0f : 0.0f};
    if (seed == 3) attend.window = 70;
    const Answer together = run_case(*executor_, c, attend);
    for (uint32_t row = 0; row < c.row_pos.size(); ++row) {
      for (bool later_keys_exist : {true, false}) {
        Case one = one_row(c, row, later_keys_exist);
        const Answer alone = run_case(*executor_, one, attend);
        ASSERT_EQ(0, std::memcmp(alone.out.data(), together.out.data() + row * alone.out.size(),
                                 alone.out.size() * sizeof(float)))
            << "seed " << seed << " row " << row;
        ASSERT_EQ(0, std::memcmp(alone.lse.data(), together.lse.data() + row * alone.lse.size(),
                                 alone.lse.size() * sizeof(float)));
      }
    }
  }
}

TEST_P(CpuExecutorOnEachIsa, KeepsInfinityInALaterValueFromRowsThatDoNotSeeIt) {
  for (int heads : {1, 3, 4}) {
    Case c = make_case({.seed = 5,
                        .min_node_len = 90,
                        .max_node_len = 90,
                        .max_rows = 40,
                        .all_max_rows = true,
                        .heads_per_kv_head = heads,
                        .head_dim = 32});
    const AttendOptions attend{.scale = default_scale(c), .window = 25};
    const size_t last = c.stored_positions() - 1;
    const size_t early = last - 64;  // just before the first window
    for (size_t stored : {last, early}) {
      std::fill_n(c.v_value(stored, 0), 32, std::numeric_limits<float>::infinity());
      std::fill_n(c.k_value(stored, 0), 32, std::numeric_limits<float>::quiet_NaN());
    }
    lay_out(c, 1, 0);
    const Answer got = run_case(*executor_, c, attend);
    Case clean = c;
    for (size_t stored : {last, early}) {
      std::fill_n(clean.v_value(stored, 0), 32, 1.0f);
      std::fill_n(clean.k_value(stored, 0), 32, 1.0f);
    }
    lay_out(clean, 1, 0);
    const Answer expected = run_case(*executor_, clean, attend);
    const size_t others = got.out.size() - size_t(heads) * 32;  // all rows but the last
    ASSERT_EQ(0, std::memcmp(got.out.data(), expected.out.data(), others * sizeof(float)));
  }
}

TEST_P(CpuExecutorOnEachIsa, StaysExactWithExtremeScores) {
  // Scores of +-80 * head_dim * scale: all alike, alternating, or one key far above the others.
  for (int kind = 0; kind < 5; ++kind) {
    Case c = make_case({.seed = 9,
                        .min_node_len = 300,
                        .max_node_len = 300,
                        .max_rows = 20,
                        .all_max_rows = true,
                        .n_kv_heads = 1,
                        .heads_per_kv_head = 2,
                        .head_dim = 16});
    for (float& x : c.q) x = 1;
    const size_t n = c.stored_positions();
    for (size_t i = 0; i < n; ++i) {
      float k = 5;  // score 5 * 16 = 80
      if (kind == 1) k = i % 2 == 0 ? 5 : -5;
      if (kind == 2) k = i == 77 ? 5 : -5;
      if (kind == 3) k = 1e-40f;
      if (kind == 4) k = -5 + 10 * float(i) / float(n);
      std::fill_n(c.k_value(i, 0), 16, k);
      if (kind == 3) std::fill_n(c.v_value(i, 0), 16, i % 2 == 0 ? 1e-39f : 2e-39f);
    }
    lay_out(c, 1, 0);
    const AttendOptions attend{.scale = 1};
    const Answer truth = oracle(c, attend);
    const Answer got = run_case(*executor_, c, attend);
    EXPECT_LT(relative_error(got.out, truth.out), kind == 4 ? 1e-4 : 1e-5) << "kind " << kind;
    EXPECT_LT(relative_error(got.lse, truth.lse), 1e-6) << "kind " << kind;
  }
}

TEST_P(CpuExecutorOnEachIsa, GivesZerosAndMinusInfinityToARowThatSeesNoKey) {
  Case c = make_case({.seed = 2, .min_node_len = 40, .max_node_len = 40, .head_dim = 24});
  // A window that ended before the stored path does: nothing in it is stored.
  c.row_pos.assign(c.row_pos.size(), 0);
  for (size_t i = 0; i < c.row_pos.size(); ++i) c.row_pos[i] = 500 + static_cast<Position>(i);
  const AttendOptions attend{.scale = 1, .window = 10};
  const Answer got = run_case(*executor_, c, attend);
  for (float x : got.out) EXPECT_EQ(x, 0.0f);
  for (float x : got.lse) EXPECT_EQ(x, -std::numeric_limits<float>::infinity());
}

TEST_P(CpuExecutorOnEachIsa, MixesTypesOfKeysAndValues) {
  for (DType k_type : kTypes) {
    for (DType v_type : kTypes) {
      for (int rows : {1, 30}) {
        Case c = make_case({.seed = 3,
                            .n_sequences = 2,
                            .max_rows = rows,
                            .all_max_rows = true,
                            .heads_per_kv_head = 2,
                            .head_dim = 48,
                            .type = DType::kF32});
        c.shape.k_type = k_type;
        c.shape.v_type = v_type;
        round_rows(k_type, c.k_values, 48);
        round_rows(v_type, c.v_values, 48);
        lay_out(c, 4, 0.02);
        const AttendOptions attend{.scale = default_scale(c)};
        const Answer truth = oracle(c, attend);
        EXPECT_LT(relative_error(run_case(*executor_, c, attend).out, truth.out), 1e-5);
      }
    }
  }
}

TEST_P(CpuExecutorOnEachIsa, FoldsPartialsOfWhichTheFirstHoldsSeveralSegments) {
  Case c = make_case({.seed = 8,
                      .min_node_len = 5000,
                      .max_node_len = 5000,
                      .max_rows = 3,
                      .all_max_rows = true,
                      .heads_per_kv_head = 2,
                      .head_dim = 32});
  const AttendOptions attend{.scale = default_scale(c)};
  Plan plan;
  make_plan(PlanMethod::kDense, c.view(), c.row_shape(), {.n_workers = 1}, plan);
  const Answer whole = run_plan(*executor_, plan, c, attend);

  // Cut by hand: [0, 2048) as one item, then a segment each.
  const WorkItem uncut = plan.items.at(0);
  const RunPart whole_part = plan.parts_of(uncut)[0];
  const auto run = plan.runs[whole_part.run];
  const uint64_t packed = (uncut.row_end - uncut.row_begin) * 2;
  plan.items.clear();
  for (Position begin = 0; begin < whole_part.kv_end;) {
    const Position end = std::min(begin == 0 ? 2048 : begin + kSegmentTokens, whole_part.kv_end);
    RunPart part = whole_part;
    part.kv_begin = begin;
    part.kv_end = end;
    while (plan.stretches[part.stretch].kv_end <= begin) ++part.stretch;
    const Position from = plan.stretches[part.stretch].kv_begin;
    part.ref = static_cast<uint32_t>(begin / kPanelTokens - from / kPanelTokens);
    WorkItem item = uncut;
    item.part_begin = static_cast<uint32_t>(plan.parts.size());
    item.partial = static_cast<uint32_t>(plan.partials.size());
    plan.parts.push_back(part);
    plan.items.insert(plan.items.begin(), item);  // out of order: items may run in any
    plan.merge_lists.push_back(item.partial);
    plan.partials.push_back({item.row_begin, item.row_end, run.heads, plan.workspace_floats,
                             plan.workspace_floats + packed * 32});
    plan.workspace_floats += packed * 34;
    begin = end;
  }
  plan.merges.push_back({uncut.row_begin, uncut.row_end, run.heads, 0,
                         static_cast<uint32_t>(plan.merge_lists.size())});
  EXPECT_TRUE(same_bits(run_plan(*executor_, plan, c, attend), whole));
}

TEST_P(CpuExecutorOnEachIsa, TakesManyHeadsOfOneKvHead) {
  Case c = make_case({.seed = 4,
                      .n_sequences = 3,
                      .max_rows = 7,
                      .n_kv_heads = 1,
                      .heads_per_kv_head = 71,
                      .head_dim = 64,
                      .type = DType::kF16});
  const AttendOptions attend{.scale = default_scale(c)};
  const Answer truth = oracle(c, attend);
  EXPECT_LT(relative_error(run_case(*executor_, c, attend).out, truth.out), 1e-5);
}

TEST(CpuExecutor, KeepsItsWorkspaceBetweenPlansOfDifferentShape) {
  ThreadPool pool(2);
  const auto executor = make_cpu_executor(pool, {});
  Case large = make_case(
      {.seed = 1, .min_node_len = 4000, .max_node_len = 5000, .n_kv_heads = 2, .head_dim = 64});
  Case small = make_case({.seed = 2, .max_node_len = 60, .head_dim = 16});
  const AttendOptions attend{.scale = 0.2f};
  Plan large_plan;
  Plan small_plan;
  make_plan(PlanMethod::kAuto, large.view(), large.row_shape(), {.n_workers = 4}, large_plan);
  make_plan(PlanMethod::kAuto, small.view(), small.row_shape(), {.n_workers = 4}, small_plan);
  executor->prepare(large_plan, large.shape, large.n_heads);
  executor->prepare(small_plan, small.shape, small.n_heads);
  const uint64_t bytes = executor->workspace_bytes();
  EXPECT_GE(bytes, large_plan.workspace_floats * sizeof(float));
  // Two plans alternate, as with layers of two groups, without further preparation.
  for (int layer = 0; layer < 4; ++layer) {
    for (auto* step : {&large, &small}) {
      const Plan& plan = step == &large ? large_plan : small_plan;
      Answer got{std::vector<float>(step->q.size()), {}};
      executor->attend(plan, {step->q.data(), step->planes(), step->n_heads, attend.scale, 0},
                       {got.out.data(), nullptr});
      EXPECT_LT(relative_error(got.out, oracle(*step, attend).out), 1e-5);
    }
  }
  EXPECT_EQ(executor->workspace_bytes(), bytes);
}

}  // namespace
}  // namespace banyan::testing
