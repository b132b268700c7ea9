// SPDX-License-Identifier: Apache-2.0
#pragma once
// For the tests of this room: random trees of sequences with KV in panels, and the oracle, which
// knows nothing of panels and plans. Everything follows from the seed.

#include <hwy/base.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "attention/executor.h"
#include "attention/plan.h"
#include "tensor/kv_layout.h"

namespace banyan::testing {

struct CaseOptions {
  uint32_t seed = 1;
  int n_sequences = 1;
  int min_node_len = 1;
  int max_node_len = 150;
  int max_rows = 4;  // of one sequence, at random from 1
  bool all_max_rows = false;
  int n_kv_heads = 1;
  int heads_per_kv_head = 1;
  int head_dim = 16;
  DType type = DType::kF32;
  float q_scale = 1;
  double split_probability = 0;  // that a position opens a new panel without need
  double inner_probability = 0;  // that a sequence ends where others go on, as drafts do
};

struct Answer {
  std::vector<float> out;  // [n_rows][n_heads][head_dim]
  std::vector<float> lse;  // [n_rows][n_heads]
};

inline float round_to(DType type, float value) {
  if (type == DType::kF16) return hwy::F32FromF16(hwy::F16FromF32(value));
  if (type == DType::kBF16) return hwy::F32FromBF16(hwy::BF16FromF32(value));
  return value;
}

// The scale of q8_0 for `n` values of which the largest becomes 127.
inline float scale_of(const float* values, int n) {
  float largest = 0;
  for (int i = 0; i < n; ++i) largest = std::max(largest, std::abs(values[i]));
  return round_to(DType::kF16, largest / 127);
}

// Rounds the K or V of one position in one head. Doing it again changes nothing.
inline void round_row(DType type, float* values, int head_dim) {
  if (type != DType::kQ8_0) {
    for (int d = 0; d < head_dim; ++d) values[d] = round_to(type, values[d]);
    return;
  }
  for (int first = 0; first < head_dim; first += kScaleDims) {
    const int n = std::min(kScaleDims, head_dim - first);
    const float scale = scale_of(values + first, n);
    for (int d = first; d < first + n; ++d) {
      values[d] = scale > 0 ? scale * std::round(values[d] / scale) : 0;
    }
  }
}

inline void round_rows(DType type, std::vector<float>& values, int head_dim) {
  for (size_t i = 0; i < values.size(); i += head_dim) round_row(type, &values[i], head_dim);
}

inline void store_as(DType type, float value, std::byte* array, size_t index) {
  if (type == DType::kF32) {
    std::memcpy(array + index * 4, &value, 4);
  } else if (type == DType::kF16) {
    const hwy::float16_t half = hwy::F16FromF32(value);
    std::memcpy(array + index * 2, &half, 2);
  } else {
    const hwy::bfloat16_t half = hwy::BF16FromF32(value);
    std::memcpy(array + index * 2, &half, 2);
  }
}

// Stores dimension d of rounded values as element `index` of a panel, and its scale if it has one.
inline void store_kv(DType type, const float* values, int head_dim, int slot, int d,
                     std::byte* panel, size_t index) {
  if (type != DType::kQ8_0) return store_as(type, values[d], panel, index);
  const int block = d / kScaleDims;
  const int first = block * kScaleDims;
  const float scale = scale_of(values + first, std::min(kScaleDims, head_dim - first));
  const auto number = static_cast<int8_t>(scale > 0 ? std::round(values[d] / scale) : 0);
  panel[index] = static_cast<std::byte>(number);
  store_as(DType::kF16, scale, panel + scales_offset(head_dim), block * kPanelTokens + slot);
}

// A step over a tree: nodes, rows, q, and KV both as numbers and in panels. Unused slots hold NaN.
struct Case {
  KvShape shape;
  int n_heads = 0;
  std::vector<NodeView> nodes;              // their refs are those of view()
  std::vector<std::vector<PanelRef>> refs;  // by node
  std::vector<SequenceView> sequences;
  std::vector<Position> row_pos;
  std::vector<float> q;
  std::vector<size_t> node_store;  // index of each node's first position in k_values
  std::vector<float> k_values;     // [stored position][kv_head][head_dim], rounded to the type
  std::vector<float> v_values;
  std::vector<std::byte> k;  // [kv_head][panel]
  std::vector<std::byte> v;

