// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the KV tree holds of a prompt, and why it does not hold more.

#include <span>

#include "engine/request.h"
#include "kv/tree.h"
#include "text/tokenizer.h"

namespace banyan {

// Of a prompt that is looked up now, or whose sequence was just opened and has not been extended.
// Requires a token. O(prompt + tokens compared).
CacheFacts cache_facts(const KvTree& tree, const Tokenizer& tokenizer,
                       std::span<const TokenId> prompt, const KvScope& scope);

}  // namespace banyan
