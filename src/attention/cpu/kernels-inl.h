// SPDX-License-Identifier: Apache-2.0
// The kernels of kernels.h, compiled once for each instruction set.
#if defined(BANYAN_ATTENTION_CPU_KERNELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BANYAN_ATTENTION_CPU_KERNELS_INL_H_
#undef BANYAN_ATTENTION_CPU_KERNELS_INL_H_
#else
#define BANYAN_ATTENTION_CPU_KERNELS_INL_H_
#endif

#include <cstring>
#include <limits>
#include <type_traits>

#include "attention/cpu/kernels.h"
#include "attention/cpu/math-inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace banyan {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, kPanelTokens>;
using FloatVector = hn::VFromD<Floats>;
inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(Floats()));
inline constexpr int kBlockVectors = kBlockTokens / kLanes;
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Reads kLanes stored elements as f32; exact for every type. (Of q8_0, the 8-bit numbers.)
HWY_INLINE FloatVector load_floats(const float* p) { return hn::LoadU(Floats(), p); }
HWY_INLINE FloatVector load_floats(const hwy::float16_t* p) {
  return hn::PromoteTo(Floats(), hn::LoadU(hn::Rebind<hwy::float16_t, Floats>(), p));
}
HWY_INLINE FloatVector load_floats(const hwy::bfloat16_t* p) {
  return hn::PromoteTo(Floats(), hn::LoadU(hn::Rebind<hwy::bfloat16_t, Floats>(), p));
}

HWY_INLINE FloatVector load_floats(const int8_t* p) {
  const hn::RebindToSigned<Floats> di;
  return hn::ConvertTo(Floats(), hn::PromoteTo(di, hn::LoadU(hn::Rebind<int8_t, Floats>(), p)));
}

// kLanes scales.
HWY_INLINE FloatVector load_scales(const uint16_t* p) {
  return load_floats(reinterpret_cast<const hwy::float16_t*>(p));
}

// Calls f with a null pointer of the C++ type that `type` is stored as.
template <class F>
HWY_INLINE void with_type(DType type, F f) {
  switch (type) {
    case DType::kF16:
      return f(static_cast<const hwy::float16_t*>(nullptr));
    case DType::kBF16:
      return f(static_cast<const hwy::bfloat16_t*>(nullptr));
    case DType::kQ8_0:
      return f(static_cast<const int8_t*>(nullptr));
    default:
      return f(static_cast<const float*>(nullptr));
  }
}

// ---- Register tiles ----
// acc[r][c] += sum over i in [begin, end) of a[r * a_stride + i] * b[c][i * b_step ..], one i after
// the other. Each load (and conversion) of b serves R rows. 32 vector registers hold 6 x 4
// accumulators and their operands, 16 hold 6 x 2 or 3 x 4.
template <int R, int C, class T>
HWY_INLINE void add_products(const float* HWY_RESTRICT a, size_t a_stride, const T* const (&b)[C],
                             size_t b_step, size_t begin, size_t end, FloatVector (&acc)[R][C]) {
  const Floats d;
  for (size_t i = begin; i < end; ++i) {
    // The smaller set of operands stays in registers, the other passes through one.
    if constexpr (R < C) {
      FloatVector av[R];
      HWY_UNROLL(8)
      for (int r = 0; r < R; ++r) av[r] = hn::Set(d, a[r * a_stride + i]);
      HWY_UNROLL(8)
      for (int c = 0; c < C; ++c) {
        const FloatVector bv = load_floats(b[c] + i * b_step);
        HWY_UNROLL(8)
        for (int r = 0; r < R; ++r) acc[r][c] = hn::MulAdd(av[r], bv, acc[r][c]);
      }
    } else {
      FloatVector bv[C];
      HWY_UNROLL(8)
      for (int c = 0; c < C; ++c) bv[c] = load_floats(b[c] + i * b_step);
      HWY_UNROLL(8)
      for (int r = 0; r < R; ++r) {
        const FloatVector av = hn::Set(d, a[r * a_stride + i]);
        HWY_UNROLL(8)
        for (int c = 0; c < C; ++c) acc[r][c] = hn::MulAdd(av, bv[c], acc[r][c]);
      }
    }
  }
}