  // Good until the case changes or moves.
  TreeView view() {
    for (size_t n = 0; n < nodes.size(); ++n) nodes[n].refs = refs[n];
    return {nodes, sequences, row_pos};
  }
  RowShape row_shape(int32_t window = Band::kCausal) const {
    return {n_heads, shape.n_kv_heads, shape.head_dim, window};
  }
  KvPlanes planes() {
    return {shape, k.data(), v.data(), k.size() / shape.n_kv_heads, v.size() / shape.n_kv_heads};
  }
  size_t stored_positions() const {
    return k_values.size() / (size_t(shape.n_kv_heads) * shape.head_dim);
  }
  float* k_value(size_t stored, int kv_head) {
    return k_values.data() + (stored * shape.n_kv_heads + kv_head) * shape.head_dim;
  }
  float* v_value(size_t stored, int kv_head) {
    return v_values.data() + (stored * shape.n_kv_heads + kv_head) * shape.head_dim;
  }
};

// Puts the numbers into panels anew; `split_probability` as in CaseOptions.
inline void lay_out(Case& c, uint32_t seed, double split_probability) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> unit(0, 1);
  c.refs.assign(c.nodes.size(), {});
  PanelId n_panels = 0;
  for (size_t n = 0; n < c.nodes.size(); ++n) {
    const NodeView& node = c.nodes[n];
    for (Position p = node.kv_begin; p < node.kv_begin + node.kv_len; ++p) {
      const uint8_t slot = p % kPanelTokens;
      if (p == node.kv_begin || slot == 0 || unit(random) < split_probability) {
        c.refs[n].push_back({n_panels++, slot, slot});
      }
      ++c.refs[n].back().slot_end;
    }
  }
  std::vector<PanelId> shuffled(n_panels);
  for (PanelId i = 0; i < n_panels; ++i) shuffled[i] = i;
  std::shuffle(shuffled.begin(), shuffled.end(), random);
  for (std::vector<PanelRef>& of_node : c.refs) {
    for (PanelRef& ref : of_node) ref.panel = shuffled[ref.panel];
  }

  const int dim = c.shape.head_dim;
  c.k.assign(size_t{n_panels} * c.shape.k_panel_bytes() * c.shape.n_kv_heads, std::byte{0xff});
  c.v.assign(size_t{n_panels} * c.shape.v_panel_bytes() * c.shape.n_kv_heads, std::byte{0xff});
  const KvPlanes planes = c.planes();
  for (size_t n = 0; n < c.nodes.size(); ++n) {
    size_t stored = c.node_store[n];
    for (const PanelRef& ref : c.refs[n]) {
      for (int slot = ref.slot_begin; slot < ref.slot_end; ++slot, ++stored) {
        for (int head = 0; head < c.shape.n_kv_heads; ++head) {
          for (int d = 0; d < dim; ++d) {
            store_kv(c.shape.k_type, c.k_value(stored, head), dim, slot, d,
                     planes.k_panel(head, ref.panel), size_t(d) * kPanelTokens + slot);
            store_kv(c.shape.v_type, c.v_value(stored, head), dim, slot, d,
                     planes.v_panel(head, ref.panel), size_t(slot) * dim + d);
          }
        }
      }
    }
  }
}

namespace internal {

// Appends a subtree with `leaves` sequences, and those that end above leaves, depth-first; chains
// of nodes where nothing branches.
inline void grow(Case& c, const CaseOptions& options, std::mt19937& random, uint32_t parent,
                 Position begin, int leaves) {
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  NodeView node{.parent = parent,
                .kv_begin = begin,
                .kv_len = draw(options.min_node_len, options.max_node_len),
                .row_begin = static_cast<uint32_t>(c.row_pos.size())};
  const uint32_t index = static_cast<uint32_t>(c.nodes.size());
  c.nodes.push_back(node);
  const Position end = begin + node.kv_len;
  const auto add_sequence = [&] {
    const int wanted = options.all_max_rows ? options.max_rows : draw(1, options.max_rows);
    const int rows = std::min<int>(wanted, end);
    const uint32_t row_begin = static_cast<uint32_t>(c.row_pos.size());
    for (Position p = end - rows; p < end; ++p) c.row_pos.push_back(p);
    c.sequences.push_back({index, row_begin, static_cast<uint32_t>(c.row_pos.size())});
  };
  // Either before or after those that go on.
  const bool is_inner = options.inner_probability > 0 &&
                        std::bernoulli_distribution(options.inner_probability)(random);
  const bool is_first = is_inner && draw(0, 1) == 0;
  if (is_first) add_sequence();
  if (leaves > 1) {
    const int first = draw(1, leaves - 1);
    grow(c, options, random, index, end, first);
    grow(c, options, random, index, end, leaves - first);
  } else if (draw(0, 2) == 0) {
    grow(c, options, random, index, end, 1);
  } else {
    add_sequence();
  }
  if (is_inner && !is_first) add_sequence();
  c.nodes[index].row_end = static_cast<uint32_t>(c.row_pos.size());
}

}  // namespace internal

inline Case make_case(const CaseOptions& options) {
  Case c;
  c.shape = {1, options.n_kv_heads, options.head_dim, options.type, options.type};
  c.n_heads = options.n_kv_heads * options.heads_per_kv_head;
  std::mt19937 random(options.seed);
  internal::grow(c, options, random, NodeView::kNoParent, 0, options.n_sequences);

  size_t stored = 0;
  for (const NodeView& node : c.nodes) {
    c.node_store.push_back(stored);
    stored += node.kv_len;
  }
  std::normal_distribution<float> normal(0, 1);
  c.k_values.resize(stored * options.n_kv_heads * options.head_dim);
  c.v_values.resize(c.k_values.size());
  for (float& x : c.k_values) x = normal(random);
  for (float& x : c.v_values) x = normal(random);
  round_rows(options.type, c.k_values, options.head_dim);
  round_rows(options.type, c.v_values, options.head_dim);
  c.q.resize(c.row_pos.size() * c.n_heads * options.head_dim);
  for (float& x : c.q) x = options.q_scale * normal(random);
  lay_out(c, options.seed + 1, options.split_probability);
  return c;
}

