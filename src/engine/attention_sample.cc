// SPDX-License-Identifier: Apache-2.0
#include "engine/attention_sample.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <random>

#include "base/check.h"
#include "tensor/cpu/kernels.h"

namespace banyan {
namespace {

// One row from each of max_rows equal parts: rows at all places of an executor's tiles.
std::vector<uint32_t> spread_rows(int64_t n_rows, int max_rows) {
  std::vector<uint32_t> rows;
  const int64_t n = std::min<int64_t>(n_rows, max_rows);
  std::mt19937_64 bits(2);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t begin = i * n_rows / n;
    const int64_t end = (i + 1) * n_rows / n;
    rows.push_back(static_cast<uint32_t>(begin + bits() % (end - begin)));
  }
  return rows;
}

// The panels that hold the sequence of `row`, from position 0.
std::vector<PanelRef> path_of(const TreeView& tree, uint32_t row) {
  const auto sequence =
      std::partition_point(tree.sequences.begin(), tree.sequences.end(),
                           [&](const SequenceView& s) { return s.row_end <= row; });
  std::vector<uint32_t> nodes;
  for (uint32_t n = sequence->leaf; n != NodeView::kNoParent; n = tree.nodes[n].parent) {
    nodes.push_back(n);
  }
  std::vector<PanelRef> path;
  for (auto n = nodes.rbegin(); n != nodes.rend(); ++n) {
    const NodeView& node = tree.nodes[*n];
    path.insert(path.end(), node.refs.begin(), node.refs.end());
  }
  return path;
}

// A panel of which neighbouring elements lie `d_stride` apart in dimension and `slot_stride` in
// slot.
void load_q8(const std::byte* panel, int head_dim, int d_stride, int slot_stride,
             std::span<float> out) {
  for (int d = 0; d < head_dim; ++d) {
    const std::byte* scales =
        panel + scales_offset(head_dim) + d / kScaleDims * kPanelTokens * sizeof(uint16_t);
    float scale[kPanelTokens];
    expand_unquantized(DType::kF16, scales, scale, kPanelTokens);
    for (int slot = 0; slot < kPanelTokens; ++slot) {
      const int i = d * d_stride + slot * slot_stride;
      out[i] = scale[slot] * static_cast<int8_t>(panel[i]);
    }
  }
}

void load_panel(const Kernels& k, DType type, const std::byte* panel, std::span<float> out) {
  const auto n = static_cast<int64_t>(out.size());
  if (type == DType::kF32) {
    std::copy_n(reinterpret_cast<const float*>(panel), n, out.data());
  } else if (type == DType::kF16) {
    k.f16_to_f32(panel, out.data(), n);
  } else {
    k.bf16_to_f32(panel, out.data(), n);
  }
}

// Softmax that grows by a panel at a time.
struct ExactState {
  double m = -std::numeric_limits<double>::infinity();
  double l = 0;
  std::vector<double> o;  // [head_dim]

