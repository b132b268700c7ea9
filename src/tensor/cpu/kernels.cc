// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/kernels.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/kernels.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
// After highway.h:
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace banyan::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using Half = hn::Rebind<hwy::float16_t, F32>;
using Brain = hn::Rebind<hwy::bfloat16_t, F32>;
using Vec = hn::Vec<F32>;

// Loads of a vector of any stored type as f32: whole, and the first n lanes with zeros after them.
Vec load(const float* p) { return hn::LoadU(F32(), p); }
Vec load(const hwy::float16_t* p) { return hn::PromoteTo(F32(), hn::LoadU(Half(), p)); }
Vec load(const hwy::bfloat16_t* p) { return hn::PromoteTo(F32(), hn::LoadU(Brain(), p)); }
Vec load_n(const float* p, size_t n) { return hn::LoadN(F32(), p, n); }
Vec load_n(const hwy::float16_t* p, size_t n) {
  return hn::PromoteTo(F32(), hn::LoadN(Half(), p, n));
}
Vec load_n(const hwy::bfloat16_t* p, size_t n) {
  return hn::PromoteTo(F32(), hn::LoadN(Brain(), p, n));
}

// Calls whole(i) for each full vector of n elements, then part(i, lanes) for what is left. Lambdas
// do not inherit the instruction set of the function around them: HWY_ATTR names it again.
template <class Whole, class Part>
void for_each_vector(int64_t n, Whole whole, Part part) {
  const int64_t lanes = hn::Lanes(F32());
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) whole(i);
  if (i < n) part(i, static_cast<size_t>(n - i));
}

// Two sums for each row, even and odd vectors: with four rows enough independent chains for the FMA
// units, and few enough registers for AVX2. One row waits for memory, not for its sums.
template <int kRows, class W>
void dots_of(const W* w, const float* x, int64_t x_stride, int64_t n, float* sums) {
  const F32 d;
  const int64_t lanes = hn::Lanes(d);
  Vec even[kRows];
  Vec odd[kRows];
  HWY_UNROLL(4)  // for the sums to be registers
  for (int r = 0; r < kRows; ++r) even[r] = odd[r] = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const Vec w0 = load(w + i);
    const Vec w1 = load(w + i + lanes);
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      even[r] = hn::MulAdd(w0, load(x + r * x_stride + i), even[r]);
      odd[r] = hn::MulAdd(w1, load(x + r * x_stride + i + lanes), odd[r]);
    }
  }
  for (; i < n; i += lanes) {
    const size_t left = static_cast<size_t>(n - i < lanes ? n - i : lanes);
    const Vec w0 = load_n(w + i, left);
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      even[r] = hn::MulAdd(w0, load_n(x + r * x_stride + i, left), even[r]);
    }
  }
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) sums[r] = hn::ReduceSum(d, hn::Add(even[r], odd[r]));
}

template <class W>
void dots(const std::byte* weights, const float* x, int64_t x_stride, int64_t n_rows, int64_t n,
          float* sums) {
  const W* w = reinterpret_cast<const W*>(weights);
  int64_t r = 0;
  for (; r + 4 <= n_rows; r += 4) dots_of<4>(w, x + r * x_stride, x_stride, n, sums + r);
  for (; r < n_rows; ++r) dots_of<1>(w, x + r * x_stride, x_stride, n, sums + r);
}

// f32 bits -> f16 bits where the CPU has no instruction for it. The sum that aligns the mantissa of
// a subnormal result and the carry into the exponent both round to nearest even.
template <class DU32>
hn::Vec<DU32> f16_bits(DU32 du, Vec v) {
  const F32 d;
  const auto bits = hn::BitCast(du, v);
  const auto sign = hn::ShiftRight<16>(hn::And(bits, hn::Set(du, 0x80000000U)));
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFFU));
  // Below 2^-14: adding 0.5 leaves the mantissa in units of 2^-24, the f16 subnormal step.
  const auto subnormal =
      hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(d, magnitude), hn::Set(d, 0.5F))),
              hn::Set(du, 0x3F000000U));
  // 2^-14 and above: exponent bias 127 -> 15, then half of the last kept bit, less one if it is
  // even.
  const auto is_odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(du, 1U));
  const auto normal = hn::ShiftRight<13>(
      hn::Add(hn::Add(hn::Sub(magnitude, hn::Set(du, 112U << 23)), hn::Set(du, 0xFFFU)), is_odd));
  auto out = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, 113U << 23)), subnormal, normal);
  // 65520 and above is infinity; NaN stays NaN.
  out = hn::IfThenElse(hn::Ge(magnitude, hn::Set(du, 0x477FF000U)), hn::Set(du, 0x7C00U), out);
  out = hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, 0x7F800000U)), hn::Set(du, 0x7E00U), out);
  return hn::Or(out, sign);
}

