// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu/ggml_kernels.h"

#include <array>

extern "C" {
#if defined(__x86_64__)
extern const GgmlKernels banyan_ggml_kernels_sse4;
extern const GgmlKernels banyan_ggml_kernels_avx2;
extern const GgmlKernels banyan_ggml_kernels_avx512;
extern const GgmlKernels banyan_ggml_kernels_avx512_vnni;
#else
extern const GgmlKernels banyan_ggml_kernels_baseline;
#endif
}

namespace banyan {
namespace {

constexpr double power_of_two(int exponent) {
  double value = 1;
  for (; exponent > 0; --exponent) value *= 2;
  for (; exponent < 0; ++exponent) value /= 2;
  return value;
}

// Half of the E8M0 scale of an MXFP4 block (OCP Microscaling Formats v1.0, section 5.4.1):
// 2^(x-128).
constexpr std::array<float, 256> half_e8m0() {
  std::array<float, 256> table{};
  for (int x = 0; x < 256; ++x) table[x] = static_cast<float>(power_of_two(x - 128));
  return table;
}

// Half of the unsigned E4M3 scale of an NVFP4 block: 4 bits of exponent (bias 7), 3 of mantissa.
// The sign bit is ignored, and the pattern of NaN (0x7F) stands for zero as in ggml's own table.
constexpr std::array<float, 256> half_ue4m3() {
  std::array<float, 256> table{};
  for (int x = 0; x < 256; ++x) {
    const int exponent = x >> 3 & 15;
    const int mantissa = x & 7;
    const double value =
        exponent == 0 ? mantissa * power_of_two(-9) : (8 + mantissa) * power_of_two(exponent - 10);
    table[x] = x == 0x7F ? 0.0F : static_cast<float>(value / 2);
  }
  return table;
}

}  // namespace
}  // namespace banyan

// Constants that ggml's kernels read under these names. (The fourth of this family, the table of
// all f16 values, is not needed: cmake/ggml.cmake replaces it by the conversion instruction.)
extern "C" {
extern const std::array<float, 256> ggml_table_f32_e8m0_half;
extern const std::array<float, 256> ggml_table_f32_ue4m3;
constinit const std::array<float, 256> ggml_table_f32_e8m0_half = banyan::half_e8m0();
constinit const std::array<float, 256> ggml_table_f32_ue4m3 = banyan::half_ue4m3();
}

namespace banyan {

#if defined(__x86_64__)

const GgmlKernels& ggml_kernels(Isa isa) {
  if (isa >= Isa::kAvx512) {
    return has_avx512_vnni() ? banyan_ggml_kernels_avx512_vnni : banyan_ggml_kernels_avx512;
  }
  return isa >= Isa::kAvx2 ? banyan_ggml_kernels_avx2 : banyan_ggml_kernels_sse4;
}

std::vector<NamedGgmlKernels> runnable_ggml_kernels() {
  std::vector<NamedGgmlKernels> all = {{"sse4", &banyan_ggml_kernels_sse4}};
  const Isa isa = detect_isa();
  if (isa >= Isa::kAvx2) all.push_back({"avx2", &banyan_ggml_kernels_avx2});
  if (isa >= Isa::kAvx512) all.push_back({"avx512", &banyan_ggml_kernels_avx512});
  if (isa >= Isa::kAvx512 && has_avx512_vnni()) {
    all.push_back({"avx512_vnni", &banyan_ggml_kernels_avx512_vnni});
  }
  return all;
}

#else

const GgmlKernels& ggml_kernels(Isa) { return banyan_ggml_kernels_baseline; }

std::vector<NamedGgmlKernels> runnable_ggml_kernels() {
  return {{"baseline", &banyan_ggml_kernels_baseline}};
}

#endif

}  // namespace banyan
