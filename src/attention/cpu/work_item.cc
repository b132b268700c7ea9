// SPDX-License-Identifier: Apache-2.0
#include "attention/cpu/work_item.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"

namespace banyan {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// From this many packed rows on, converting a block to f32 once is cheaper than converting it in
// each register tile.
constexpr int kPackingRows = 2 * kTileRows + 1;

static_assert(kMostPassRows / 2 % kTileRows == 0 && kMostPassRows / 2 % kPairTileRows == 0);

size_t padded(int head_dim) { return (size_t(head_dim) + 15) / 16 * 16; }

void clear_states(const StateView& state, int n) {
  std::fill_n(state.m, n, kMinusInfinity);
  std::fill_n(state.l, n, 0.0f);
}

// Packed rows [begin, begin + n) of `heads` heads, all of one KV head, from row `row_begin` on.
struct PackedRows {
  uint32_t row_begin = 0;
  HeadRange heads;
  size_t begin = 0;
  int n = 0;

  uint32_t row(int i) const { return row_begin + static_cast<uint32_t>((begin + i) / n_heads()); }
  int head(int i) const { return heads.begin + static_cast<int>((begin + i) % n_heads()); }
  size_t n_heads() const { return heads.end - heads.begin; }
};

// Calls pass(rows) for passes of at most `most` packed rows and about equal size, each a multiple
// of kTileRows but the last.
template <class F>
void for_each_pass(uint32_t row_begin, uint32_t row_end, HeadRange heads, size_t most, F pass) {
  const size_t total = size_t{row_end - row_begin} * (heads.end - heads.begin);
  const size_t n_passes = (total + most - 1) / most;
  if (total == 0) return;
  const size_t tiles = ((total + n_passes - 1) / n_passes + kTileRows - 1) / kTileRows;
  const size_t size = tiles * kTileRows;
  for (size_t begin = 0; begin < total; begin += size) {
    pass(PackedRows{row_begin, heads, begin, static_cast<int>(std::min(size, total - begin))});
  }
}

// Where a partial keeps the states of `rows`, which follow each other there.
StateView partial_states(const AttendCall& call, const Partial& partial, const PackedRows& rows) {
  const size_t head_dim = call.in->kv.shape.head_dim;
  const int group = call.in->n_heads / call.in->kv.shape.n_kv_heads;
  const uint64_t first = partial.state(rows.row_begin, rows.heads.begin, group) + rows.begin;
  float* ml = call.workspace + partial.ml_offset;
  return {call.workspace + partial.o_offset + first * head_dim, head_dim, ml + first,
          ml + partial.states() + first};
}

// The query heads of KV head `kv_head` that are among `heads`.
HeadRange heads_of(const AttendCall& call, HeadRange heads, int kv_head) {
  const int group = call.in->n_heads / call.in->kv.shape.n_kv_heads;
  return {std::max(heads.begin, kv_head * group), std::min(heads.end, (kv_head + 1) * group)};
}

void write_outputs(const AttendCall& call, const PackedRows& rows, const StateView& state) {
  const int head_dim = call.in->kv.shape.head_dim;
  for (int i = 0; i < rows.n; ++i) {
    const size_t index = size_t{rows.row(i)} * call.in->n_heads + rows.head(i);
    float* out = call.out->out + index * head_dim;
    if (state.m[i] == kMinusInfinity) {
      std::fill_n(out, head_dim, 0.0f);
      if (call.out->lse != nullptr) call.out->lse[index] = kMinusInfinity;
      continue;
    }
    call.kernels->scale(state.o + i * state.stride, 1.0f / state.l[i], head_dim, out);
    if (call.out->lse != nullptr) call.out->lse[index] = state.m[i] + std::log(state.l[i]);
  }
}

void store_partial(const AttendCall& call, const Partial& partial, const PackedRows& rows,
                   const StateView& state) {
  const int head_dim = call.in->kv.shape.head_dim;
  const StateView to = partial_states(call, partial, rows);
  for (int i = 0; i < rows.n; ++i) {
    to.m[i] = state.m[i];
    to.l[i] = state.l[i];
    if (state.m[i] == kMinusInfinity) continue;  // o is not read then
    std::memcpy(to.o + i * to.stride, state.o + i * state.stride, head_dim * sizeof(float));
  }
}

// A block as kernels read it: in f32 to the key f32_end, in pairs from there on.
struct ReadBlock {
  KvBlock f32;
  int f32_end = kBlockTokens;
};

// What is rounded shows most in the first tokens: they draw much of the weight of rows in real
// models, with keys unlike all others. (Whole numbers for them too: logits of the default model are
// off by 0.003 instead of 0.0008, root mean square.)
constexpr int kFirstKeysInF32 = kPanelTokens;

// Rows that see fewer keys meet them in f32 rather than bf16: they have little to average the
// rounding errors over, and their outputs are large beside those of rows that see many. Measured
// with random K and V: with these limits the largest error over the root mean square of all outputs
// is 0.010 to 0.017 for prompts of 512 to 4,096 tokens and heads of 64 and 128; with 256 in place
// of the half it is 0.027.
constexpr int64_t kFewestKeysForBf16 = 256;
constexpr int64_t kManyKeys = 1024;

// Whether every row sees every key of the part: those of sequences that continue a shared past.
// None of them has the large outputs of first tokens, beside which errors are small, so more is
// asked of bf16: many keys, and twice the bits of q, which of all that is rounded matters most
// there. Measured with 32 rows over 4,096 keys and 300 over 1,056: the largest error over the root
// mean square of the outputs is 0.018 and 0.026, and with q rounded 0.023 and more.
bool sees_all(const RunPart& part, Band band, int n_rows, const Position* row_pos) {
  if (band.window != Band::kNone && band.window != Band::kCausal) return false;
  return *std::min_element(row_pos, row_pos + n_rows) >= part.kv_end - 1;
}
constexpr int64_t kFewestKeysSeenByAll = 2048;

bool suits_bf16(const AttendCall& call, const RunPart& part, int n_rows, const Position* row_pos) {
  const Band band = call.plan->runs[part.run].band;
  int64_t keys = int64_t{*std::min_element(row_pos, row_pos + n_rows)} + 1;
  if (sees_all(part, band, n_rows, row_pos)) return keys >= kFewestKeysSeenByAll;
  if (band.window != Band::kNone) keys = std::min<int64_t>(keys, band.window);
  return keys >= std::clamp(call.most_keys / 2, kFewestKeysForBf16, kManyKeys);
}

// Attention of short texts takes no time beside everything else, so it need not be rounded.
constexpr int64_t kFewestKeysForPairs = 256;

// Whether these rows meet this part in pairs.
bool suits_pairs(const AttendCall& call, const RunPart& part, int n_rows, const Position* row_pos) {
  const KvShape& shape = call.in->kv.shape;
  if (call.pairs == nullptr || n_rows < call.pairs->fewest_rows || shape.k_type == DType::kF32 ||
      shape.v_type == DType::kF32 || call.most_keys < kFewestKeysForPairs) {
    return false;
  }
  return !call.pairs->is_bf16 || suits_bf16(call, part, n_rows, row_pos);
}

// Walks a part's refs block by block, for rows whose positions these are. `next`: the part whose
// KV is wanted after it, or null.
class BlockReader {
 public:
  // `in_pairs`: whether blocks are wanted in pairs, where they can be.
  BlockReader(const AttendCall& call, const RunPart& part, const RunPart* next, int kv_head,
              int n_rows, bool in_pairs, WorkerScratch& scratch)
      : call_(call),
        part_(part),
        next_(next),
        kv_head_(kv_head),
        shape_(call.in->kv.shape),
        walk_(*call.plan, part),
        k_scaled_(shape_.k_type == DType::kQ8_0),
        v_scaled_(shape_.v_type == DType::kQ8_0),
        n_scales_(scale_blocks(shape_.head_dim) * kPanelTokens),
        k_convert_(n_rows >= kPackingRows && shape_.k_type != DType::kF32),
        v_convert_(shape_.head_dim % kPanelTokens != 0 ||
                   (n_rows >= kPackingRows && shape_.v_type != DType::kF32)),
        pairs_(in_pairs ? call.pairs : nullptr),
        fetches_ahead_(n_rows < kPackingRows),
        scratch_(scratch) {}