// f32 bits -> bf16 bits.
template <class DU32>
hn::Vec<DU32> bf16_bits(DU32 du, Vec v) {
  const auto bits = hn::BitCast(du, v);
  const auto is_odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1U));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7FFFU)), is_odd));
  const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40U));
  const auto is_nan = hn::Gt(hn::And(bits, hn::Set(du, 0x7FFFFFFFU)), hn::Set(du, 0x7F800000U));
  return hn::IfThenElse(is_nan, quiet, rounded);
}

struct ToF16 {
  hn::Vec<hn::Rebind<uint16_t, F32>> operator()(Vec v) const {
    const hn::Rebind<uint16_t, F32> du16;
#if HWY_TARGET <= HWY_AVX2 || HWY_ARCH_ARM_A64
    return hn::BitCast(du16, hn::DemoteTo(Half(), v));
#else
    return hn::TruncateTo(du16, f16_bits(hn::RebindToUnsigned<F32>(), v));
#endif
  }
};

struct ToBf16 {
  hn::Vec<hn::Rebind<uint16_t, F32>> operator()(Vec v) const {
    return hn::TruncateTo(hn::Rebind<uint16_t, F32>(), bf16_bits(hn::RebindToUnsigned<F32>(), v));
  }
};

template <class To16>
void to_16_bits(const float* in, uint16_t* out, int64_t n) {
  const hn::Rebind<uint16_t, F32> du16;
  const To16 to_16;
  for_each_vector(
      n, [&](int64_t i) HWY_ATTR { hn::StoreU(to_16(load(in + i)), du16, out + i); },
      [&](int64_t i, size_t m)
          HWY_ATTR { hn::StoreN(to_16(load_n(in + i, m)), du16, out + i, m); });
}

template <class W>
void to_f32(const std::byte* in, float* out, int64_t n) {
  const F32 d;
  const W* from = reinterpret_cast<const W*>(in);
  for_each_vector(
      n, [&](int64_t i) HWY_ATTR { hn::StoreU(load(from + i), d, out + i); },
      [&](int64_t i, size_t m) HWY_ATTR { hn::StoreN(load_n(from + i, m), d, out + i, m); });
}

void add(const float* x, float* out, int64_t n) {
  const F32 d;
  for_each_vector(
      n, [&](int64_t i) HWY_ATTR { hn::StoreU(hn::Add(load(out + i), load(x + i)), d, out + i); },
      [&](int64_t i, size_t m)
          HWY_ATTR { hn::StoreN(hn::Add(load_n(out + i, m), load_n(x + i, m)), d, out + i, m); });
}

void rms_norm(const float* x, const float* weight, float eps, float* out, int64_t n) {
  const F32 d;
  float sum = 0;
  dots_of<1>(x, x, 0, n, &sum);
  const Vec scale = hn::Set(d, 1.0F / std::sqrt(sum / static_cast<float>(n) + eps));
  for_each_vector(
      n,
      [&](int64_t i) HWY_ATTR {
        hn::StoreU(hn::Mul(hn::Mul(load(x + i), scale), load(weight + i)), d, out + i);
      },
      [&](int64_t i, size_t m) HWY_ATTR {
        const Vec scaled = hn::Mul(load_n(x + i, m), scale);
        hn::StoreN(hn::Mul(scaled, load_n(weight + i, m)), d, out + i, m);
      });
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, float* out,
                int64_t n) {
  const F32 d;
  Vec sum = hn::Zero(d);
  for_each_vector(
      n, [&](int64_t i) HWY_ATTR { sum = hn::Add(sum, load(x + i)); },
      [&](int64_t i, size_t m) HWY_ATTR { sum = hn::Add(sum, load_n(x + i, m)); });
  const Vec mean = hn::Set(d, hn::ReduceSum(d, sum) / static_cast<float>(n));
  Vec squares = hn::Zero(d);
  for_each_vector(
      n,
      [&](int64_t i) HWY_ATTR {
        const Vec off = hn::Sub(load(x + i), mean);
        squares = hn::MulAdd(off, off, squares);
      },
      [&](int64_t i, size_t m) HWY_ATTR {
        // Lanes past the end count for nothing.
        const Vec off = hn::IfThenElseZero(hn::FirstN(d, m), hn::Sub(load_n(x + i, m), mean));
        squares = hn::MulAdd(off, off, squares);
      });
  const float variance = hn::ReduceSum(d, squares) / static_cast<float>(n);
  const Vec scale = hn::Set(d, 1.0F / std::sqrt(variance + eps));
  for_each_vector(
      n,
      [&](int64_t i) HWY_ATTR {
        const Vec unit = hn::Mul(hn::Sub(load(x + i), mean), scale);
        hn::StoreU(hn::MulAdd(unit, load(weight + i), load(bias + i)), d, out + i);
      },
      [&](int64_t i, size_t m) HWY_ATTR {
        const Vec unit = hn::Mul(hn::Sub(load_n(x + i, m), mean), scale);
        hn::StoreN(hn::MulAdd(unit, load_n(weight + i, m), load_n(bias + i, m)), d, out + i, m);
      });
}

