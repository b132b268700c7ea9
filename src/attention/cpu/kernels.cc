// SPDX-License-Identifier: Apache-2.0
#include "attention/cpu/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/cpu/kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h:
#include "attention/cpu/kernels-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace banyan {
namespace HWY_NAMESPACE {

const AttentionKernels* kernel_table() {
  static constexpr AttentionKernels kTable{
      .pack_k = pack_k,
      .pack_v = pack_v,
      .scores = scores,
      .softmax = softmax,
      .fold_block = fold_block,
      .scale = scale,
      .fold = fold,
  };
  return &kTable;
}

}  // namespace HWY_NAMESPACE
}  // namespace banyan
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace banyan {

HWY_EXPORT(kernel_table);

// Highway's own choice looks at the machine only; this one obeys the caller's cap.
const AttentionKernels& attention_kernels([[maybe_unused]] Isa isa) {
#if HWY_ARCH_X86 && (HWY_TARGETS & HWY_AVX3)
  if (isa >= Isa::kAvx512) return *N_AVX3::kernel_table();
#endif
#if HWY_ARCH_X86 && (HWY_TARGETS & HWY_AVX2)
  if (isa >= Isa::kAvx2) return *N_AVX2::kernel_table();
#endif
#if HWY_ARCH_X86
  return *HWY_STATIC_DISPATCH(kernel_table)();
#else
  return *HWY_DYNAMIC_DISPATCH(kernel_table)();
#endif
}

}  // namespace banyan
#endif  // HWY_ONCE