// Fetching ahead: into the second-level cache, a few lines after each kAheadSteps steps of a tile.
// All of a block's lines at once, or into the first level, gained nothing where this gained 40 %
// (Zen 4, f16, 1 to 3 packed rows).
inline constexpr int kAheadSteps = 8;

// The lines that begin in bytes [begin, end) of a panel.
HWY_INLINE void fetch_ahead(const void* p, size_t begin, size_t end) {
  for (size_t at = (begin + 63) / 64 * 64; at < end; at += 64) {
    __builtin_prefetch(static_cast<const char*>(p) + at, 0, 2);
  }
}

// The scales of block `index` of a panel in q8_0.
HWY_INLINE void fetch_scales_ahead(const void* p, size_t head_dim, int index) {
  const size_t at = scales_offset(head_dim) + index * kPanelTokens * sizeof(uint16_t);
  if (p != nullptr) __builtin_prefetch(static_cast<const char*>(p) + at, 0, 2);
}

template <int R>
constexpr int tile_columns() {
  constexpr bool kManyRegisters = HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM_A64 || HWY_ARCH_RISCV;
  return kManyRegisters || R <= 3 ? 4 : 2;
}

// Calls tile<C>(column) for C-wide tiles that cover vector columns [begin, end).
template <int C, class F>
HWY_INLINE void for_each_column_tile(int begin, int end, F tile) {
  for (; begin + C <= end; begin += C) tile(std::integral_constant<int, C>(), begin);
  if constexpr (C > 1) {
    for_each_column_tile<C / 2>(begin, end, tile);
  }
}

// Calls tile<R>(first_row) for row tiles that cover rows [0, n).
template <class F>
HWY_INLINE void for_each_row_tile(int n, F tile) {
  int row = 0;
  for (; row + kTileRows <= n; row += kTileRows) {
    tile(std::integral_constant<int, kTileRows>(), row);
  }
  switch (n - row) {
    case 5:
      return tile(std::integral_constant<int, 5>(), row);
    case 4:
      return tile(std::integral_constant<int, 4>(), row);
    case 3:
      return tile(std::integral_constant<int, 3>(), row);
    case 2:
      return tile(std::integral_constant<int, 2>(), row);
    case 1:
      return tile(std::integral_constant<int, 1>(), row);
    default:
      return;
  }
}

// ---- Packing ----
template <class T>
HWY_NOINLINE void pack_k_panel(const T* panel, int head_dim, int slot_begin, int slot_end,
                               float* out) {
  const Floats d;
  const bool whole = slot_begin == 0 && slot_end == kPanelTokens;
  for (int row = 0; row < head_dim; ++row) {
    HWY_UNROLL(8)
    for (int lane = 0; lane < kPanelTokens; lane += kLanes) {
      const size_t at = size_t(row) * kPanelTokens + lane;
      FloatVector v = load_floats(panel + at);
      if (!whole) {
        const FloatVector slot = hn::Iota(d, static_cast<float>(lane));
        const auto keep = hn::And(hn::Ge(slot, hn::Set(d, static_cast<float>(slot_begin))),
                                  hn::Lt(slot, hn::Set(d, static_cast<float>(slot_end))));
        v = hn::IfThenElse(keep, v, hn::LoadU(d, out + at));
      }
      hn::StoreU(v, d, out + at);
    }
  }
}

inline void pack_k(DType type, const void* panel, int head_dim, int slot_begin, int slot_end,
                   float* out) {
  with_type(type, [&](auto* typed) HWY_ATTR {
    pack_k_panel(static_cast<decltype(typed)>(panel), head_dim, slot_begin, slot_end, out);
  });
}

template <class T>
HWY_NOINLINE void pack_v_panel(const T* panel, int head_dim, int slot_begin, int slot_end,
                               size_t stride, float* out) {
  const Floats d;
  for (int slot = slot_begin; slot < slot_end; ++slot) {
    const T* from = panel + size_t(slot) * head_dim;
    float* to = out + slot * stride;
    int i = 0;
    for (; i + kLanes <= head_dim; i += kLanes) hn::StoreU(load_floats(from + i), d, to + i);
    if (i < head_dim) {
      T tail[kPanelTokens] = {};
      std::memcpy(tail, from + i, (head_dim - i) * sizeof(T));
      hn::StoreU(load_floats(tail), d, to + i);
      i += kLanes;
    }
    for (; i < static_cast<int>(stride); i += kLanes) hn::StoreU(hn::Zero(d), d, to + i);
  }
}

