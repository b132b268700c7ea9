// SPDX-License-Identifier: Apache-2.0
#pragma once
// Attention by itself, without a model: panels of random K and V, rows of random Q, and the view of
// a tree over them. What benchmarks and tests of attention work on.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "attention/executor.h"
#include "attention/plan.h"
#include "base/buffer.h"
#include "base/isa.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "kv/pool.h"

namespace banyan {

// Positions that every `sequences` neighbours share.
struct SharedLevel {
  int32_t positions = 0;
  int sequences = 1;
};

// `n_sequences` sequences of length() positions each, of which the last `new_tokens` are rows.
// Requires at least one position, head, dimension, layer and sequence, n_heads a multiple of
// n_kv_heads, levels of at least one position, each of a divisor of the sequences of the one above,
// and 1 <= new_tokens <= own (or new_tokens 1 where all positions are shared).
struct AttentionCase {
  int n_heads = 32;
  int n_kv_heads = 32;
  int head_dim = 128;
  DType kv_type = DType::kF16;  // f32, f16, bf16 or q8_0
  int n_layers = 1;
  int n_sequences = 1;
  int32_t shared = 0;                    // positions at the beginning, which all sequences share
  std::vector<SharedLevel> levels = {};  // below these, which make a tree
  int32_t own = 0;                       // further positions of each sequence
  int32_t new_tokens = 1;                // 1: decoding; own: reading a prompt

  int64_t n_rows() const { return int64_t{n_sequences} * new_tokens; }
  int32_t length() const;  // of one sequence

  // (row, key) pairs of one layer where the row sees the key.
  uint64_t visible_pairs() const;
  // K and V of one position over the KV heads of one layer.
  uint64_t kv_bytes_per_token() const;
  // Positions, each stored one once.
  uint64_t stored_positions() const;
  // Each stored K and V of one layer once.
  uint64_t stored_kv_bytes() const;
  // Memory that AttentionWorkload::create takes, and as much as Q for an executor's output; nothing
  // where this does not fit 64 bits.
  std::optional<uint64_t> memory_bytes() const;
};

// Immutable after create(), so safe from any thread. Views hold until it is moved or destroyed.
class AttentionWorkload {
 public:
  // Scores are about N(0, 1): q, k and v are N(0, 1) and the scale is 1 / sqrt(head_dim). The same
  // numbers for any number of threads. kFailed if the memory cannot be had.
  static Result<AttentionWorkload> create(const AttentionCase& shape, ThreadPool& pool, Isa isa);

  const AttentionCase& shape() const { return shape_; }
  RowShape row_shape() const;
  TreeView tree() const;
  AttendInputs inputs(int layer) const;

 private:
  AttentionWorkload(const AttentionCase& shape, PanelPool pool);
  bool build_tree();
  bool add_node(uint32_t parent, Position begin, int32_t length, uint32_t row_begin,
                uint32_t row_end);
  bool add_sequence(uint32_t first_row, std::span<uint32_t> path);

  AttentionCase shape_;
  PanelPool pool_;
  AlignedArray<float> q_;  // [n_rows][n_heads][head_dim]
  std::vector<NodeView> nodes_;
  std::vector<std::vector<PanelRef>> refs_;  // by node
  std::vector<SequenceView> sequences_;
  std::vector<Position> row_pos_;
};

}  // namespace banyan