  // The block that begins at `begin`; blocks are asked for in order, none left out.
  ReadBlock read(Position begin) {
    const Position end = std::min(begin + kBlockTokens, part_.kv_end);
    KvBlock block{.panel_begin = (walk_.position() - begin) / kPanelTokens,
                  .panel_end = (end - 1 - begin) / kPanelTokens + 1,
                  .k_type = shape_.k_type,
                  .v_type = shape_.v_type,
                  .v_stride = size_t(shape_.head_dim)};
    n_pieces_ = 0;
    while (walk_.position() < end) {
      const RefWalk::Piece piece = pieces_[n_pieces_++] = walk_.next();
      const int panel = (piece.begin - begin) / kPanelTokens;
      block.k[panel] = call_.in->kv.k_panel(kv_head_, piece.panel);
      block.v[panel] = call_.in->kv.v_panel(kv_head_, piece.panel);
      if (k_scaled_) block.k_scales[panel] = scales(block.k[panel]);
      if (v_scaled_) block.v_scales[panel] = scales(block.v[panel]);
    }
    ReadBlock result;
    int f32_pieces = n_pieces_;
    // Limits of bf16 were measured with split panels in f32, which are few.
    const bool is_split = n_pieces_ > block.panel_end - block.panel_begin;
    if (pairs_ != nullptr && !(pairs_->is_bf16 && is_split) && pack_pairs(begin)) {
      result.f32_end = begin == 0 ? kFirstKeysInF32 : 0;
      block.panel_end = std::min(block.panel_end, result.f32_end / kPanelTokens);
      if (block.panel_begin >= block.panel_end) return result;
      for (f32_pieces = 0; pieces_[f32_pieces].begin - begin < result.f32_end;) {
        if (++f32_pieces == n_pieces_) break;
      }
    }
    // A grid panel that is held in pieces by several refs is put together in the scratch.
    const bool whole = f32_pieces == block.panel_end - block.panel_begin;
    if (k_convert_ || !whole) pack_k(begin, f32_pieces, block);
    if (v_convert_ || !whole) pack_v(begin, f32_pieces, block);
    if (fetches_ahead_ && !v_convert_ && whole) look_ahead(block);
    result.f32 = block;
    return result;
  }

