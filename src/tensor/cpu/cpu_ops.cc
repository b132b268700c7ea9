// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/cpu_ops.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "tensor/cpu/products.h"

// Of the OpenMP runtime that oneDNN is built with, whose header each compiler brings its own of, or
// does not.
extern "C" void omp_set_num_threads(int n_threads);
extern "C" int omp_get_max_threads();

namespace banyan {
namespace {

// Elements that one worker passes over in the time that waking the others costs (about 2 us).
constexpr int64_t kSerialElements = 8 << 10;

// Rows from which on a feed-forward block in 8 bits is taken as one.
constexpr int64_t kFusedBorder = 16;

// Widest head of store_kv().
constexpr int kMaxHeadDim = 1024;

void check_weight(const Weight& weight, int64_t cols) {
  BANYAN_CHECK(can_be_weight(weight.type), "a tensor of this type cannot be used as weights");
  BANYAN_CHECK(weight.cols == cols, "weights and activations differ in width");
}

class CpuOpsOnPool final : public CpuOps {
 public:
  CpuOpsOnPool(ThreadPool& pool, const CpuOpsOptions& options)
      : pool_(pool),
        kernels_(options.isa),
        products_(pool, options.isa, options.compute, options.deterministic,
                  options.panel_cache_bytes),
        paths_(options.paths && !options.deterministic ? *options.paths
                                                       : products_.default_paths()) {}

  void begin_step(int n_sequences) override { products_.begin_step(n_sequences); }
  void embed(const Weight& table, std::span<const TokenId> tokens, Matrix out) override;
  void rms_norm(ConstMatrix x, const float* weight, float eps, Matrix out) override;
  void layer_norm(ConstMatrix x, const float* weight, const float* bias, float eps,
                  Matrix out) override;
  void linear(ConstMatrix x, std::span<const LinearTarget> targets) override;
  void rope(Matrix x, int n_heads, int head_dim, const RopeAngles& angles) override;
  void store_kv(const KvPlanes& planes, std::span<const KvSlot> slots, ConstMatrix k,
                ConstMatrix v) override;
  void gated(Activation activation, ConstMatrix gate, ConstMatrix up, Matrix out) override;
  void feed_forward(ConstMatrix x, const LinearTarget& gate, const LinearTarget& up,
                    Activation activation, const LinearTarget& down) override;
  void activate(Activation activation, Matrix x) override;
  void add(ConstMatrix y, Matrix x) override;
  void scale(float factor, Matrix x) override;
  void soft_cap(float cap, Matrix x) override;
  void split_heads(ConstMatrix x, int head_dim, Matrix q, Matrix k, Matrix v) override;
  void gather_rows(ConstMatrix x, std::span<const uint32_t> rows, Matrix out) override;
  void scatter_add(ConstMatrix y, std::span<const uint32_t> rows, std::span<const float> weights,
                   Matrix x) override;
  uint64_t scratch_bytes() const override { return products_.scratch_bytes(); }
  uint64_t panel_cache_bytes() const override { return products_.panel_bytes(); }

 private:
  // f(r) for every row, on all workers if there is enough to do.
  template <class F>
  void for_each_row(int64_t rows, int64_t elements_per_row, F f) {
    const auto range = [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) f(r);
    };
    if (rows * elements_per_row < kSerialElements) return range(0, rows, 0);
    pool_.parallel_for(rows, 1, range);
  }

  void store_row(const KvPlanes& planes, KvSlot slot, const float* k, const float* v) const;

