// SPDX-License-Identifier: Apache-2.0
#pragma once
// Reads what a model file says of itself by what it means, not by what the format calls it.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "files/model_file.h"

namespace banyan {

struct Family;

// What a file may say. Rotary settings, which come in nests, are read in rope_config.cc.
enum class Key {
  kLayers,
  kHidden,
  kFfn,      // one, or one for each layer
  kHeads,    // likewise
  kKvHeads,  // likewise
  kHeadDim,
  kValueDim,
  kContext,
  kNormEps,
  kActivation,
  kParallelResidual,
  kTied,
  kVocab,
  kWindow,
  kUsesWindow,
  kWindowPattern,
  kFirstWindowLayer,
  kLayerTypes,
  kQueryScalar,     // scores are divided by its root
  kAttentionScale,  // scores are multiplied by it
  kAttentionSoftcap,
  kLogitSoftcap,
  kExperts,
  kExpertsUsed,
  kRotaryDim,
  kRotaryShare,  // of head_dim
  kRopeBase,
  kLocalRopeBase,  // of layers that slide
};

class ConfigReader {
 public:
  // Both must outlive the reader.
  ConfigReader(const ModelFile& file, const Family& family);

  const ModelFile& file() const { return file_; }
  const Family& family() const { return family_; }
  bool is_gguf() const { return file_.format() == ModelFormat::kGguf; }
  bool has(Key key) const;
  // The name that the file gives a key, or would; for error sentences.
  std::string name(Key key) const;

  // The file's word, else the family's default for folders (but not where config.json says null),
  // else `fallback`; an error if there is none of them, or if the value is of another type or out
  // of [low, high].
  Result<int64_t> integer(Key key, int64_t low, int64_t high,
                          std::optional<int64_t> fallback = std::nullopt) const;
  // Finite.
  Result<double> number(Key key, std::optional<double> fallback = std::nullopt) const;
  Result<bool> flag(Key key, bool fallback) const;
  Result<std::string> text(Key key, std::string_view fallback) const;
  // One number, or an array of `count` of them.
  Result<std::vector<int64_t>> integers(Key key, size_t count, int64_t low, int64_t high,
                                        std::optional<int64_t> fallback = std::nullopt) const;
  // The items of an array; nothing if the key is absent or is no array.
  const MetaArray* array(Key key) const;

 private:
  Error missing(Key key) const;
  std::optional<double> default_of(Key key) const;
  Result<int64_t> checked(Key key, int64_t value, int64_t low, int64_t high) const;

  const ModelFile& file_;
  const Family& family_;
  std::string prefix_;  // of GGUF keys: "llama."
};

// Sizes beyond these are not models but mistakes; they also keep products of sizes far from 2^63.
inline constexpr int64_t kMaxDim = 1 << 24;
inline constexpr int64_t kMaxPositions = int64_t{1} << 30;

}  // namespace banyan

// auto variable = the value of a Result; returns its error.
#define BANYAN_READ(variable, expression)           \
  auto variable##_or = (expression);                \
  if (!variable##_or) return variable##_or.error(); \
  const auto variable = *std::move(variable##_or)