  // Of the block that read() would give next.
  LinesAhead next_lines() const {
    LinesAhead lines;
    for_each_panel_ahead([&](int, const std::byte* k, const std::byte* v) {
      lines.add(k, shape_.k_panel_bytes());
      lines.add(v, shape_.v_panel_bytes());
    });
    return lines;
  }

 private:
  // False if some of the block's numbers cannot be taken in pairs.
  bool pack_pairs(Position begin) const {
    StoredBlock& stored = scratch_.stored;
    stored.n_pieces = n_pieces_;
    stored.k_type = shape_.k_type;
    stored.v_type = shape_.v_type;
    stored.head_dim = shape_.head_dim;
    for (int i = 0; i < n_pieces_; ++i) {
      const RefWalk::Piece& piece = pieces_[i];
      stored.pieces[i] = {call_.in->kv.k_panel(kv_head_, piece.panel),
                          call_.in->kv.v_panel(kv_head_, piece.panel), piece.begin - begin,
                          piece.end - begin};
    }
    return pairs_->pack_block(stored, pairs_->n_pairs(shape_.head_dim), scratch_.block_pairs);
  }

  // Few rows wait for memory.
  void look_ahead(KvBlock& block) const {
    for_each_panel_ahead([&](int panel, const std::byte* k, const std::byte* v) {
      block.ahead_k[panel] = k;
      block.ahead_v[panel] = v;
      block.fetches_ahead = true;
    });
  }

  // f(index, K, V) for the panels of the block that read() would give next, or the next part's
  // reader.
  template <class F>
  void for_each_panel_ahead(F f) const {
    RefWalk ahead = walk_;
    Position end = part_.kv_end;
    if (ahead.position() >= end && next_ != nullptr) {
      ahead = RefWalk(*call_.plan, *next_);
      end = next_->kv_end;
    }
    for (int panel = 0; panel < kBlockPanels && ahead.position() < end; ++panel) {
      const PanelId id = ahead.next().panel;
      f(panel, call_.in->kv.k_panel(kv_head_, id), call_.in->kv.v_panel(kv_head_, id));
    }
  }

