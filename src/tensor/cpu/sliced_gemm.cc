// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/sliced_gemm.h"

#include <algorithm>
#include <string_view>

#include "base/check.h"
#include "tensor/cpu/cpu_ops.h"
#include "tensor/cpu/row_passes.h"

namespace banyan {
namespace {

using Shape = dnnl::memory::dims;
using DataType = dnnl::memory::data_type;

// Rows per pass: bounds the scratch for activations in bf16. Weights are expanded once per pass,
// which costs 1 % of the multiplication with so many rows.
constexpr int64_t kMaxRows = 1024;

// Outputs of a slice: oneDNN's speed on fewer (measured with 16 and 512 rows of 1,536: bf16 91 % at
// 64 of that at 192, f32 37 to 89 %), and what the expanded weights take of an L2 of 1 MiB on more.
constexpr int64_t kMinSliceBf16 = 64;
constexpr int64_t kMinSliceF32 = 192;
constexpr int64_t kMaxSliceRows = 192;
constexpr int64_t kSliceBytes = 384 << 10;

// Slices for each worker, at least, where there are outputs enough: the last one to finish is
// waited for.
constexpr int64_t kSlicesPerWorker = 4;

// Rows of an f32 product given to oneDNN at once where it has AVX-512: up to so many it uses a
// kernel that copies nothing, which runs at 110 GFLOP/s; with 16 to 64 rows at once it is 53 to 88.
constexpr int64_t kF32RowsAvx512 = 12;

// Shapes for which a primitive is kept. Their number is that of the row counts met times about ten.
constexpr size_t kMaxPrimitives = 512;

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const dnnl::memory::desc& x,
                                      const dnnl::memory::desc& w, const dnnl::memory::desc& out,
                                      const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR >= 3
  return {engine, x, w, out, attributes};
#else
  return {dnnl::matmul::desc(x, w, out), attributes, engine};
#endif
}

// Whether oneDNN multiplies bf16 with instructions for it (it has a slow reference otherwise, or
// refuses).
bool onednn_has_fast_bf16(const dnnl::engine& engine) {
  const dnnl::memory::desc x({64, 64}, DataType::bf16, Shape{64, 1});
  const dnnl::memory::desc w({64, 64}, DataType::bf16, Shape{1, 64});
  const dnnl::memory::desc out({64, 64}, DataType::f32, Shape{64, 1});
  try {
    const auto description = describe(engine, x, w, out, {});
    return std::string_view(description.impl_info_str()).find("ref") == std::string_view::npos;
  } catch (const dnnl::error&) {
    return false;
  }
}

int64_t slice_rows(bool bf16, int64_t cols, int64_t total_outputs, int n_workers) {
  const int64_t by_cache = kSliceBytes / (cols * (bf16 ? 2 : 4)) / 16 * 16;
  const int64_t by_workers = total_outputs / (n_workers * kSlicesPerWorker) / 16 * 16;
  return std::clamp(std::min(by_cache, by_workers), bf16 ? kMinSliceBf16 : kMinSliceF32,
                    kMaxSliceRows);
}

}  // namespace

SlicedGemm::SlicedGemm(ThreadPool& pool, const CpuKernels& kernels, Compute compute, Isa isa,
                       uint64_t panel_bytes)
    : pool_(pool),
      kernels_(kernels),
      engine_(dnnl::engine::kind::cpu, 0),
      f32_rows_(isa >= Isa::kAvx512 ? kF32RowsAvx512 : kMaxRows),
      has_bf16_(compute == Compute::kAuto && isa >= Isa::kAvx512 && has_avx512_bf16() &&
                onednn_has_fast_bf16(engine_)),
      most_panel_bytes_(panel_bytes),
      scratch_(pool.size()) {}

bool SlicedGemm::uses_bf16(DType type) const {
  return has_bf16_ && type != DType::kF32 && type != DType::kF16;
}

bool SlicedGemm::expands(const Weight& weight) const {
  return weight.type != (uses_bf16(weight.type) ? DType::kBF16 : DType::kF32);
}

uint64_t SlicedGemm::expanded_bytes(const Weight& weight) const {
  return static_cast<uint64_t>(weight.rows * weight.cols) * (uses_bf16(weight.type) ? 2 : 4);
}

bool SlicedGemm::keeps(const Weight& weight) const {
  if (most_panel_bytes_ == 0 || !expands(weight)) return false;
  const auto found = panels_.find(weight.data);
  if (found == panels_.end()) return expanded_bytes(weight) <= most_panel_bytes_ - panel_bytes_;
  // Views of fused weights may begin at one address.
  const Weight& of = found->second.of;
  return of.type == weight.type && of.rows == weight.rows && of.cols == weight.cols &&
         of.row_bytes == weight.row_bytes;
}