inline void pack_v(DType type, const void* panel, int head_dim, int slot_begin, int slot_end,
                   size_t stride, float* out) {
  with_type(type, [&](auto* typed) HWY_ATTR {
    pack_v_panel(static_cast<decltype(typed)>(panel), head_dim, slot_begin, slot_end, stride, out);
  });
}

// ---- Scores ----
// With scales, the dimensions of each scale are summed apart, and `scores` holds the sum of those
// before.
template <int R, int C, class T, bool kScaled>
HWY_INLINE void score_tile(const KvBlock& block, const float* q, int head_dim, int column,
                           float* scores) {
  const Floats d;
  const T* k[C];
  FloatVector acc[R][C];
  HWY_UNROLL(8)
  for (int c = 0; c < C; ++c) {
    const int lane = (column + c) * kLanes;
    k[c] = static_cast<const T*>(block.k[lane / kPanelTokens]) + lane % kPanelTokens;
  }
  const int dims = kScaled ? kScaleDims : head_dim;
  for (int first = 0; first < head_dim; first += dims) {
    HWY_UNROLL(8)
    for (int r = 0; r < R; ++r) {
      HWY_UNROLL(8)
      for (int c = 0; c < C; ++c) acc[r][c] = hn::Zero(d);
    }
    const int last = HWY_MIN(first + dims, head_dim);
    const int step = block.fetches_ahead ? kAheadSteps : dims;
    for (int i = first; i < last; i += step) {
      const int end = HWY_MIN(i + step, last);
      add_products<R, C, T>(q, head_dim, k, kPanelTokens, i, end, acc);
      if (!block.fetches_ahead) continue;
      for (int lane = column * kLanes; lane < (column + C) * kLanes; lane += kPanelTokens) {
        const void* ahead = block.ahead_k[lane / kPanelTokens];
        if (ahead == nullptr || lane % kPanelTokens != 0) continue;
        fetch_ahead(ahead, i * kPanelTokens * sizeof(T), end * kPanelTokens * sizeof(T));
      }
    }
    HWY_UNROLL(8)
    for (int c = 0; c < C; ++c) {
      const int lane = (column + c) * kLanes;
      float* to = scores + lane;
      FloatVector scale;
      if constexpr (kScaled) {
        const int panel = lane / kPanelTokens;
        const int index = first / kScaleDims;
        scale = load_scales(block.k_scales[panel] + index * kPanelTokens + lane % kPanelTokens);
        if (block.fetches_ahead) fetch_scales_ahead(block.ahead_k[panel], head_dim, index);
      }
      HWY_UNROLL(8)
      for (int r = 0; r < R; ++r, to += kBlockTokens) {
        if constexpr (kScaled) {
          const FloatVector before = first == 0 ? hn::Zero(d) : hn::LoadU(d, to);
          acc[r][c] = hn::MulAdd(acc[r][c], scale, before);
        }
        hn::StoreU(acc[r][c], d, to);
      }
    }
  }
}

template <int R, class T, bool kScaled>
HWY_NOINLINE void score_rows(const KvBlock& block, const float* q, int head_dim, float* scores) {
  constexpr int kVectors = kPanelTokens / kLanes;
  for_each_column_tile<tile_columns<R>()>(block.panel_begin * kVectors, block.panel_end * kVectors,
                                          [&](auto width, int column) HWY_ATTR {
                                            score_tile<R, decltype(width)::value, T, kScaled>(
                                                block, q, head_dim, column, scores);
                                          });
}

// Calls f with a null pointer of the type of K or V and a constant that says whether it has scales.
template <class F>
HWY_INLINE void with_scaled_type(DType type, bool has_scales, F f) {
  with_type(type, [&](auto* typed) HWY_ATTR {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(typed)>>;
    if constexpr (std::is_same_v<T, int8_t>) {
      f(typed, std::true_type());
    } else if constexpr (std::is_same_v<T, float>) {
      has_scales ? f(typed, std::true_type()) : f(typed, std::false_type());
    } else {
      f(typed, std::false_type());
    }
  });
}

