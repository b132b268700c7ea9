// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/machine_kernels.h"

#include "tensor/cpu/machine_tiles.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/cpu/machine_kernels.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace banyan::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using Vec = hn::Vec<F32>;

// Eight loads in flight for each round: enough to keep all line buffers of a core busy.
float read(const float* data, int64_t n) {
  const F32 d;
  const int64_t lanes = hn::Lanes(d);
  Vec sum[8];
  for (Vec& s : sum) s = hn::Zero(d);
  for (int64_t i = 0; i < n; i += 8 * lanes) {
    HWY_UNROLL(8)
    for (int j = 0; j < 8; ++j) sum[j] = hn::Add(sum[j], hn::LoadU(d, data + i + j * lanes));
  }
  Vec total = sum[0];
  for (int j = 1; j < 8; ++j) total = hn::Add(total, sum[j]);
  return hn::ReduceSum(d, total);
}

// Independent chains: at least latency times units (4 x 2 on x86, 4 x 4 on wide ARM cores), and
// with the two operands no more than the registers (16 before AVX-512).
constexpr int kChains = HWY_TARGET == HWY_AVX3 || HWY_ARCH_ARM_A64 ? 24 : 12;

float multiply_add(int64_t rounds) {
  const F32 d;
  volatile float factor_source = 0.999f;  // unknown to the compiler
  volatile float term_source = 0.001f;
  const Vec factor = hn::Set(d, factor_source);
  const Vec term = hn::Set(d, term_source);
  Vec chain[kChains];
  for (int j = 0; j < kChains; ++j) chain[j] = hn::Set(d, static_cast<float>(j));
  for (int64_t round = 0; round < rounds; ++round) {
    HWY_UNROLL(24)
    for (int j = 0; j < kChains; ++j) chain[j] = hn::MulAdd(chain[j], factor, term);
  }
  Vec total = chain[0];
  for (int j = 1; j < kChains; ++j) total = hn::Add(total, chain[j]);
  return hn::ReduceSum(d, total);
}

// e^x by range reduction and a polynomial of degree 7, for x in [-87, 0]: the arithmetic of a
// softmax. Coefficients: Cephes expf (S. Moshier).
HWY_INLINE Vec exponential(F32 d, Vec x) {
  const hn::RebindToSigned<F32> di;
  const auto normal = hn::Ge(x, hn::Set(d, -87.33654f));
  const Vec n = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504088896341f)));
  Vec r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  Vec y = hn::Set(d, 1.9875691500e-4f);
  y = hn::MulAdd(y, r, hn::Set(d, 1.3981999507e-3f));
  y = hn::MulAdd(y, r, hn::Set(d, 8.3334519073e-3f));
  y = hn::MulAdd(y, r, hn::Set(d, 4.1665795894e-2f));
  y = hn::MulAdd(y, r, hn::Set(d, 1.6666665459e-1f));
  y = hn::MulAdd(y, r, hn::Set(d, 5.0000001201e-1f));
  y = hn::Add(hn::MulAdd(y, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const auto exponent = hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127));
  return hn::IfThenElseZero(normal, hn::Mul(y, hn::BitCast(d, hn::ShiftLeft<23>(exponent))));
}

float exponentials(int64_t rounds) {
  const F32 d;
  const int64_t lanes = hn::Lanes(d);
  HWY_ALIGN float x[kExpsPerRound];
  for (int i = 0; i < kExpsPerRound; ++i) x[i] = -20.0f * static_cast<float>(i) / kExpsPerRound;
  Vec sum[4];
  for (Vec& s : sum) s = hn::Zero(d);
  const Vec step = hn::Set(d, 1e-6f);
  Vec shift = hn::Zero(d);  // each round has other arguments
  for (int64_t round = 0; round < rounds; ++round) {
    for (int64_t i = 0; i < kExpsPerRound; i += 4 * lanes) {
      HWY_UNROLL(4)
      for (int j = 0; j < 4; ++j) {
        const Vec argument = hn::Sub(hn::Load(d, x + i + j * lanes), shift);
        sum[j] = hn::Add(sum[j], exponential(d, argument));
      }
    }
    shift = hn::Add(shift, step);
  }
  return hn::ReduceSum(d, hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3])));
}

}  // namespace

MachineKernels machine_kernel_table() {
  const auto lanes = static_cast<int64_t>(hn::Lanes(F32()));
  return {.read = read,
          .multiply_add = multiply_add,
          .flops_per_round = 2 * kChains * lanes,
          .exponentials = exponentials};
}

}  // namespace banyan::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace banyan {
namespace {

HWY_EXPORT(machine_kernel_table);

// Highway's own choice looks at the machine only; this one obeys the caller's cap.
MachineKernels vector_kernels([[maybe_unused]] Isa isa) {
#if HWY_ARCH_X86 && (HWY_TARGETS & HWY_AVX3)
  if (isa >= Isa::kAvx512) return N_AVX3::machine_kernel_table();
#endif
#if HWY_ARCH_X86 && (HWY_TARGETS & HWY_AVX2)
  if (isa >= Isa::kAvx2) return N_AVX2::machine_kernel_table();
#endif
#if HWY_ARCH_X86
  return HWY_STATIC_DISPATCH(machine_kernel_table)();
#else
  return HWY_DYNAMIC_DISPATCH(machine_kernel_table)();
#endif
}

}  // namespace

MachineKernels machine_kernels(Isa isa) {
  MachineKernels kernels = vector_kernels(isa);
  if (isa >= Isa::kAmx) {
    kernels.multiply_add = multiply_add_tiles;
    kernels.flops_per_round = kTileFlopsPerRound;
  } else if (isa >= Isa::kAvx512 && has_avx512_vnni()) {
    kernels.multiply_add = multiply_add_pairs;
    kernels.flops_per_round = kPairFlopsPerRound;
  }
  return kernels;
}

}  // namespace banyan
#endif  // HWY_ONCE