// What came first stays: every step reads all weights in the same order, so that whatever took
// another's place would be replaced itself before it is read again.
SlicedGemm::Panels* SlicedGemm::panels_for(const Weight& weight) {
  if (!keeps(weight)) return nullptr;
  const auto [entry, is_new] = panels_.try_emplace(weight.data);
  Panels& panels = entry->second;
  if (is_new) {
    const uint64_t bytes = expanded_bytes(weight);
    panels.of = weight;
    panels.data = AlignedArray<std::byte>(bytes);
    panel_bytes_ += bytes;
  }
  // The second of two targets with the same weights does not wait for the first.
  if (panels.is_listed && !panels.is_full) return nullptr;
  panels.is_listed = true;
  return &panels;
}

uint64_t SlicedGemm::scratch_bytes() const {
  uint64_t bytes = rounded_x_.size() * sizeof(uint16_t);
  for (const WorkerScratch& scratch : scratch_) {
    bytes += scratch.expanded.size() * sizeof(float) + scratch.rounded.size() * sizeof(uint16_t) +
             scratch.scratchpad.size();
  }
  return bytes;
}

void SlicedGemm::run(ConstMatrix x, std::span<const LinearTarget> targets) {
  const OneThreadHere one_thread;
  for_each_row_pass(
      x, targets, kMaxRows,
      [&](ConstMatrix rows, std::span<const LinearTarget> some) { run_block(rows, some); });
}

void SlicedGemm::run_block(ConstMatrix x, std::span<const LinearTarget> targets) {
  const bool any_bf16 = std::ranges::any_of(
      targets, [&](const LinearTarget& target) { return uses_bf16(target.weight.type); });
  if (any_bf16) round_activations(x);
  list_slices(x, targets);
  std::atomic<size_t> next{0};
  pool_.run([&](int worker) {
    for (size_t i = next.fetch_add(1); i < slices_.size(); i = next.fetch_add(1)) {
      const Slice& slice = slices_[i];
      if (slice.bf16 != nullptr) {
        multiply_bf16(slice, scratch_[worker]);
      } else {
        multiply_f32(x, slice, scratch_[worker]);
      }
      if (slice.target->bias != nullptr) add_bias(slice);
    }
  });
  for (const Slice& slice : slices_) {
    if (slice.panels != nullptr) slice.panels->is_full = true;
  }
}

// Primitives are made here, by the caller, so that workers only read the cache.
void SlicedGemm::list_slices(ConstMatrix x, std::span<const LinearTarget> targets) {
  if (matmuls_.size() > kMaxPrimitives) matmuls_.clear();
  slices_.clear();
  int64_t total_outputs = 0;
  for (const LinearTarget& target : targets) total_outputs += target.weight.rows;
  for (const LinearTarget& target : targets) {
    const Weight& weight = target.weight;
    const bool bf16 = uses_bf16(weight.type);
    const int64_t step = slice_rows(bf16, x.cols, total_outputs, pool_.size());
    Panels* panels = panels_for(weight);
    for (int64_t begin = 0; begin < weight.rows; begin += step) {
      const int64_t end = std::min(begin + step, weight.rows);
      const Bf16Matmul* matmul = nullptr;
      if (bf16) {
        matmul =
            &bf16_matmul({.m = x.rows,
                          .n = end - begin,
                          .k = x.cols,
                          .w_stride = weight.type == DType::kBF16 ? weight.row_bytes / 2 : x.cols,
                          .out_stride = target.out.stride,
                          .accumulate = target.accumulate});
      }
      slices_.push_back({&target, begin, end, matmul, panels});
      reserve_scratch(slices_.back());
    }
  }
}

// Every worker gets room for every slice: which of them takes which is chance, and what is held
// must not be.
void SlicedGemm::reserve_scratch(const Slice& slice) {
  const Weight& weight = slice.target->weight;
  const int64_t elements = (slice.end - slice.begin) * weight.cols;
  for (WorkerScratch& scratch : scratch_) {
    const bool is_kept = slice.panels != nullptr;
    if (slice.bf16 == nullptr) {
      if (expands(weight) && !is_kept) scratch.expanded.reserve_discarding(elements);
      continue;
    }
    scratch.scratchpad.reserve_discarding(slice.bf16->scratchpad.get_size());
    if (!expands(weight)) continue;
    scratch.expanded.reserve_discarding(weight.cols);
    if (!is_kept) scratch.rounded.reserve_discarding(elements);
  }
}