inline void scores(const KvBlock& block, const float* q, int n, int head_dim, float* out) {
  const bool has_scales = block.k_scales[block.panel_begin] != nullptr;
  with_scaled_type(block.k_type, has_scales, [&](auto* typed, auto scaled) HWY_ATTR {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(typed)>>;
    for_each_row_tile(n, [&](auto rows, int row) HWY_ATTR {
      score_rows<decltype(rows)::value, T, decltype(scaled)::value>(
          block, q + size_t(row) * head_dim, head_dim, out + row * kBlockTokens);
    });
  });
}

// ---- Softmax of a block ----
HWY_NOINLINE void cap_scores(float* scores, float softcap) {
  const Floats d;
  const FloatVector inverse = hn::Set(d, 1.0f / softcap);
  const FloatVector cap = hn::Set(d, softcap);
  for (int i = 0; i < kBlockTokens; i += kLanes) {
    const FloatVector x = hn::Mul(hn::LoadU(d, scores + i), inverse);
    hn::StoreU(hn::Mul(cap, hn::Tanh(d, x)), d, scores + i);
  }
}

HWY_INLINE void mask_scores(float* scores, KeyRange visible) {
  const Floats d;
  const FloatVector begin = hn::Set(d, static_cast<float>(visible.begin));
  const FloatVector end = hn::Set(d, static_cast<float>(visible.end));
  for (int i = 0; i < kBlockTokens; i += kLanes) {
    const FloatVector lane = hn::Iota(d, static_cast<float>(i));
    const auto seen = hn::And(hn::Ge(lane, begin), hn::Lt(lane, end));
    const FloatVector x = hn::LoadU(d, scores + i);
    hn::StoreU(hn::IfThenElse(seen, x, hn::Set(d, kMinusInfinity)), d, scores + i);
  }
}

inline void softmax(float* all_scores, const KeyRange* visible, int n, float softcap, float* m,
                    float* l) {
  const Floats d;
  for (int row = 0; row < n; ++row) {
    float* scores = all_scores + row * kBlockTokens;
    m[row] = kMinusInfinity;
    l[row] = 0;
    if (visible[row].begin >= visible[row].end) continue;
    if (softcap > 0) cap_scores(scores, softcap);
    if (visible[row].end - visible[row].begin < kBlockTokens) mask_scores(scores, visible[row]);

    FloatVector largest = hn::LoadU(d, scores);
    HWY_UNROLL(16)
    for (int i = 1; i < kBlockVectors; ++i) {
      largest = hn::Max(largest, hn::LoadU(d, scores + i * kLanes));
    }
    m[row] = hn::ReduceMax(d, largest);
    const FloatVector max = hn::Set(d, m[row]);
    FloatVector sum = hn::Zero(d);
    HWY_UNROLL(16)
    for (int i = 0; i < kBlockVectors; ++i) {
      const FloatVector p = exp_nonpositive(d, hn::Sub(hn::LoadU(d, scores + i * kLanes), max));
      hn::StoreU(p, d, scores + i * kLanes);
      sum = hn::Add(sum, p);
    }
    l[row] = hn::ReduceSum(d, sum);
  }
}

inline void scale(const float* x, float factor, int n, float* out) {
  const Floats d;
  const FloatVector f = hn::Set(d, factor);
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) hn::StoreU(hn::Mul(hn::LoadU(d, x + i), f), d, out + i);
  for (; i < n; ++i) out[i] = x[i] * factor;
}

// ---- Folding ----
// Factors of `into` and `from` (o = a * into.o + b * from.o), m and l of `into` brought up to date.
struct FoldFactors {
  float a;
  float b;
};

