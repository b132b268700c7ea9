// SPDX-License-Identifier: Apache-2.0
#pragma once
// How often drafted tokens turn out to be right, by how much speaks for them: measured, the latest
// counting most.

#include <array>
#include <cstddef>

namespace banyan {

class Acceptance {
 public:
  static constexpr int kLevels = 8;  // of what speaks for a token, rising
  using Rates = std::array<double, kLevels>;

  // `assumed`: before anything is measured; in [0, 1].
  explicit Acceptance(const Rates& assumed) : rates_(assumed) {}

  // Probability that a token of this level is right, given that those before it are.
  double rate(int level) const { return rates_[static_cast<size_t>(level)]; }

  void observe(int level, bool right) {
    constexpr double kWeight = 0.1;  // of the latest
    double& rate = rates_[static_cast<size_t>(level)];
    rate += kWeight * ((right ? 1.0 : 0.0) - rate);
  }

 private:
  Rates rates_;
};

}  // namespace banyan