  ThreadPool& pool_;
  const CpuKernels kernels_;
  Products products_;
  const ProductPaths paths_;
};

void CpuOpsOnPool::embed(const Weight& table, std::span<const TokenId> tokens, Matrix out) {
  check_weight(table, out.cols);
  for_each_row(static_cast<int64_t>(tokens.size()), table.cols, [&](int64_t r) {
    BANYAN_DCHECK(tokens[r] >= 0 && tokens[r] < table.rows, "a token outside the vocabulary");
    expand_row(kernels_, table, tokens[r], out.row(r));
  });
}

void CpuOpsOnPool::rms_norm(ConstMatrix x, const float* weight, float eps, Matrix out) {
  for_each_row(x.rows, x.cols, [&](int64_t r) {
    kernels_.simd.rms_norm(x.row(r), weight, eps, out.row(r), x.cols);
  });
}

void CpuOpsOnPool::layer_norm(ConstMatrix x, const float* weight, const float* bias, float eps,
                              Matrix out) {
  for_each_row(x.rows, x.cols, [&](int64_t r) {
    kernels_.simd.layer_norm(x.row(r), weight, bias, eps, out.row(r), x.cols);
  });
}

void CpuOpsOnPool::gated(Activation activation, ConstMatrix gate, ConstMatrix up, Matrix out) {
  const auto kernel = kernels_.simd.gated[static_cast<int>(activation)];
  for_each_row(gate.rows, gate.cols,
               [&](int64_t r) { kernel(gate.row(r), up.row(r), out.row(r), gate.cols); });
}

void CpuOpsOnPool::activate(Activation activation, Matrix x) {
  const auto kernel = kernels_.simd.activate[static_cast<int>(activation)];
  for_each_row(x.rows, x.cols, [&](int64_t r) { kernel(x.row(r), x.cols); });
}

void CpuOpsOnPool::add(ConstMatrix y, Matrix x) {
  for_each_row(x.rows, x.cols, [&](int64_t r) { kernels_.simd.add(y.row(r), x.row(r), x.cols); });
}

void CpuOpsOnPool::scale(float factor, Matrix x) {
  for_each_row(x.rows, x.cols, [&](int64_t r) { kernels_.simd.scale(factor, x.row(r), x.cols); });
}

void CpuOpsOnPool::soft_cap(float cap, Matrix x) {
  for_each_row(x.rows, x.cols, [&](int64_t r) { kernels_.simd.soft_cap(cap, x.row(r), x.cols); });
}

void CpuOpsOnPool::split_heads(ConstMatrix x, int head_dim, Matrix q, Matrix k, Matrix v) {
  for_each_row(x.rows, x.cols, [&](int64_t r) {
    const float* from = x.row(r);
    for (int64_t at = 0; at < q.cols; at += head_dim) {
      for (const Matrix* to : {&q, &k, &v}) {
        std::memcpy(to->row(r) + at, from, head_dim * sizeof(float));
        from += head_dim;
      }
    }
  });
}

void CpuOpsOnPool::gather_rows(ConstMatrix x, std::span<const uint32_t> rows, Matrix out) {
  for_each_row(static_cast<int64_t>(rows.size()), x.cols,
               [&](int64_t i) { std::memcpy(out.row(i), x.row(rows[i]), x.cols * sizeof(float)); });
}

void CpuOpsOnPool::scatter_add(ConstMatrix y, std::span<const uint32_t> rows,
                               std::span<const float> weights, Matrix x) {
  for_each_row(static_cast<int64_t>(rows.size()), x.cols, [&](int64_t i) {
    kernels_.simd.add_scaled(weights[i], y.row(i), x.row(rows[i]), x.cols);
  });
}

void CpuOpsOnPool::rope(Matrix x, int n_heads, int head_dim, const RopeAngles& angles) {
  const int64_t n_pairs = angles.rot_dim / 2;
  const auto turn = angles.interleaved ? kernels_.simd.rope_pairs : kernels_.simd.rope_halves;
  for_each_row(x.rows, x.cols, [&](int64_t r) {
    for (int64_t head = 0; head < n_heads; ++head) {
      turn(x.row(r) + head * head_dim, angles.cos + r * n_pairs, angles.sin + r * n_pairs, n_pairs);
    }
  });
}

void CpuOpsOnPool::store_kv(const KvPlanes& planes, std::span<const KvSlot> slots, ConstMatrix k,
                            ConstMatrix v) {
  BANYAN_CHECK(planes.shape.head_dim <= kMaxHeadDim, "heads are wider than store_kv() takes");
  for_each_row(static_cast<int64_t>(slots.size()), k.cols + v.cols,
               [&](int64_t r) { store_row(planes, slots[r], k.row(r), v.row(r)); });
}

// Writes n elements of type T, `stride` elements apart.
template <class T>
void scatter(const T* from, int64_t n, std::byte* to, int64_t stride) {
  for (int64_t i = 0; i < n; ++i) std::memcpy(to + i * stride * sizeof(T), from + i, sizeof(T));
}

// A block of ggml's q8_0.
struct Q8Block {
  uint16_t scale;
  int8_t values[kScaleDims];
};
static_assert(sizeof(Q8Block) == 34);

// One head's K (transposed) or V in q8_0, into `slot` of its panel.
template <bool kTransposed>
void store_q8(GgmlFromFloat round, const float* from, int head_dim, std::byte* panel, int slot) {
  std::array<Q8Block, kMaxHeadDim / kScaleDims> blocks;
  const int whole = head_dim - head_dim % kScaleDims;
  round(from, blocks.data(), whole);
  if (whole < head_dim) {
    float last[kScaleDims] = {};
    std::copy(from + whole, from + head_dim, last);
    round(last, &blocks[whole / kScaleDims], kScaleDims);
  }
  for (int b = 0; b < scale_blocks(head_dim); ++b) {
    const int first = b * kScaleDims;
    const int dims = std::min(kScaleDims, head_dim - first);
    if (kTransposed) {
      scatter(blocks[b].values, dims, panel + first * kPanelTokens + slot, kPanelTokens);
    } else {
      std::memcpy(panel + slot * head_dim + first, blocks[b].values, dims);
    }
    scatter(&blocks[b].scale, 1,
            panel + scales_offset(head_dim) + (b * kPanelTokens + slot) * sizeof(uint16_t), 1);
  }
}

void CpuOpsOnPool::store_row(const KvPlanes& planes, KvSlot slot, const float* k,
                             const float* v) const {
  const KvShape& shape = planes.shape;
  const int64_t head_dim = shape.head_dim;
  std::array<uint16_t, kMaxHeadDim> rounded;
  const auto round = [&](DType type, const float* from, uint16_t* to) {
    (type == DType::kF16 ? kernels_.simd.f32_to_f16 : kernels_.simd.f32_to_bf16)(from, to,
                                                                                 head_dim);
  };
  const GgmlFromFloat round_q8 = kernels_.of(DType::kQ8_0).from_float;
  for (int head = 0; head < shape.n_kv_heads; ++head, k += head_dim, v += head_dim) {
    std::byte* k_panel = planes.k_panel(head, slot.panel);
    std::byte* v_panel = planes.v_panel(head, slot.panel);
    std::byte* k_column = k_panel + slot.slot * int64_t{element_bytes(shape.k_type)};
    if (shape.k_type == DType::kQ8_0) {
      store_q8</*kTransposed=*/true>(round_q8, k, shape.head_dim, k_panel, slot.slot);
    } else if (shape.k_type == DType::kF32) {
      scatter(k, head_dim, k_column, kPanelTokens);
    } else {
      round(shape.k_type, k, rounded.data());
      scatter(rounded.data(), head_dim, k_column, kPanelTokens);
    }
    std::byte* v_row = v_panel + slot.slot * head_dim * element_bytes(shape.v_type);
    if (shape.v_type == DType::kQ8_0) {
      store_q8</*kTransposed=*/false>(round_q8, v, shape.head_dim, v_panel, slot.slot);
    } else if (shape.v_type == DType::kF32) {
      std::memcpy(v_row, v, head_dim * sizeof(float));
    } else {
      round(shape.v_type, v, reinterpret_cast<uint16_t*>(v_row));
    }
  }
}

// A call goes one way as a whole, its targets in one parallel region, unless their paths differ.
void CpuOpsOnPool::linear(ConstMatrix x, std::span<const LinearTarget> targets) {
  if (x.rows == 0 || targets.empty()) return;
  for (const LinearTarget& target : targets) check_weight(target.weight, x.cols);
  const auto path_of = [&](const LinearTarget& target) {
    return products_.path_of(paths_, target.weight, x.rows);
  };
  const ProductPath path = path_of(targets[0]);
  if (std::ranges::all_of(targets, [&](const auto& target) { return path_of(target) == path; })) {
    return products_.run(path, x, targets);
  }
  for (const LinearTarget& target : targets) products_.run(path_of(target), x, {&target, 1});
}

void CpuOpsOnPool::feed_forward(ConstMatrix x, const LinearTarget& gate, const LinearTarget& up,
                                Activation activation, const LinearTarget& down) {
  const auto in_int8 = [&](const LinearTarget& target) {
    return products_.path_of(paths_, target.weight, x.rows) == ProductPath::kInt8;
  };
  if (x.rows >= kFusedBorder && in_int8(gate) && in_int8(up) && in_int8(down)) {
    check_weight(gate.weight, x.cols);
    check_weight(up.weight, x.cols);
    check_weight(down.weight, gate.weight.rows);
    return products_.feed_forward(x, gate, up, kernels_.simd.gated[static_cast<int>(activation)],
                                  down);
  }
  linear(x, std::array{gate, up});
  gated(activation, gate.out, up.out, gate.out);
  linear(gate.out, {&down, 1});
}

}  // namespace

