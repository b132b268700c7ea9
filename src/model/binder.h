// SPDX-License-Identifier: Apache-2.0
#pragma once
// Finds the tensors of roles by name, and checks that they are what the role needs.

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/family.h"
#include "model/model.h"

namespace banyan {

class Binder {
 public:
  // All must outlive the binder. Vectors that must be copied go to `kept`.
  Binder(const ModelFile& file, const Family& family, std::vector<AlignedArray<float>>& kept)
      : file_(file), family_(family), kept_(kept) {}

  struct Place {
    Role role;
    int layer = 0;
    int expert = 0;
  };
  // NAME, or NAME.SUFFIX.
  std::string name(const Place& place, std::string_view suffix = "weight") const;
  bool has(const Place& place) const;
  const TensorInfo* find(const Place& place) const;  // without checks

  // [rows][cols]; with `need_bias`, a bias must be there, else it may.
  Result<LinearWeights> linear(const Place& place, int64_t rows, int64_t cols, bool need_bias);
  Result<NormWeights> norm(const Place& place, int64_t size);
  // [count][rows][cols], as that many matrices.
  Result<std::vector<Weight>> stack(const Place& place, int64_t count, int64_t rows, int64_t cols);
  // A vector above 0 in every element; empty if there is none.
  Result<std::vector<float>> divisors(Role role, int64_t size);

  // Says that a tensor is known, if it is there, though nothing is taken from it.
  void ignore(const Place& place) { bound_.insert(name(place)); }
  // An error if the file has tensors that were never asked for.
  Result<void> check_all_bound() const;

 private:
  Result<const TensorInfo*> require(const std::string& name) const;
  Result<const float*> vector(const std::string& name, int64_t size, float add);

  const ModelFile& file_;
  const Family& family_;
  std::vector<AlignedArray<float>>& kept_;
  std::set<std::string, std::less<>> bound_;
};

}  // namespace banyan
