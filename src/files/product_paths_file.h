// SPDX-License-Identifier: Apache-2.0
#pragma once
// Measured product paths as a JSON document, with what they hold for. Like every file it is read as
// a claim.

#include <string>
#include <string_view>

#include "base/result.h"
#include "tensor/cpu/product_paths.h"

namespace banyan {

// What a measurement holds for: it says nothing of another machine, number of threads or version.
struct PathsKey {
  std::string cpu;      // name, family and model
  std::string isa;      // highest instruction set used, and its extensions
  std::string version;  // of the code that was measured
  int threads = 0;
  bool operator==(const PathsKey&) const = default;
};

std::string write_product_paths(const MeasuredPaths& measured, const PathsKey& key);

// kBadInput: "'name': what", for a document that is damaged or is for another key.
Result<MeasuredPaths> read_product_paths(std::string_view text, const std::string& name,
                                         const PathsKey& key);

}  // namespace banyan