HWY_INLINE FoldFactors fold_factors(float from_m, float from_l, float& into_m, float& into_l) {
  const hn::CappedTag<float, 4> d;
  const float m = from_m > into_m ? from_m : into_m;
  const auto a = exp_nonpositive(d, hn::Set(d, into_m - m));
  const auto b = exp_nonpositive(d, hn::Set(d, from_m - m));
  // Vectors, so that no compiler chooses what to fuse.
  into_l = hn::GetLane(hn::MulAdd(hn::Set(d, from_l), b, hn::Mul(hn::Set(d, into_l), a)));
  into_m = m;
  return {hn::GetLane(a), hn::GetLane(b)};
}

// One state of `dim` floats into another.
HWY_INLINE void fold_state(const float* HWY_RESTRICT from, float from_m, float from_l, int dim,
                           float* HWY_RESTRICT into, float& into_m, float& into_l) {
  const Floats d;
  if (from_m == kMinusInfinity) return;
  if (into_m == kMinusInfinity) {
    std::memcpy(into, from, dim * sizeof(float));
    into_m = from_m;
    into_l = from_l;
    return;
  }
  const FoldFactors factors = fold_factors(from_m, from_l, into_m, into_l);
  const FloatVector a = hn::Set(d, factors.a);
  const FloatVector b = hn::Set(d, factors.b);
  int i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    const FloatVector scaled = hn::Mul(hn::LoadU(d, into + i), a);
    hn::StoreU(hn::MulAdd(hn::LoadU(d, from + i), b, scaled), d, into + i);
  }
  if (i < dim) {
    const size_t rest = dim - i;
    const FloatVector scaled = hn::Mul(hn::LoadN(d, into + i, rest), a);
    hn::StoreN(hn::MulAdd(hn::LoadN(d, from + i, rest), b, scaled), d, into + i, rest);
  }
}

inline void fold(const StateView& from, int n, int dim, const StateView& into) {
  for (int row = 0; row < n; ++row) {
    fold_state(from.o + row * from.stride, from.m[row], from.l[row], dim,
               into.o + row * into.stride, into.m[row], into.l[row]);
  }
}

// ---- Values ----
// o[r] (+)= sum over keys of p[r][key] * v[key], for R rows that all see `keys`.
enum class Start { kFromZero, kFromSum };

template <int R, int C, class T>
HWY_INLINE void value_tile(const KvBlock& block, const float* p, KeyRange keys, int column,
                           Start start, float* o, size_t o_stride) {
  const Floats d;
  FloatVector acc[R][C];
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(8)
    for (int c = 0; c < C; ++c) {
      acc[r][c] = start == Start::kFromZero
                      ? hn::Zero(d)
                      : hn::LoadU(d, o + r * o_stride + (column + c) * kLanes);
    }
  }
  for (int key = keys.begin; key < keys.end;) {
    const int panel = key / kPanelTokens;
    const int step = block.fetches_ahead ? kAheadSteps : kPanelTokens;
    const int end = HWY_MIN(keys.end, key - key % step + step);
    const size_t first = size_t(key % kPanelTokens) * block.v_stride + column * kLanes;
    const T* v[C];
    HWY_UNROLL(8)
    for (int c = 0; c < C; ++c) v[c] = static_cast<const T*>(block.v[panel]) + first + c * kLanes;
    add_products<R, C, T>(p + key, kBlockTokens, v, block.v_stride, 0, end - key, acc);
    if (block.fetches_ahead && block.ahead_v[panel] != nullptr) {
      for (int i = 0; i < end - key; ++i) {
        const size_t at = first + i * block.v_stride;
        fetch_ahead(block.ahead_v[panel], at * sizeof(T), (at + C * kLanes) * sizeof(T));
      }
    }
    key = end;
  }
  HWY_UNROLL(8)
  for (int r = 0; r < R; ++r) {
    HWY_UNROLL(8)
    for (int c = 0; c < C; ++c) {
      hn::StoreU(acc[r][c], d, o + r * o_stride + (column + c) * kLanes);
    }
  }
}