  void add(const float* q, double scale, std::span<const float> k, std::span<const float> v,
           int slot_begin, int slot_end) {
    const size_t dim = o.size();
    double scores[kPanelTokens] = {};
    for (size_t d = 0; d < dim; ++d) {
      const double element = q[d];
      for (int s = 0; s < kPanelTokens; ++s) scores[s] += element * k[d * kPanelTokens + s];
    }
    double largest = m;
    for (int s = slot_begin; s < slot_end; ++s) {
      scores[s] *= scale;
      largest = std::max(largest, scores[s]);
    }
    const double rescale = std::exp(m - largest);
    m = largest;
    l *= rescale;
    for (double& element : o) element *= rescale;
    for (int s = slot_begin; s < slot_end; ++s) {
      const double p = std::exp(scores[s] - m);
      l += p;
      const float* value = v.data() + s * dim;
      for (size_t d = 0; d < dim; ++d) o[d] += p * value[d];
    }
  }
};

// Buffers of one worker.
struct Scratch {
  std::vector<float> k;
  std::vector<float> v;
};

// The query heads of `kv_head` for row `index` of the sample.
void attend_exactly(const AttentionWorkload& workload, const AttendInputs& in,
                    const Kernels& kernel, int kv_head, size_t index,
                    std::span<const PanelRef> path, Scratch& scratch, AttentionSample& sample) {
  const AttentionCase& shape = workload.shape();
  const int dim = shape.head_dim;
  const int heads = shape.n_heads / shape.n_kv_heads;
  const uint32_t row = sample.rows[index];
  const Position last = workload.tree().row_pos[row];
  std::vector<ExactState> states(heads);
  for (ExactState& state : states) state.o.assign(dim, 0.0);
  scratch.k.resize(size_t(dim) * kPanelTokens);
  scratch.v.resize(size_t(dim) * kPanelTokens);
  Position position = 0;
  for (const PanelRef& ref : path) {
    if (position > last) break;
    const int slot_end = std::min<int>(ref.slot_end, ref.slot_begin + (last - position) + 1);
    const std::byte* k = in.kv.k_panel(kv_head, ref.panel);
    const std::byte* v = in.kv.v_panel(kv_head, ref.panel);
    if (shape.kv_type == DType::kQ8_0) {
      load_q8(k, dim, kPanelTokens, 1, scratch.k);
      load_q8(v, dim, 1, dim, scratch.v);
    } else {
      load_panel(kernel, shape.kv_type, k, scratch.k);
      load_panel(kernel, shape.kv_type, v, scratch.v);
    }
    for (int h = 0; h < heads; ++h) {
      const float* q = in.q + (size_t{row} * shape.n_heads + kv_head * heads + h) * dim;
      states[h].add(q, in.scale, scratch.k, scratch.v, ref.slot_begin, slot_end);
    }
    position += ref.slot_end - ref.slot_begin;
  }
  for (int h = 0; h < heads; ++h) {
    const size_t at = index * shape.n_heads + kv_head * heads + h;
    const ExactState& state = states[h];
    for (int d = 0; d < dim; ++d) sample.out[at * dim + d] = state.o[d] / state.l;
    sample.lse[at] = state.m + std::log(state.l);
  }
}

}  // namespace

AttentionSample sample_attention(const AttentionWorkload& workload, int layer, int max_rows,
                                 ThreadPool& pool, Isa isa) {
  const AttentionCase& shape = workload.shape();
  AttentionSample sample;
  sample.rows = spread_rows(shape.n_rows(), max_rows);
  sample.out.resize(sample.rows.size() * shape.n_heads * shape.head_dim);
  sample.lse.resize(sample.rows.size() * shape.n_heads);
  const AttendInputs in = workload.inputs(layer);
  const size_t n_items = sample.rows.size() * shape.n_kv_heads;
  std::atomic<size_t> next{0};
  pool.run([&](int) {
    Scratch scratch;
    for (size_t item = next++; item < n_items; item = next++) {
      const size_t index = item / shape.n_kv_heads;
      const std::vector<PanelRef> path = path_of(workload.tree(), sample.rows[index]);
      attend_exactly(workload, in, kernels(isa), static_cast<int>(item % shape.n_kv_heads), index,
                     path, scratch, sample);
    }
  });
  return sample;
}

AttentionErrors compare(const AttentionSample& sample, const AttentionCase& shape,
                        const AttendOutputs& output) {
  BANYAN_CHECK(!sample.rows.empty() && output.lse != nullptr, "a sample of rows and their lse");
  const size_t row_size = static_cast<size_t>(shape.n_heads) * shape.head_dim;
  double squares = 0;
  double largest = 0;
  bool finite = true;
  std::vector<double> recalls;
  for (size_t index = 0; index < sample.rows.size(); ++index) {
    const uint32_t row = sample.rows[index];
    for (size_t i = 0; i < row_size; ++i) {
      const double exact = sample.out[index * row_size + i];
      const double difference = std::abs(output.out[row * row_size + i] - exact);
      finite = finite && std::isfinite(difference);
      largest = std::max(largest, difference);
      squares += exact * exact;
    }
    for (int h = 0; h < shape.n_heads; ++h) {
      const double exact = sample.lse[index * shape.n_heads + h];
      const double recall = std::exp(output.lse[size_t{row} * shape.n_heads + h] - exact);
      recalls.push_back(std::isfinite(recall) ? recall : 0.0);
    }
  }
  const double rms = std::sqrt(squares / static_cast<double>(sample.out.size()));
  AttentionErrors errors;
  errors.rel_err = finite ? largest / rms : std::numeric_limits<double>::infinity();
  for (const double recall : recalls) {
    errors.recall_mean += recall / static_cast<double>(recalls.size());
  }
  std::sort(recalls.begin(), recalls.end());
  errors.recall_p5 = recalls[recalls.size() / 20];
  return errors;
}

}  // namespace banyan
