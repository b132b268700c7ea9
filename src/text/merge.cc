// SPDX-License-Identifier: Apache-2.0
#include "text/merge.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <utility>

#include "base/check.h"

namespace banyan {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

// Up to this many symbols a scan for the best rank beats a queue (English words have 4 to 8).
constexpr size_t kShort = 200;

// Longer words are merged in windows of so many symbols, which begin so far before the end of the
// one before.
constexpr size_t kWindow = 64;
constexpr size_t kOverlap = 12;

uint32_t rank_of(const MergeTable& table, Symbol left, Symbol right) {
  const Merge* merge = table.find(left, right);
  return merge != nullptr ? merge->rank : kNone;
}

// `begins`, where given, loses the elements that `symbols` loses.
void merge_short(const MergeTable& table, std::vector<Symbol>& symbols,
                 std::vector<uint32_t>& ranks, std::vector<uint32_t>* begins) {
  ranks.assign(symbols.size(), kNone);
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    ranks[i] = rank_of(table, symbols[i], symbols[i + 1]);
  }
  while (true) {
    uint32_t best = kNone;  // in vectors, as std::min_element is not
    for (const uint32_t rank : ranks) best = std::min(best, rank);
    if (best == kNone) return;
    const auto i = std::find(ranks.begin(), ranks.end(), best) - ranks.begin();
    symbols[i] = table.find(symbols[i], symbols[i + 1])->result;
    symbols.erase(symbols.begin() + i + 1);
    ranks.erase(ranks.begin() + i + 1);
    if (begins != nullptr) begins->erase(begins->begin() + i + 1);
    const auto last = static_cast<ptrdiff_t>(symbols.size()) - 1;
    ranks[i] = i < last ? rank_of(table, symbols[i], symbols[i + 1]) : kNone;
    if (i > 0) ranks[i - 1] = rank_of(table, symbols[i - 1], symbols[i]);
  }
}

// Symbols, and where each begins in the word.
struct Window {
  std::vector<Symbol> symbols;
  std::vector<uint32_t> begins;
};

// A doubly linked list of symbols and a heap of candidates. A candidate is stale, and skipped, if
// its symbol is gone or no longer merges with its neighbour at that rank.
class LongMerger {
 public:
  LongMerger(const MergeTable& table, Window& window)
      : table_(table),
        window_(window),
        symbols_(window.symbols),
        next_(symbols_.size()),
        prev_(symbols_.size()) {}

  void run() {
    const auto n = static_cast<uint32_t>(symbols_.size());
    for (uint32_t i = 0; i < n; ++i) {
      next_[i] = i + 1 < n ? i + 1 : kNone;
      prev_[i] = i > 0 ? i - 1 : kNone;
      push(i);
    }
    while (!queue_.empty()) {
      const auto [rank, left] = queue_.top();
      queue_.pop();
      if (symbols_[left] != kGone && rank_at(left) == rank) merge_at(left);
    }
    size_t kept = 0;
    for (uint32_t i = 0; i != kNone; i = next_[i], ++kept) {
      symbols_[kept] = symbols_[i];
      window_.begins[kept] = window_.begins[i];
    }
    symbols_.resize(kept);
    window_.begins.resize(kept);
  }

 private:
  static constexpr Symbol kGone = std::numeric_limits<Symbol>::max();
  using Candidate = std::pair<uint32_t, uint32_t>;  // rank, position of the left one

  uint32_t rank_at(uint32_t left) const {
    if (next_[left] == kNone) return kNone;
    return rank_of(table_, symbols_[left], symbols_[next_[left]]);
  }

  void push(uint32_t left) {
    if (const uint32_t rank = rank_at(left); rank != kNone) queue_.push({rank, left});
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
  Window& window_;
  std::vector<Symbol>& symbols_;
  std::vector<uint32_t> next_;
  std::vector<uint32_t> prev_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue_;
};

// Whether `now`, which begins where symbol `at` of `last` does, begins with that symbol.
bool continues(const Window& last, size_t last_end, size_t at, const Window& now, size_t now_end) {
  const auto end_of = [](const Window& window, size_t i, size_t end) {
    return i + 1 < window.begins.size() ? window.begins[i + 1] : end;
  };
  return now.symbols[0] == last.symbols[at] &&
         end_of(now, 0, now_end) == end_of(last, at, last_end);
}

// Appends to `merged` what `word` becomes; false if windows of `length` symbols do not tell.
//
// Symbols are what merging gives if, and only if, it gives any two neighbours of them from what
// these two came from alone: until a merge crosses a border, either side does what it would do
// alone, and the first merge across would be made among the two neighbours as well. So a window
// that begins where a symbol of the one before did goes on from there if it begins with that
// symbol.
bool merge_windows(const MergeTable& table, const std::vector<Symbol>& word, size_t length,
                   std::vector<uint32_t>& ranks, std::vector<Symbol>& merged) {
  Window last;
  Window now;
  for (size_t end = 0; end < word.size();) {
    const size_t next_end = std::min(word.size(), end + length);
    size_t keep = 0;  // so many symbols of `last` are final
    for (size_t overlap = kOverlap;; overlap *= 2) {
      const auto next =
          std::upper_bound(last.begins.begin(), last.begins.end(), end - std::min(end, overlap));
      keep = std::max<ptrdiff_t>(next - last.begins.begin(), 1) - 1;
      const size_t begin = end == 0 ? 0 : last.begins[keep];
      now.symbols.assign(word.begin() + begin, word.begin() + next_end);
      now.begins.resize(next_end - begin);
      std::iota(now.begins.begin(), now.begins.end(), static_cast<uint32_t>(begin));
      if (now.symbols.size() <= kShort) {
        merge_short(table, now.symbols, ranks, &now.begins);
      } else {
        LongMerger(table, now).run();
      }
      if (begin == 0 || continues(last, end, keep, now, next_end)) break;
      if (keep == 0) return false;
    }
    merged.insert(merged.end(), last.symbols.begin(), last.symbols.begin() + keep);
    std::swap(last, now);
    end = next_end;
  }
  merged.insert(merged.end(), last.symbols.begin(), last.symbols.end());
  return true;
}

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
  if (symbols.size() <= kShort) return merge_short(table, symbols, ranks, nullptr);
  std::vector<Symbol> merged;
  if (!merge_windows(table, symbols, kWindow, ranks, merged)) {
    merged.clear();
    merge_windows(table, symbols, symbols.size(), ranks, merged);
  }
  symbols = std::move(merged);
}

}  // namespace banyan