  void pack_k(Position begin, int n_pieces, KvBlock& block) {
    for (int i = 0; i < n_pieces; ++i) {
      const int panel = (pieces_[i].begin - begin) / kPanelTokens;
      const Slots slots = slots_of(pieces_[i]);
      float* to = scratch_.k_block + size_t(panel) * shape_.head_dim * kPanelTokens;
      const void* from = call_.in->kv.k_panel(kv_head_, pieces_[i].panel);
      call_.kernels->pack_k(shape_.k_type, from, shape_.head_dim, slots.begin, slots.end, to);
      block.k[panel] = to;
      if (k_scaled_) {
        block.k_scales[panel] = join_scales(from, slots, scratch_.k_scales + panel * n_scales_);
      }
    }
    block.k_type = DType::kF32;
  }

  void pack_v(Position begin, int n_pieces, KvBlock& block) {
    const size_t stride = padded(shape_.head_dim);
    for (int i = 0; i < n_pieces; ++i) {
      const int panel = (pieces_[i].begin - begin) / kPanelTokens;
      const Slots slots = slots_of(pieces_[i]);
      float* to = scratch_.v_block + size_t(panel) * kPanelTokens * stride;
      const void* from = call_.in->kv.v_panel(kv_head_, pieces_[i].panel);
      call_.kernels->pack_v(shape_.v_type, from, shape_.head_dim, slots.begin, slots.end, stride,
                            to);
      block.v[panel] = to;
      if (v_scaled_) {
        block.v_scales[panel] = join_scales(from, slots, scratch_.v_scales + panel * n_scales_);
      }
    }
    block.v_type = DType::kF32;
    block.v_stride = stride;
  }

  struct Slots {
    int begin;
    int end;
  };
  static Slots slots_of(const RefWalk::Piece& piece) {
    const int begin = piece.begin % kPanelTokens;
    return {begin, begin + (piece.end - piece.begin)};
  }

  const uint16_t* scales(const void* panel) const {
    return reinterpret_cast<const uint16_t*>(static_cast<const std::byte*>(panel) +
                                             scales_offset(shape_.head_dim));
  }

  // Copies the scales of some slots beside those of others.
  const uint16_t* join_scales(const void* panel, Slots slots, uint16_t* to) const {
    const uint16_t* from = scales(panel);
    for (int i = 0; i < n_scales_; i += kPanelTokens) {
      std::copy(from + i + slots.begin, from + i + slots.end, to + i + slots.begin);
    }
    return to;
  }