struct AttendOptions {
  float scale = 1;
  float softcap = 0;
  int32_t window = Band::kCausal;
};

inline float default_scale(const Case& c) {
  return 1.0f / std::sqrt(static_cast<float>(c.shape.head_dim));
}

// Softmax over the visible keys, in double, from sequences and rows alone.
inline Answer oracle(Case& c, const AttendOptions& options) {
  const int dim = c.shape.head_dim;
  const int heads = c.n_heads / c.shape.n_kv_heads;
  Answer answer;
  answer.out.resize(c.q.size());
  answer.lse.resize(c.row_pos.size() * c.n_heads);
  for (const SequenceView& sequence : c.sequences) {
    std::vector<size_t> path;  // stored index of every position
    std::vector<uint32_t> chain;
    for (uint32_t n = sequence.leaf; n != NodeView::kNoParent; n = c.nodes[n].parent) {
      chain.push_back(n);
    }
    std::reverse(chain.begin(), chain.end());
    for (uint32_t n : chain) {
      for (int i = 0; i < c.nodes[n].kv_len; ++i) path.push_back(c.node_store[n] + i);
    }
    for (uint32_t row = sequence.row_begin; row < sequence.row_end; ++row) {
      const int64_t last = std::min<int64_t>(c.row_pos[row], int64_t(path.size()) - 1);
      const int64_t first = std::max<int64_t>(0, int64_t{c.row_pos[row]} - options.window + 1);
      for (int head = 0; head < c.n_heads; ++head) {
        const float* q = c.q.data() + (size_t{row} * c.n_heads + head) * dim;
        std::vector<double> scores;
        double max = -std::numeric_limits<double>::infinity();
        for (int64_t p = first; p <= last; ++p) {
          const float* k = c.k_value(path[p], head / heads);
          double score = 0;
          for (int d = 0; d < dim; ++d) score += double{q[d]} * k[d];
          score *= options.scale;
          if (options.softcap > 0) score = options.softcap * std::tanh(score / options.softcap);
          scores.push_back(score);
          max = std::max(max, score);
        }
        double sum = 0;
        std::vector<double> o(dim, 0.0);
        for (int64_t p = first; p <= last; ++p) {
          const double weight = std::exp(scores[p - first] - max);
          sum += weight;
          const float* v = c.v_value(path[p], head / heads);
          for (int d = 0; d < dim; ++d) o[d] += weight * v[d];
        }
        const size_t index = size_t{row} * c.n_heads + head;
        for (int d = 0; d < dim; ++d) {
          answer.out[index * dim + d] = sum > 0 ? static_cast<float>(o[d] / sum) : 0.0f;
        }
        answer.lse[index] = static_cast<float>(max + std::log(sum));
      }
    }
  }
  return answer;
}

inline Answer run_plan(AttentionExecutor& executor, const Plan& plan, Case& c,
                       const AttendOptions& options) {
  Answer answer;
  const float poison = std::numeric_limits<float>::quiet_NaN();
  answer.out.assign(c.q.size(), poison);
  answer.lse.assign(c.row_pos.size() * c.n_heads, poison);
  executor.prepare(plan, c.shape, c.n_heads);
  executor.attend(plan, {c.q.data(), c.planes(), c.n_heads, options.scale, options.softcap},
                  {answer.out.data(), answer.lse.data()});
  return answer;
}

inline Answer run_case(AttentionExecutor& executor, Case& c, const AttendOptions& options,
                       const DeviceDescription& device = {},
                       PlanMethod method = PlanMethod::kPaged) {
  Plan plan;
  make_plan(method, c.view(), c.row_shape(options.window), device, plan);
  return run_plan(executor, plan, c, options);
}

// Largest difference over the root mean square of `truth`. NaN and Inf count as infinite.
inline double relative_error(const std::vector<float>& got, const std::vector<float>& truth) {
  double square = 0;
  double largest = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    square += double{truth[i]} * truth[i];
    if (got[i] == truth[i]) continue;  // infinities too
    const double difference = std::abs(double{got[i]} - truth[i]);
    if (!(difference < std::numeric_limits<double>::infinity())) return difference;
    largest = std::max(largest, difference);
  }
  const double rms = std::sqrt(square / std::max<size_t>(1, truth.size()));
  return rms > 0 ? largest / rms : largest;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline bool same_bits(const Answer& a, const Answer& b) {
  return same_bits(a.out, b.out) && same_bits(a.lse, b.lse);
}

}  // namespace banyan::testing