// x / (1 + exp(-t)).
Vec over_one_plus_exp(Vec x, Vec t) {
  const F32 d;
  // exp(88) is near the largest float: below -88 the quotient keeps its limit, 0, without
  // infinities.
  const Vec e = hn::Exp(d, hn::Min(hn::Neg(t), hn::Set(d, 88.0F)));
  return hn::Div(x, hn::Add(e, hn::Set(d, 1.0F)));
}

// A rational approximation on [-4, 4], past which erf is 1 in f32; coefficients as in Eigen's
// generic_fast_erf_float. Largest error 4.2e-7.
Vec erf(Vec x) {
  const F32 d;
  x = hn::Clamp(x, hn::Set(d, -4.0F), hn::Set(d, 4.0F));
  const Vec x2 = hn::Mul(x, x);
  Vec p = hn::Set(d, -2.72614225801306e-10F);
  for (const float c : {2.77068142495902e-08F, -2.10102402082508e-06F, -5.69250639462346e-05F,
                        -7.34990630326855e-04F, -2.95459980854025e-03F, -1.60960333262415e-02F}) {
    p = hn::MulAdd(p, x2, hn::Set(d, c));
  }
  Vec q = hn::Set(d, -1.45660718464996e-05F);
  for (const float c : {-2.13374055278905e-04F, -1.68282697438203e-03F, -7.37332916720468e-03F,
                        -1.42647390514189e-02F}) {
    q = hn::MulAdd(q, x2, hn::Set(d, c));
  }
  return hn::Div(hn::Mul(x, p), q);
}

struct Silu {
  Vec operator()(Vec x) const { return over_one_plus_exp(x, x); }
};

struct Gelu {
  Vec operator()(Vec x) const {
    const F32 d;
    const Vec e = erf(hn::Mul(x, hn::Set(d, 0.70710678118654752F)));
    const Vec half = hn::Mul(x, hn::Set(d, 0.5F));
    return hn::MulAdd(half, e, half);
  }
};

struct GeluTanh {
  Vec operator()(Vec x) const {
    const F32 d;
    // (1 + tanh(t)) / 2 = 1 / (1 + exp(-2 t)), t = sqrt(2 / pi) (x + 0.044715 x^3).
    const Vec x2 = hn::Mul(x, x);
    const Vec slope = hn::MulAdd(x2, hn::Set(d, 0.044715F * 1.5957691216057308F),
                                 hn::Set(d, 1.5957691216057308F));
    return over_one_plus_exp(x, hn::Mul(x, slope));
  }
};

struct Relu {
  Vec operator()(Vec x) const { return hn::Max(x, hn::Zero(F32())); }
};

// x[i] = f(x[i])
template <class F>
void map(float* x, int64_t n, F f) {
  const F32 d;
  for_each_vector(
      n, [&](int64_t i) HWY_ATTR { hn::StoreU(f(load(x + i)), d, x + i); },
      [&](int64_t i, size_t m) HWY_ATTR { hn::StoreN(f(load_n(x + i, m)), d, x + i, m); });
}

template <class F>
void activate(float* x, int64_t n) {
  map(x, n, F());
}

template <class F>
void gated(const float* gate, const float* up, float* out, int64_t n) {
  const F32 d;
  const F f;
  for_each_vector(
      n,
      [&](int64_t i) HWY_ATTR { hn::StoreU(hn::Mul(f(load(gate + i)), load(up + i)), d, out + i); },
      [&](int64_t i, size_t m) HWY_ATTR {
        hn::StoreN(hn::Mul(f(load_n(gate + i, m)), load_n(up + i, m)), d, out + i, m);
      });
}

