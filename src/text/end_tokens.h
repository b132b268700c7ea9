// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which tokens end an answer.

#include <vector>

#include "text/tokenizer.h"

namespace banyan {

// The tokens that end generation, by id, and their types corrected: a token that ends generation is
// not text.
std::vector<bool> find_ends(Vocabulary& vocabulary);

}  // namespace banyan
