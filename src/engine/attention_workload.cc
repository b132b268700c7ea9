// SPDX-License-Identifier: Apache-2.0
#include "engine/attention_workload.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

#include "base/bytes.h"
#include "engine/normal_table.h"

namespace banyan {
namespace {

uint64_t panels_of(int64_t begin, int64_t length) {
  if (length == 0) return 0;
  return (begin + length - 1) / kPanelTokens - begin / kPanelTokens + 1;
}

uint64_t nodes_of(const AttentionCase& shape, const SharedLevel& level) {
  return (shape.n_sequences + uint64_t(level.sequences) - 1) / level.sequences;
}

uint64_t panels_of(const AttentionCase& shape) {
  uint64_t panels = panels_of(0, shape.shared);
  int64_t begin = shape.shared;
  for (const SharedLevel& level : shape.levels) {
    panels += nodes_of(shape, level) * panels_of(begin, level.positions);
    begin += level.positions;
  }
  return panels + shape.n_sequences * panels_of(begin, shape.own);
}

KvShape kv_shape(const AttentionCase& shape) {
  return {shape.n_layers, shape.n_kv_heads, shape.head_dim, shape.kv_type, shape.kv_type};
}

}  // namespace

int32_t AttentionCase::length() const {
  int32_t length = shared + own;
  for (const SharedLevel& level : levels) length += level.positions;
  return length;
}

uint64_t AttentionCase::visible_pairs() const {
  const auto n = static_cast<uint64_t>(new_tokens);
  const uint64_t before = static_cast<uint64_t>(length()) - n;  // what the first new token follows
  return static_cast<uint64_t>(n_sequences) * (n * before + n * (n + 1) / 2);
}

uint64_t AttentionCase::kv_bytes_per_token() const {
  return kv_shape(*this).panel_bytes() / n_layers / kPanelTokens;
}

uint64_t AttentionCase::stored_positions() const {
  uint64_t positions = uint64_t(shared) + uint64_t(n_sequences) * uint64_t(own);
  for (const SharedLevel& level : levels) positions += nodes_of(*this, level) * level.positions;
  return positions;
}

uint64_t AttentionCase::stored_kv_bytes() const {
  return stored_positions() * kv_bytes_per_token();
}

std::optional<uint64_t> AttentionCase::memory_bytes() const {
  // Two factors below 2^32 each, so only what comes after them can overflow.
  const auto kv = checked_mul(panels_of(*this), kv_shape(*this).panel_bytes());
  const auto rows = checked_mul(n_rows(), uint64_t(n_heads) * head_dim * 2 * sizeof(float));
  return kv && rows ? checked_add(*kv, *rows) : std::nullopt;
}

Result<AttentionWorkload> AttentionWorkload::create(const AttentionCase& shape, ThreadPool& pool,
                                                    Isa isa) {
  BANYAN_CHECK(shape.n_heads > 0 && shape.n_kv_heads > 0 && shape.n_heads % shape.n_kv_heads == 0 &&
                   shape.head_dim > 0 && shape.n_layers > 0 && shape.n_sequences > 0,
               "an attention case has heads, dimensions, layers and sequences");
  BANYAN_CHECK(
      shape.new_tokens >= 1 && shape.new_tokens <= std::max(shape.own, 1) && shape.length() >= 1,
      "new tokens are positions of their sequence");
  int above = std::numeric_limits<int>::max();
  for (const SharedLevel& level : shape.levels) {
    BANYAN_CHECK(level.positions >= 1 && level.sequences >= 1 &&
                     (above % level.sequences == 0 || &level == shape.levels.data()),
                 "levels of a tree lie within each other");
    above = level.sequences;
  }
  auto panels =
      PanelPool::create(kv_shape(shape), panels_of(shape) * kv_shape(shape).panel_bytes());
  if (!panels) return panels.error();
  try {
    AttentionWorkload workload(shape, std::move(panels).value());
    if (!workload.build_tree()) return failed("more panels of KV than can be numbered");
    const NormalTable table;
    table.fill_kv(workload.pool_, pool, isa);
    table.fill_rows(workload.q_.span(), shape.head_dim, pool);
    return workload;
  } catch (const std::bad_alloc&) {
    return failed("no memory for the queries and the tree of this attention");
  }
}

AttentionWorkload::AttentionWorkload(const AttentionCase& shape, PanelPool pool)
    : shape_(shape),
      pool_(std::move(pool)),
      q_(static_cast<size_t>(shape.n_rows()) * shape.n_heads * shape.head_dim) {}

bool AttentionWorkload::build_tree() {
  const auto n_rows = static_cast<uint32_t>(shape_.n_rows());
  std::vector<uint32_t> path(shape_.levels.size() + 1, NodeView::kNoParent);
  if (shape_.shared > 0) {
    if (!add_node(path[0], 0, shape_.shared, 0, n_rows)) return false;
    path[0] = 0;
  }
  for (uint32_t row = 0; row < n_rows; row += shape_.new_tokens) {
    if (!add_sequence(row, path)) return false;
  }
  return true;
}

// `path`: the nodes of the sequence before it, one for each level, the shared one first.
bool AttentionWorkload::add_sequence(uint32_t first_row, std::span<uint32_t> path) {
  const uint32_t new_tokens = shape_.new_tokens;
  const uint32_t row_end = first_row + new_tokens;
  Position begin = shape_.shared;
  for (size_t i = 0; i < shape_.levels.size(); ++i) {
    const SharedLevel& level = shape_.levels[i];
    const uint32_t rows = level.sequences * new_tokens;
    if (first_row % rows == 0) {
      const auto end = static_cast<uint32_t>(std::min<int64_t>(first_row + rows, shape_.n_rows()));
      if (!add_node(path[i], begin, level.positions, first_row, end)) return false;
      path[i + 1] = static_cast<uint32_t>(nodes_.size() - 1);
    }
    begin += level.positions;
  }
  uint32_t leaf = path.back();
  if (shape_.own > 0) {
    if (!add_node(leaf, begin, shape_.own, first_row, row_end)) return false;
    leaf = static_cast<uint32_t>(nodes_.size() - 1);
  }
  sequences_.push_back({.leaf = leaf, .row_begin = first_row, .row_end = row_end});
  for (uint32_t i = 0; i < new_tokens; ++i) {
    row_pos_.push_back(shape_.length() - static_cast<Position>(new_tokens - i));
  }
  return true;
}

bool AttentionWorkload::add_node(uint32_t parent, Position begin, int32_t length,
                                 uint32_t row_begin, uint32_t row_end) {
  NodeView node{.parent = parent,
                .kv_begin = begin,
                .kv_len = length,
                .row_begin = row_begin,
                .row_end = row_end};
  std::vector<PanelRef>& refs = refs_.emplace_back();
  for (Position position = begin; position < begin + length;) {
    const int slot = position % kPanelTokens;
    const int slots = std::min(kPanelTokens - slot, begin + length - position);
    const std::optional<PanelId> panel = pool_.allocate();
    if (!panel) return false;
    refs.push_back({*panel, static_cast<uint8_t>(slot), static_cast<uint8_t>(slot + slots)});
    position += slots;
  }
  node.refs = refs;
  nodes_.push_back(node);
  return true;
}

RowShape AttentionWorkload::row_shape() const {
  return {.n_heads = shape_.n_heads, .n_kv_heads = shape_.n_kv_heads, .head_dim = shape_.head_dim};
}

TreeView AttentionWorkload::tree() const { return {nodes_, sequences_, row_pos_}; }

AttendInputs AttentionWorkload::inputs(int layer) const {
  return {.q = q_.data(),
          .kv = pool_.planes(layer),
          .n_heads = shape_.n_heads,
          .scale = 1 / std::sqrt(static_cast<float>(shape_.head_dim))};
}

}  // namespace banyan