// p, [R][64], times the scales of the values' dimensions from kScaleDims * index on.
template <int R>
HWY_INLINE void scale_weights(const KvBlock& block, const float* p, KeyRange keys, int index,
                              float* out) {
  const Floats d;
  for (int panel = keys.begin / kPanelTokens; panel * kPanelTokens < keys.end; ++panel) {
    if (block.fetches_ahead) fetch_scales_ahead(block.ahead_v[panel], block.v_stride, index);
    HWY_UNROLL(8)
    for (int lane = 0; lane < kPanelTokens; lane += kLanes) {
      const FloatVector scale = load_scales(block.v_scales[panel] + index * kPanelTokens + lane);
      const int at = panel * kPanelTokens + lane;
      HWY_UNROLL(8)
      for (int r = 0; r < R; ++r) {
        const FloatVector weight = hn::LoadU(d, p + r * kBlockTokens + at);
        hn::StoreU(hn::Mul(weight, scale), d, out + r * kBlockTokens + at);
      }
    }
  }
}

template <int R, class T, bool kScaled>
HWY_NOINLINE void value_rows(const KvBlock& block, const float* p, KeyRange keys, int dim,
                             Start start, float* o) {
  if constexpr (kScaled) {
    constexpr int kVectors = kScaleDims / kLanes;
    HWY_ALIGN float weights[R * kBlockTokens];
    for (int index = 0; index * kScaleDims < dim; ++index) {
      scale_weights<R>(block, p, keys, index, weights);
      for_each_column_tile<HWY_MIN(tile_columns<R>(), kVectors)>(
          index * kVectors, HWY_MIN((index + 1) * kVectors, dim / kLanes),
          [&](auto width, int column) HWY_ATTR {
            value_tile<R, decltype(width)::value, T>(block, weights, keys, column, start, o, dim);
          });
    }
  } else {
    for_each_column_tile<tile_columns<R>()>(0, dim / kLanes, [&](auto width, int column) HWY_ATTR {
      value_tile<R, decltype(width)::value, T>(block, p, keys, column, start, o, dim);
    });
  }
}

// R rows, of which each sees its own range: what all see together, what is before and after it row
// by row, so that a key's V (which may be Inf) touches only rows that see it.
template <int R, class T, bool kScaled>
HWY_INLINE void value_rows_masked(const KvBlock& block, const float* p, const KeyRange* visible,
                                  int dim, float* o) {
  KeyRange common = visible[0];
  bool same = true;
  for (int r = 1; r < R; ++r) {
    same = same && visible[r].begin == common.begin && visible[r].end == common.end;
    common.begin = HWY_MAX(common.begin, visible[r].begin);
    common.end = HWY_MIN(common.end, visible[r].end);
  }
  if (same) return value_rows<R, T, kScaled>(block, p, common, dim, Start::kFromZero, o);
  if (common.begin >= common.end) common.begin = common.end = kBlockTokens;
  std::memset(o, 0, sizeof(float) * R * dim);
  const auto add_alone = [&](int r, int begin, int end) HWY_ATTR {
    if (begin >= end) return;
    value_rows<1, T, kScaled>(block, p + r * kBlockTokens, {begin, end}, dim, Start::kFromSum,
                              o + r * dim);
  };
  for (int r = 0; r < R; ++r) {
    add_alone(r, visible[r].begin, HWY_MIN(visible[r].end, common.begin));
  }
  if (common.begin >= common.end) return;
  value_rows<R, T, kScaled>(block, p, common, dim, Start::kFromSum, o);
  for (int r = 0; r < R; ++r) add_alone(r, common.end, visible[r].end);
}

inline void fold_block(const KvBlock& block, const float* p, const KeyRange* visible, int n,
                       int dim, const float* m, const float* l, const StateView& into,
                       float* scratch) {
  const bool has_scales = block.v_scales[block.panel_begin] != nullptr;
  with_scaled_type(block.v_type, has_scales, [&](auto* typed, auto scaled) HWY_ATTR {
    using T = std::remove_const_t<std::remove_pointer_t<decltype(typed)>>;
    for_each_row_tile(n, [&](auto rows, int row) HWY_ATTR {
      constexpr int kRows = decltype(rows)::value;
      value_rows_masked<kRows, T, decltype(scaled)::value>(block, p + row * kBlockTokens,
                                                           visible + row, dim, scratch);
      fold({scratch, size_t(dim), const_cast<float*>(m) + row, const_cast<float*>(l) + row}, kRows,
           dim, {into.o + row * into.stride, into.stride, into.m + row, into.l + row});
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace banyan
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