  const AttendCall& call_;
  const RunPart& part_;
  const RunPart* const next_;
  const int kv_head_;
  const KvShape& shape_;
  RefWalk walk_;                         // stands behind the block that was read last
  RefWalk::Piece pieces_[kBlockTokens];  // of that block
  int n_pieces_ = 0;
  const bool k_scaled_;
  const bool v_scaled_;
  const int n_scales_;  // of a panel
  const bool k_convert_;
  const bool v_convert_;
  const PairKernels* const pairs_;  // null: every product in f32
  const bool fetches_ahead_;
  WorkerScratch& scratch_;
};

// Loads q, scaled, and the positions of the rows.
void load_rows(const AttendCall& call, const PackedRows& rows, WorkerScratch& scratch) {
  const int head_dim = call.in->kv.shape.head_dim;
  for (int i = 0; i < rows.n; ++i) {
    const size_t index = size_t{rows.row(i)} * call.in->n_heads + rows.head(i);
    call.kernels->scale(call.in->q + index * head_dim, call.in->scale, head_dim,
                        scratch.q + size_t(i) * head_dim);
    scratch.row_pos[i] = call.plan->row_pos[rows.row(i)];
  }
}

// Some of a pass's packed rows, and their states.
struct RowSpan {
  int begin = 0;
  int n = 0;
};
StateView states_of(const StateView& states, RowSpan rows) {
  return {states.o + rows.begin * states.stride, states.stride, states.m + rows.begin,
          states.l + rows.begin};
}

// The rows of a pass that are rows of a part.
RowSpan rows_of(const PackedRows& rows, const WorkItem& item, const RunPart& part) {
  const auto first = static_cast<int64_t>(part.row_begin - item.row_begin) * rows.n_heads();
  const auto last = static_cast<int64_t>(part.row_end - item.row_begin) * rows.n_heads();
  const int64_t begin = std::clamp<int64_t>(first - rows.begin, 0, rows.n);
  const int64_t end = std::clamp<int64_t>(last - rows.begin, begin, rows.n);
  return {static_cast<int>(begin), static_cast<int>(end - begin)};
}

// Which keys of the block at `begin`, of those in `keys`, each row sees. False if none sees any.
bool find_visible(const RunPart& part, Band band, Position begin, KeyRange keys, RowSpan rows,
                  WorkerScratch& scratch) {
  const int first = std::max(part.kv_begin - begin, keys.begin);
  const int last = std::min(part.kv_end - begin, keys.end);
  const bool is_banded = band.window != Band::kNone;
  const bool has_window = is_banded && band.window != Band::kCausal;
  int seen = 0;
  for (int i = rows.begin; i < rows.begin + rows.n; ++i) {
    const int own = scratch.row_pos[i] - begin;
    const int range_end = is_banded ? std::min(last, own + 1) : last;
    const int range_begin = has_window ? std::max(first, own - band.window + 1) : first;
    const int size = std::max(range_end - range_begin, 0);
    scratch.visible[i] = {size > 0 ? range_begin : 0, size > 0 ? range_end : 0};
    seen |= size;
  }
  return seen != 0;
}

// Folds a part's keys into the item's states of these rows; segment by segment where it is all of
// an item, whose states then do not depend on how much of the KV that has.
void fold_part(const AttendCall& call, const RunPart& part, const RunPart* next, int kv_head,
               RowSpan rows, bool in_segments, WorkerScratch& scratch) {
  const AttentionKernels& kernels = *call.kernels;
  const int head_dim = call.in->kv.shape.head_dim;
  const int columns = static_cast<int>(padded(head_dim));
  const Band band = call.plan->runs[part.run].band;
  const float* q = scratch.q + size_t(rows.begin) * head_dim;
  const Position* row_pos = scratch.row_pos + rows.begin;
  const KeyRange* visible = scratch.visible + rows.begin;
  const StateView item = states_of(scratch.item, rows);
  const StateView segment = in_segments ? states_of(scratch.segment, rows) : item;
  if (in_segments) clear_states(segment, rows.n);

  PairRows row_pairs = scratch.row_pairs;
  if (!sees_all(part, band, rows.n, row_pos)) row_pairs.rest = nullptr;
  const bool in_pairs =
      suits_pairs(call, part, rows.n, row_pos) &&
      call.pairs->pack_q(q, rows.n, head_dim, call.pairs->n_pairs(head_dim), row_pairs);
  if (in_pairs) call.pairs->begin(rows.n);
  BlockReader reader(call, part, next, kv_head, rows.n, in_pairs, scratch);
  Position begin = part.kv_begin - part.kv_begin % kBlockTokens;
  if (part.kv_begin == part.kv_end) begin = part.kv_end;
  for (; begin < part.kv_end; begin += kBlockTokens) {
    if (in_segments && begin % kSegmentTokens == 0 && begin > part.kv_begin) {
      kernels.fold(segment, rows.n, columns, item);
      clear_states(segment, rows.n);
    }
    const ReadBlock block = reader.read(begin);
    const auto any_sees = [&](KeyRange keys) {
      return find_visible(part, band, begin, keys, rows, scratch);
    };
    if (any_sees({0, block.f32_end})) {
      kernels.scores(block.f32, q, rows.n, head_dim, scratch.scores);
      kernels.softmax(scratch.scores, visible, rows.n, call.in->softcap, scratch.block_m,
                      scratch.block_l);
      kernels.fold_block(block.f32, scratch.scores, visible, rows.n, columns, scratch.block_m,
                         scratch.block_l, segment, scratch.tile);
    }
    if (any_sees({block.f32_end, kBlockTokens})) {
      LinesAhead ahead = reader.next_lines();
      call.pairs->fold_block(scratch.block_pairs, row_pairs, visible, rows.n, head_dim,
                             call.in->softcap, segment, ahead);
    }
  }
  if (in_segments) kernels.fold(segment, rows.n, columns, item);
  if (in_pairs) call.pairs->end();
}

void attend_pass(const AttendCall& call, const WorkItem& item, int kv_head, const PackedRows& rows,
                 WorkerScratch& scratch) {
  load_rows(call, rows, scratch);
  clear_states(scratch.item, rows.n);
  const std::span<const RunPart> parts = call.plan->parts_of(item);
  for (size_t i = 0; i < parts.size(); ++i) {
    const RowSpan of_part = rows_of(rows, item, parts[i]);
    if (of_part.n == 0) continue;
    const RunPart* next = i + 1 < parts.size() ? &parts[i + 1] : nullptr;
    fold_part(call, parts[i], next, kv_head, of_part, parts.size() == 1, scratch);
  }
  if (item.partial == WorkItem::kFinal) {
    write_outputs(call, rows, scratch.item);
  } else {
    store_partial(call, call.plan->partials[item.partial], rows, scratch.item);
  }
}

}  // namespace

