// SPDX-License-Identifier: Apache-2.0
#pragma once
// Logits that another implementation computed (Hugging Face transformers in float32), and how close
// to them exact products must come.

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/evaluate.h"
#include "support.h"

namespace banyan {

using nlohmann::json;

inline json read_json(const std::string& path) {
  std::ifstream file(path);
  return json::parse(file);
}

// Ways to feed a prompt: all at once (0) or in pieces.
inline constexpr int kPieces[] = {0, 1, 7, 64};

struct Wanted {
  std::vector<int> positions;
  std::vector<std::vector<float>> logits;
};

inline Wanted wanted_of(const json& test_case) {
  Wanted wanted;
  for (const auto& [key, value] : test_case["logits_positions"].items()) {
    wanted.positions.push_back(std::stoi(key));
  }
  std::sort(wanted.positions.begin(), wanted.positions.end());
  for (const int position : wanted.positions) {
    wanted.logits.push_back(test_case["logits_positions"][std::to_string(position)]);
  }
  wanted.positions.push_back(static_cast<int>(test_case["tokens"].size()) - 1);
  wanted.logits.push_back(test_case["last_logits"]);
  return wanted;
}

inline double tolerance(const json& test_case, const Wanted& wanted) {
  double largest = 0;
  for (const auto& logits : wanted.logits) {
    for (const float logit : logits) largest = std::max(largest, std::abs(double(logit)));
  }
  return 10 * test_case["f64_max_abs_diff"].get<double>() + 1e-5 * largest;
}

inline void expect_logits(Engine& engine, const json& test_case, int piece,
                          const std::string& what) {
  const std::vector<TokenId> tokens = test_case["tokens"];
  const Wanted wanted = wanted_of(test_case);
  const auto found = evaluate_logits(engine, tokens, wanted.positions, piece);
  ASSERT_TRUE(found.has_value()) << found.error().message;
  ASSERT_EQ(found->size(), wanted.logits.size());
  const double bound = tolerance(test_case, wanted);
  for (size_t i = 0; i < found->size(); ++i) {
    ASSERT_EQ((*found)[i].logits.size(), wanted.logits[i].size());
    double worst = 0;
    for (size_t v = 0; v < wanted.logits[i].size(); ++v) {
      worst = std::max(worst, std::abs(double((*found)[i].logits[v]) - wanted.logits[i][v]));
    }
    EXPECT_LE(worst, bound) << what << " after token " << wanted.positions[i];
  }
}

}  // namespace banyan
