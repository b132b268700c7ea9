// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which tokens end an answer.

#include <vector>

#include "text/tokenizer.h"

namespace banyan {

// The tokens that end generation, by id. Of GGUF's vocabularies, which often get them wrong, their
// types are corrected: a token that ends generation is not text.
std::vector<bool> find_ends(Vocabulary& vocabulary);

}  // namespace banyan