void WorkerScratch::reserve(int head_dim, bool with_pairs) {
  if (head_dim <= head_dim_) return;
  head_dim_ = head_dim;
  const size_t columns = padded(head_dim);
  const size_t rows = pass_rows(head_dim);
  const size_t states = rows * columns;
  const size_t statistics = (rows + 15) / 16 * 16;
  floats_ = AlignedArray<float>(states + rows * kBlockTokens + kTileRows * columns +
                                2 * kBlockTokens * columns + 2 * states + 6 * statistics);
  float* next = floats_.data();
  const auto take = [&](size_t size) { return std::exchange(next, next + size); };
  q = take(states);
  scores = take(rows * kBlockTokens);
  tile = take(kTileRows * columns);
  k_block = take(kBlockTokens * columns);
  v_block = take(kBlockTokens * columns);
  segment = {take(states), columns, nullptr, nullptr};
  item = {take(states), columns, nullptr, nullptr};
  for (float** p : {&block_m, &block_l, &segment.m, &segment.l, &item.m, &item.l}) {
    *p = take(statistics);
  }
  const size_t n_scales = size_t{kBlockTokens} * scale_blocks(head_dim);
  scales_ = AlignedArray<uint16_t>(2 * n_scales);
  k_scales = scales_.data();
  v_scales = k_scales + n_scales;
  if (!with_pairs) return;
  const size_t n_pairs = (columns + 31) / 32 * 16;  // no kernels have more
  pairs_ = AlignedArray<uint32_t>((2 * rows + kBlockTokens) * n_pairs + kBlockTokens / 2 * columns);
  pair_scales_ = AlignedArray<float>(statistics + kBlockTokens + columns);
  row_pairs = {pairs_.data(), pairs_.data() + rows * n_pairs, pair_scales_.data()};
  uint32_t* pairs = row_pairs.rest + rows * n_pairs;
  float* scales = row_pairs.q_scales + statistics;
  block_pairs = {pairs, pairs + kBlockTokens * n_pairs, columns, scales, scales + kBlockTokens};
}

void attend_item(const AttendCall& call, const WorkItem& item, int kv_head,
                 WorkerScratch& scratch) {
  for_each_pass(item.row_begin, item.row_end, heads_of(call, call.plan->heads_of(item), kv_head),
                scratch.most_rows(),
                [&](const PackedRows& rows) { attend_pass(call, item, kv_head, rows, scratch); });
}

void attend_merge(const AttendCall& call, const Merge& merge, int kv_head, WorkerScratch& scratch) {
  const int head_dim = call.in->kv.shape.head_dim;
  for_each_pass(merge.row_begin, merge.row_end, heads_of(call, merge.heads, kv_head),
                scratch.most_rows(), [&](const PackedRows& rows) {
                  clear_states(scratch.item, rows.n);
                  for (uint32_t i = 0; i < merge.list_count; ++i) {
                    const Partial& partial =
                        call.plan->partials[call.plan->merge_lists[merge.list_begin + i]];
                    BANYAN_DCHECK(partial.heads == merge.heads, "a merge of other heads");
                    call.kernels->fold(partial_states(call, partial, rows), rows.n, head_dim,
                                       scratch.item);
                  }
                  write_outputs(call, rows, scratch.item);
                });
}

}  // namespace banyan