void scale(float factor, float* x, int64_t n) {
  const Vec f = hn::Set(F32(), factor);
  map(x, n, [&](Vec v) HWY_ATTR { return hn::Mul(v, f); });
}

void add_scaled(float factor, const float* x, float* out, int64_t n) {
  const F32 d;
  const Vec f = hn::Set(d, factor);
  for_each_vector(
      n,
      [&](int64_t i)
          HWY_ATTR { hn::StoreU(hn::MulAdd(load(x + i), f, load(out + i)), d, out + i); },
      [&](int64_t i, size_t m) HWY_ATTR {
        hn::StoreN(hn::MulAdd(load_n(x + i, m), f, load_n(out + i, m)), d, out + i, m);
      });
}

void soft_cap(float cap, float* x, int64_t n) {
  const F32 d;
  const Vec c = hn::Set(d, cap);
  const Vec inverse = hn::Set(d, 1 / cap);
  map(x, n, [&](Vec v) HWY_ATTR { return hn::Mul(c, hn::Tanh(d, hn::Mul(v, inverse))); });
}

void rope_halves(float* x, const float* cos, const float* sin, int64_t n_pairs) {
  const F32 d;
  float* y = x + n_pairs;
  for_each_vector(
      n_pairs,
      [&](int64_t i) HWY_ATTR {
        const Vec c = load(cos + i), s = load(sin + i), a = load(x + i), b = load(y + i);
        hn::StoreU(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, x + i);
        hn::StoreU(hn::MulAdd(a, s, hn::Mul(b, c)), d, y + i);
      },
      [&](int64_t i, size_t m) HWY_ATTR {
        const Vec c = load_n(cos + i, m), s = load_n(sin + i, m);
        const Vec a = load_n(x + i, m), b = load_n(y + i, m);
        hn::StoreN(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, x + i, m);
        hn::StoreN(hn::MulAdd(a, s, hn::Mul(b, c)), d, y + i, m);
      });
}

void rope_pairs(float* x, const float* cos, const float* sin, int64_t n_pairs) {
  const F32 d;
  const int64_t lanes = hn::Lanes(d);
  int64_t i = 0;
  for (; i + lanes <= n_pairs; i += lanes) {
    const Vec c = load(cos + i), s = load(sin + i);
    Vec a, b;
    hn::LoadInterleaved2(d, x + 2 * i, a, b);
    hn::StoreInterleaved2(hn::NegMulAdd(b, s, hn::Mul(a, c)), hn::MulAdd(a, s, hn::Mul(b, c)), d,
                          x + 2 * i);
  }
  for (; i < n_pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

}  // namespace

const Kernels* table() {
  static constexpr Kernels kTable = {
      .dots_f32 = dots<float>,
      .dots_f16 = dots<hwy::float16_t>,
      .dots_bf16 = dots<hwy::bfloat16_t>,
      .f32_to_f16 = to_16_bits<ToF16>,
      .f32_to_bf16 = to_16_bits<ToBf16>,
      .f16_to_f32 = to_f32<hwy::float16_t>,
      .bf16_to_f32 = to_f32<hwy::bfloat16_t>,
      .add = add,
      .rms_norm = rms_norm,
      .layer_norm = layer_norm,
      .activate = {activate<Silu>, activate<Gelu>, activate<GeluTanh>, activate<Relu>},
      .gated = {gated<Silu>, gated<Gelu>, gated<GeluTanh>, gated<Relu>},
      .scale = scale,
      .add_scaled = add_scaled,
      .soft_cap = soft_cap,
      .rope_halves = rope_halves,
      .rope_pairs = rope_pairs,
  };
  return &kTable;
}

}  // namespace banyan::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace banyan {

// A plain table chosen by the caller's Isa; Highway's own dispatch is process-wide state.
const Kernels& kernels(Isa isa) {
#if HWY_TARGETS & HWY_AVX3
  if (isa >= Isa::kAvx512) return *N_AVX3::table();
#endif
#if HWY_TARGETS & HWY_AVX2
  if (isa >= Isa::kAvx2) return *N_AVX2::table();
#endif
  static_cast<void>(isa);
  return *HWY_STATIC_NAMESPACE::table();
}

}  // namespace banyan
#endif
