// SPDX-License-Identifier: Apache-2.0
#pragma once
// One safetensors file: 8 bytes of length, that much JSON which names the tensors, their data.
// Format: https://github.com/huggingface/safetensors

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "files/model_file.h"

namespace banyan {

struct ParsedSafetensors {
  std::vector<TensorInfo> tensors;                          // F32, F16 and BF16; sorted by name
  std::map<std::string, std::string, std::less<>> foreign;  // others: name to type
};

// Views into `bytes`, which must outlive them. As the format demands, the tensors' data fill the
// rest of the file without gap or overlap. Data may lie at any address. kBadInput: "'name': what".
Result<ParsedSafetensors> parse_safetensors(std::span<const std::byte> bytes,
                                            const std::string& name);

}  // namespace banyan
