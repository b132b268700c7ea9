// SPDX-License-Identifier: Apache-2.0
#include "text/merge.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>

#include "base/check.h"

namespace banyan {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

// Up to this many symbols a scan for the best rank beats a heap (words of English have 4 to 8).
constexpr size_t kShort = 48;

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

// A doubly linked list of symbols and a heap of candidates. A candidate is stale, and skipped, if
// its symbol is gone or no longer merges with its neighbour at that rank.
class LongMerger {
 public:
  LongMerger(const MergeTable& table, std::vector<Symbol>& symbols, MergeScratch& scratch)
      : table_(table),
        symbols_(symbols),
        next_(scratch.next),
        prev_(scratch.prev),
        heap_(scratch.heap) {}

  void run() {
    const auto n = static_cast<uint32_t>(symbols_.size());
    next_.resize(n);
    prev_.resize(n);
    heap_.clear();
    for (uint32_t i = 0; i < n; ++i) {
      next_[i] = i + 1 < n ? i + 1 : kNone;
      prev_[i] = i > 0 ? i - 1 : kNone;
      if (const uint64_t entry = candidate(i); entry != kNoCandidate) heap_.push_back(entry);
    }
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      const uint64_t entry = heap_.back();
      heap_.pop_back();
      const auto left = static_cast<uint32_t>(entry);
      if (symbols_[left] != kGone && candidate(left) == entry) merge_at(left);
    }
    std::erase(symbols_, kGone);
  }

 private:
  static constexpr Symbol kGone = std::numeric_limits<Symbol>::max();
  static constexpr uint64_t kNoCandidate = ~uint64_t{0};

  uint64_t candidate(uint32_t left) const {
    if (next_[left] == kNone) return kNoCandidate;
    const uint32_t rank = rank_of(table_, symbols_[left], symbols_[next_[left]]);
    return rank == kNone ? kNoCandidate : uint64_t{rank} << 32 | left;
  }

  void merge_at(uint32_t left) {
    const uint32_t right = next_[left];
    symbols_[left] = table_.find(symbols_[left], symbols_[right])->result;
    symbols_[right] = kGone;
    next_[left] = next_[right];
    if (next_[left] != kNone) prev_[next_[left]] = left;
    push(left);
    if (prev_[left] != kNone) push(prev_[left]);
  }

  void push(uint32_t left) {
    const uint64_t entry = candidate(left);
    if (entry == kNoCandidate) return;
    heap_.push_back(entry);
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  const MergeTable& table_;
  std::vector<Symbol>& symbols_;
  std::vector<uint32_t>& next_;
  std::vector<uint32_t>& prev_;
  std::vector<uint64_t>& heap_;
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

void merge_all(const MergeTable& table, std::vector<Symbol>& symbols, MergeScratch& scratch) {
  BANYAN_CHECK(symbols.size() < kNone, "a word of too many symbols");
  if (symbols.size() < 2) return;
  if (symbols.size() <= kShort) {
    merge_short(table, symbols, scratch.ranks);
  } else {
    LongMerger(table, symbols, scratch).run();
  }
}

}  // namespace banyan
