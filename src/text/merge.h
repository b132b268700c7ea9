// SPDX-License-Identifier: Apache-2.0
#pragma once
// The merging that byte-pair encoding is (Sennrich et al. 2016): of all neighbours that may merge,
// those of the best rank do, the leftmost first, until none may. SentencePiece's BPE is the same
// with ranks that come from scores.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace banyan {

using Symbol = uint32_t;  // a token, or a piece of text that only occurs on the way to one

struct Merge {
  uint32_t rank;  // lower is earlier
  Symbol result;
};

// (left, right) -> merge. Open addressing: this look-up is most of a tokenizer's time.
class MergeTable {
 public:
  MergeTable() : MergeTable(0) {}
  explicit MergeTable(size_t expected);

  // The first merge of a pair stays.
  void insert(Symbol left, Symbol right, Merge merge);
  // nullptr: the two do not merge.
  const Merge* find(Symbol left, Symbol right) const {
    const uint64_t key = uint64_t{left} << 32 | right;
    for (size_t i = slot(key);; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return &slots_[i].merge;
      if (slots_[i].key == kEmpty) return nullptr;
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge{};
  };
  size_t slot(uint64_t key) const {
    key *= 0x9E3779B97F4A7C15U;
    return (key ^ key >> 32) & mask_;
  }
  void grow();

  std::vector<Slot> slots_;  // a power of two of them, at most half of them taken
  size_t mask_;
  size_t size_ = 0;
};

// Merges `symbols` in place. Linear in them, or O(n log n) where what becomes of a symbol depends
// on what stands hundreds of symbols to its right, which no real vocabulary was seen to do. Memory
// beside them: the result. `ranks` is memory that is used again from word to word. Requires fewer
// than 2^32 - 1 symbols.
void merge_all(const MergeTable& table, std::vector<Symbol>& symbols, std::vector<uint32_t>& ranks);

}  // namespace banyan