std::unique_ptr<CpuOps> make_cpu_ops(ThreadPool& pool, const CpuOpsOptions& options) {
  return std::make_unique<CpuOpsOnPool>(pool, options);
}

bool can_be_weight(DType type) {
  if (type == DType::kF32 || type == DType::kF16 || type == DType::kBF16) return true;
  if (type_info(type) == nullptr) return false;
  const GgmlTypeKernels& ggml = ggml_kernels(Isa::kBaseline).types[static_cast<int32_t>(type)];
  return ggml.vec_dot != nullptr && ggml.to_float != nullptr;
}

void init_worker_thread() { omp_set_num_threads(1); }

OneThreadHere::OneThreadHere() : before_(omp_get_max_threads()) { init_worker_thread(); }
OneThreadHere::~OneThreadHere() { omp_set_num_threads(before_); }

void apply_isa_cap(Isa isa) {
  const auto cap = [isa] {
    if (isa >= Isa::kAmx) return dnnl::cpu_isa::avx512_core_amx;
    if (isa >= Isa::kAvx512) return dnnl::cpu_isa::avx512_core_bf16;
    return isa >= Isa::kAvx2 ? dnnl::cpu_isa::avx2 : dnnl::cpu_isa::sse41;
  }();
  static_cast<void>(dnnl::set_max_cpu_isa(cap));  // refuses after first use, as documented
}

}  // namespace banyan
