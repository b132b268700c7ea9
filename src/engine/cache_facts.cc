// SPDX-License-Identifier: Apache-2.0
#include "engine/cache_facts.h"

#include <algorithm>

namespace banyan {
namespace {

constexpr size_t kShownTokens = 8;  // of a text that differs

std::string beginning(const Tokenizer& tokenizer, std::span<const TokenId> tokens) {
  return tokenizer.decode(tokens.first(std::min(tokens.size(), kShownTokens)), Special::kParse);
}

}  // namespace

CacheFacts cache_facts(const KvTree& tree, const Tokenizer& tokenizer,
                       std::span<const TokenId> prompt, const KvScope& scope) {
  // The last token is always computed, for its logits.
  const auto most = static_cast<int32_t>(prompt.size()) - 1;
  const KvTree::Explanation found = tree.explain(prompt, scope);
  CacheFacts facts;
  facts.reused_tokens = std::min(found.matched, most);
  facts.computed_tokens = static_cast<int>(prompt.size()) - facts.reused_tokens;
  facts.from.memory = facts.reused_tokens;
  facts.why = most > 0 && facts.reused_tokens == most ? CacheWhy::kHit : found.why;
  if (facts.why != CacheWhy::kDiverged) return facts;
  const std::span<const TokenId> same = prompt.first(found.matched);
  facts.position = found.matched;
  facts.had = beginning(tokenizer, tree.stored_behind(same, scope));
  facts.got = beginning(tokenizer, prompt.subspan(same.size()));
  facts.before = tokenizer.decode(same.last(std::min(same.size(), kShownTokens)), Special::kParse);
  return facts;
}

}  // namespace banyan
