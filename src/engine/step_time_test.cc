// SPDX-License-Identifier: Apache-2.0
#include "engine/step_time.h"

#include <gtest/gtest.h>

#include <random>

namespace banyan {
namespace {

StepShape shape_of(int n_decode, int depth, int n_prompt, int prompt_end) {
  StepShape shape;
  for (int i = 0; i < n_decode; ++i) shape.add(1, depth);
  shape.add(n_prompt, prompt_end);
  return shape;
}

// A machine of some speed, in milliseconds.
struct Machine {
  double step, row, decode_pair, prompt_pair;
  double ms(const StepShape& s) const {
    return step + row * static_cast<double>(s.rows) +
           decode_pair * static_cast<double>(s.decode_pairs) +
           prompt_pair * static_cast<double>(s.prompt_pairs);
  }
};

TEST(StepTime, PairsAreTheKeysThatRowsSee) {
  StepShape shape;
  shape.add(3, 10);  // 8 + 9 + 10
  EXPECT_EQ(shape.rows, 3);
  EXPECT_EQ(shape.prompt_pairs, 27);
  shape.add(1, 5);
  EXPECT_EQ(shape.decode_pairs, 5);
  shape.add(0, 7);
  EXPECT_EQ(shape.rows, 4);
}

TEST(StepTime, LearnsSlowMachinesAndFastOnesDespiteHiccups) {
  for (const Machine& machine :
       {Machine{3, 0.5, 0.0008, 0.0002}, {100, 25, 0.02, 0.01}, {0.1, 0.01, 1e-5, 1e-6}}) {
    StepTimeModel model;
    std::mt19937 random(1);
    for (int i = 0; i < 100; ++i) {
      const int n_prompt = static_cast<int>(random() % 3) * (1 + static_cast<int>(random() % 512));
      const StepShape shape = shape_of(static_cast<int>(random() % 8), 1 + random() % 4000,
                                       n_prompt, n_prompt + static_cast<int>(random() % 4000));
      model.observe(shape, machine.ms(shape) * (i % 20 == 7 ? 50 : 0.95 + (random() % 100) / 1e3));
    }
    for (const StepShape& shape : {shape_of(1, 100, 0, 0), shape_of(32, 1000, 0, 0),
                                   shape_of(4, 500, 128, 4000), shape_of(0, 0, 512, 8000)}) {
      EXPECT_NEAR(model.predict_ms(shape) / machine.ms(shape), 1, 0.25);
    }
  }
}

TEST(StepTime, NeverPredictsLessForMore) {
  StepTimeModel model;
  std::mt19937 random(2);
  for (int i = 0; i < 200; ++i) {
    model.observe(shape_of(1, 10 + random() % 100, 0, 0), 1 + (random() % 100));
    EXPECT_LE(model.predict_ms(shape_of(1, 100, 0, 0)), model.predict_ms(shape_of(1, 100, 64, 64)));
    EXPECT_GE(model.predict_ms(shape_of(1, 100, 0, 0)), 0);
  }
}

}  // namespace
}  // namespace banyan
