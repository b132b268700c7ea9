// SPDX-License-Identifier: Apache-2.0
#include "text/merge.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <unordered_map>
#include <utility>

#include "base/check.h"

namespace banyan {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

// Up to this many symbols a scan for the best rank beats a queue (English words have 4 to 8).
constexpr size_t kShort = 200;

uint32_t rank_of(const MergeTable& table, Symbol left, Symbol right) {
  const Merge* merge = table.find(left, right);
  return merge != nullptr ? merge->rank : kNone;
}

void merge_short(const MergeTable& table, std::vector<Symbol>& symbols,
                 std::vector<uint32_t>& ranks) {
  ranks.assign(symbols.size(), kNone);
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    ranks[i] = rank_of(table, symbols[i], symbols[i + 1]);
  }
  while (true) {
    const auto best = std::min_element(ranks.begin(), ranks.end());
    if (*best == kNone) return;
    const auto i = best - ranks.begin();
    symbols[i] = table.find(symbols[i], symbols[i + 1])->result;
    symbols.erase(symbols.begin() + i + 1);
    ranks.erase(ranks.begin() + i + 1);
    const auto last = static_cast<ptrdiff_t>(symbols.size()) - 1;
    ranks[i] = i < last ? rank_of(table, symbols[i], symbols[i + 1]) : kNone;
    if (i > 0) ranks[i - 1] = rank_of(table, symbols[i - 1], symbols[i]);
  }
}

// Candidates by rank, then by position. Positions of one rank come mostly in rising order, so they
// are kept in lists that are walked once; a heap of all candidates misses the caches at each pop.
class CandidateQueue {
 public:
  void push(uint32_t rank, uint32_t position) {
    Bucket& bucket = buckets_[rank];
    if (bucket.empty()) push_heap(ranks_, rank);
    if (bucket.rising.empty() || bucket.rising.back() <= position) {
      bucket.rising.push_back(position);
    } else {
      push_heap(bucket.others, position);
    }
  }

  bool empty() const { return ranks_.empty(); }

  // The best rank, and its leftmost position. Requires !empty().
  std::pair<uint32_t, uint32_t> pop() {
    const uint32_t rank = ranks_.front();
    Bucket& bucket = buckets_.find(rank)->second;
    uint32_t position = 0;
    if (bucket.others.empty() ||
        (bucket.next < bucket.rising.size() && bucket.rising[bucket.next] <= bucket.others[0])) {
      position = bucket.rising[bucket.next++];
    } else {
      position = pop_heap(bucket.others);
    }
    if (bucket.empty()) {
      pop_heap(ranks_);
      buckets_.erase(rank);
    }
    return {rank, position};
  }

 private:
  struct Bucket {
    std::vector<uint32_t> rising;  // from `next` on
    size_t next = 0;
    std::vector<uint32_t> others;  // a heap, smallest first
    bool empty() const { return next == rising.size() && others.empty(); }
  };

  static void push_heap(std::vector<uint32_t>& heap, uint32_t value) {
    heap.push_back(value);
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  }
  static uint32_t pop_heap(std::vector<uint32_t>& heap) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint32_t value = heap.back();
    heap.pop_back();
    return value;
  }

  std::unordered_map<uint32_t, Bucket> buckets_;  // by rank; none is empty
  std::vector<uint32_t> ranks_;                   // their ranks, a heap, smallest first
};

// A doubly linked list of symbols and a queue of candidates. A candidate is stale, and skipped, if
// its symbol is gone or no longer merges with its neighbour at that rank.
class LongMerger {
 public:
  LongMerger(const MergeTable& table, std::vector<Symbol>& symbols)
      : table_(table), symbols_(symbols), next_(symbols.size()), prev_(symbols.size()) {}

  void run() {
    const auto n = static_cast<uint32_t>(symbols_.size());
    for (uint32_t i = 0; i < n; ++i) {
      next_[i] = i + 1 < n ? i + 1 : kNone;
      prev_[i] = i > 0 ? i - 1 : kNone;
      push(i);
    }
    while (!queue_.empty()) {
      const auto [rank, left] = queue_.pop();
      if (symbols_[left] != kGone && rank_at(left) == rank) merge_at(left);
    }
    std::erase(symbols_, kGone);
  }

 private:
  static constexpr Symbol kGone = std::numeric_limits<Symbol>::max();

  uint32_t rank_at(uint32_t left) const {
    if (next_[left] == kNone) return kNone;
    return rank_of(table_, symbols_[left], symbols_[next_[left]]);
  }

  void push(uint32_t left) {
    if (const uint32_t rank = rank_at(left); rank != kNone) queue_.push(rank, left);
  }

  void merge_at(uint32_t left) {
    const uint32_t right = next_[left];
    symbols_[left] = table_.find(symbols_[left], symbols_[right])->result;
    symbols_[right] = kGone;
    next_[left] = next_[right];
    if (next_[left] != kNone) prev_[next_[left]] = left;
    if (prev_[left] != kNone) push(prev_[left]);
    push(left);
  }

  const MergeTable& table_;
  std::vector<Symbol>& symbols_;
  std::vector<uint32_t> next_;
  std::vector<uint32_t> prev_;
  CandidateQueue queue_;
};

}  // namespace

MergeTable::MergeTable(size_t expected)
    : slots_(std::bit_ceil(std::max<size_t>(2 * expected, 16))), mask_(slots_.size() - 1) {}

void MergeTable::insert(Symbol left, Symbol right, Merge merge) {
  if (2 * (size_ + 1) > slots_.size()) grow();
  const uint64_t key = uint64_t{left} << 32 | right;
  size_t i = slot(key);
  for (; slots_[i].key != kEmpty; i = (i + 1) & mask_) {
    if (slots_[i].key == key) return;
  }
  slots_[i] = {key, merge};
  ++size_;
}

void MergeTable::grow() {
  std::vector<Slot> old(2 * slots_.size());
  old.swap(slots_);
  mask_ = slots_.size() - 1;
  for (const Slot& taken : old) {
    if (taken.key == kEmpty) continue;
    size_t i = slot(taken.key);
    while (slots_[i].key != kEmpty) i = (i + 1) & mask_;
    slots_[i] = taken;
  }
}

void merge_all(const MergeTable& table, std::vector<Symbol>& symbols,
               std::vector<uint32_t>& ranks) {
  BANYAN_CHECK(symbols.size() < kNone, "a word of too many symbols");
  if (symbols.size() < 2) return;
  if (symbols.size() <= kShort) {
    merge_short(table, symbols, ranks);
  } else {
    LongMerger(table, symbols).run();
  }
}

}  // namespace banyan
