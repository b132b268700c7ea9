// SPDX-License-Identifier: Apache-2.0
// Per-target include guard (Highway).
#if defined(BANYAN_ATTENTION_CPU_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BANYAN_ATTENTION_CPU_MATH_INL_H_
#undef BANYAN_ATTENTION_CPU_MATH_INL_H_
#else
#define BANYAN_ATTENTION_CPU_MATH_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace banyan {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// e^x for x <= 0, within about 2 ulp; exactly 1 at 0. Zero at -infinity, at NaN (the difference of
// two infinities, of states without a key), and where the result would not be a normal number.
// Range reduction and polynomial of Cephes expf (S. Moshier).
template <class D, class V = hn::VFromD<D>>
HWY_INLINE V exp_nonpositive(D d, V x) {
  const hn::RebindToSigned<D> di;
  const auto normal = hn::Ge(x, hn::Set(d, -87.33654f));  // ln(2^-126)
  const V n = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504088896341f)));
  // ln 2 in two parts; n times the first is exact.
  V r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  V y = hn::Set(d, 1.9875691500e-4f);
  y = hn::MulAdd(y, r, hn::Set(d, 1.3981999507e-3f));
  y = hn::MulAdd(y, r, hn::Set(d, 8.3334519073e-3f));
  y = hn::MulAdd(y, r, hn::Set(d, 4.1665795894e-2f));
  y = hn::MulAdd(y, r, hn::Set(d, 1.6666665459e-1f));
  y = hn::MulAdd(y, r, hn::Set(d, 5.0000001201e-1f));
  y = hn::MulAdd(y, hn::Mul(r, r), r);
  y = hn::Add(y, hn::Set(d, 1.0f));
  const auto exponent = hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127));
  const V scale = hn::BitCast(d, hn::ShiftLeft<23>(exponent));
  return hn::IfThenElseZero(normal, hn::Mul(y, scale));
}

}  // namespace HWY_NAMESPACE
}  // namespace banyan
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
