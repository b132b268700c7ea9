// SPDX-License-Identifier: Apache-2.0
#include "sample/recent_tokens.h"

#include "base/check.h"

namespace banyan {

RecentTokens::RecentTokens(int32_t vocabulary_size, int last_n)
    : last_n_(last_n), places_(vocabulary_size, -1) {
  BANYAN_CHECK(last_n == -1 || last_n >= 1, "a number of tokens, or all");
}

void RecentTokens::push(TokenId token) {
  BANYAN_CHECK(token >= 0 && size_t(token) < places_.size(), "a token of the vocabulary");
  if (last_n_ > 0) {
    if (ring_.size() < size_t(last_n_)) {
      ring_.push_back(token);
    } else {
      forget(ring_[oldest_]);
      ring_[oldest_] = token;
      oldest_ = (oldest_ + 1) % ring_.size();
    }
  }
  if (places_[token] < 0) {
    places_[token] = static_cast<int32_t>(entries_.size());
    entries_.push_back({token, 0});
  }
  ++entries_[places_[token]].count;
}

void RecentTokens::forget(TokenId token) {
  const int32_t place = places_[token];
  if (--entries_[place].count > 0) return;
  entries_[place] = entries_.back();
  places_[entries_[place].token] = place;
  entries_.pop_back();
  places_[token] = -1;  // last, because the token may have been the one at the back
}

}  // namespace banyan
