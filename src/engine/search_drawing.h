// SPDX-License-Identifier: Apache-2.0
#pragma once
// A search's tree as a picture. Nodes with a single branch are drawn as one with it; long texts are
// cut, and the prompt shows its end.

#include <string>

#include "engine/search.h"

namespace banyan {

// A line for each node, below its parent: its score and text.
std::string draw_text(const SearchTree& tree, const Tokenizer& tokenizer);

// A whole SVG document, left to right; the best leaf's path stands out.
std::string draw_svg(const SearchTree& tree, const Tokenizer& tokenizer);

}  // namespace banyan
