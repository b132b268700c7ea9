// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the names in GGUF files stand for.

#include "base/result.h"
#include "text/tokenizer.h"

namespace banyan {

// The rules of a vocabulary's `model` and `pre`. kBadInput, in a sentence without a file name, for
// names that are not known.
Result<TextRules> named_rules(const Vocabulary& vocabulary);

// How GGUF's special tokens are found where that differs from how they stand.
std::vector<TokenMatching> named_matching(const Vocabulary& vocabulary);

}  // namespace banyan