const SlicedGemm::Bf16Matmul& SlicedGemm::bf16_matmul(const Bf16Shape& shape) {
  if (const auto found = matmuls_.find(shape); found != matmuls_.end()) return found->second;
  try {
    const dnnl::memory::desc x({shape.m, shape.k}, DataType::bf16, Shape{shape.k, 1});
    const dnnl::memory::desc w({shape.k, shape.n}, DataType::bf16, Shape{1, shape.w_stride});
    const dnnl::memory::desc out({shape.m, shape.n}, DataType::f32, Shape{shape.out_stride, 1});
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (shape.accumulate) {
      dnnl::post_ops add_to_out;
      add_to_out.append_sum(1.0F);
      attributes.set_post_ops(add_to_out);
    }
    const auto description = describe(engine_, x, w, out, attributes);
    Bf16Matmul matmul{x, w, out, description.scratchpad_desc(), dnnl::matmul(description)};
    return matmuls_.emplace(shape, std::move(matmul)).first->second;
  } catch (const dnnl::error& error) {
    check_failed(__FILE__, __LINE__, "oneDNN bf16 matmul", error.what());
  }
}

void SlicedGemm::round_activations(ConstMatrix x) {
  rounded_x_.reserve_discarding(x.rows * x.cols);
  pool_.parallel_for(x.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      kernels_.simd.f32_to_bf16(x.row(r), rounded_x_.data() + r * x.cols, x.cols);
    }
  });
}

void SlicedGemm::multiply_f32(ConstMatrix x, const Slice& slice, WorkerScratch& scratch) const {
  const Weight& weight = slice.target->weight;
  const int64_t n_outputs = slice.end - slice.begin;
  const float* w = nullptr;
  int64_t w_stride = weight.cols;
  if (!expands(weight)) {
    w = reinterpret_cast<const float*>(weight.row(slice.begin));
    w_stride = weight.row_bytes / static_cast<int64_t>(sizeof(float));
  } else {
    float* expanded =
        slice.panels == nullptr
            ? scratch.expanded.data()
            : reinterpret_cast<float*>(slice.panels->data.data()) + slice.begin * weight.cols;
    if (slice.panels == nullptr || !slice.panels->is_full) {
      for (int64_t n = 0; n < n_outputs; ++n) {
        expand_row(kernels_, weight, slice.begin + n, expanded + n * weight.cols);
      }
    }
    w = expanded;
  }
  const Matrix& out = slice.target->out;
  const float beta = slice.target->accumulate ? 1.0F : 0.0F;
  for (int64_t r = 0; r < x.rows; r += f32_rows_) {
    const int64_t n_rows = std::min(f32_rows_, x.rows - r);
    const dnnl_status_t status =
        dnnl_sgemm('N', 'T', n_rows, n_outputs, x.cols, 1.0F, x.row(r), x.stride, w, w_stride, beta,
                   out.row(r) + slice.begin, out.stride);
    BANYAN_CHECK(status == dnnl_success, "oneDNN refused a product of f32 matrices");
  }
}

void SlicedGemm::multiply_bf16(const Slice& slice, WorkerScratch& scratch) const {
  const Weight& weight = slice.target->weight;
  const int64_t n_outputs = slice.end - slice.begin;
  const void* w = weight.row(slice.begin);
  if (expands(weight)) {
    uint16_t* rounded =
        slice.panels == nullptr
            ? scratch.rounded.data()
            : reinterpret_cast<uint16_t*>(slice.panels->data.data()) + slice.begin * weight.cols;
    if (slice.panels == nullptr || !slice.panels->is_full) {
      for (int64_t n = 0; n < n_outputs; ++n) {
        expand_row(kernels_, weight, slice.begin + n, scratch.expanded.data());
        kernels_.simd.f32_to_bf16(scratch.expanded.data(), rounded + n * weight.cols, weight.cols);
      }
    }
    w = rounded;
  }
  const Bf16Matmul& matmul = *slice.bf16;
  try {
    dnnl::stream stream(engine_);
    matmul.primitive.execute(
        stream, {{DNNL_ARG_SRC, {matmul.x, engine_, const_cast<uint16_t*>(rounded_x_.data())}},
                 {DNNL_ARG_WEIGHTS, {matmul.w, engine_, const_cast<void*>(w)}},
                 {DNNL_ARG_DST, {matmul.out, engine_, slice.target->out.data + slice.begin}},
                 {DNNL_ARG_SCRATCHPAD, {matmul.scratchpad, engine_, scratch.scratchpad.data()}}});
    stream.wait();
  } catch (const dnnl::error& error) {
    check_failed(__FILE__, __LINE__, "oneDNN bf16 matmul", error.what());
  }
}

void SlicedGemm::add_bias(const Slice& slice) const {
  const LinearTarget& target = *slice.target;
  for (int64_t r = 0; r < target.out.rows; ++r) {
    kernels_.simd.add(target.bias + slice.begin, target.out.row(r) + slice.begin,
                      slice.end - slice.begin);
  }
}

}  // namespace banyan
