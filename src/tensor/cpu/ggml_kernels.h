// SPDX-License-Identifier: Apache-2.0
#pragma once
// ggml's conversions and dot products, one table for each instruction set. Plain C: the tables are
// built by ggml_kernels.c, once for each variant (cmake/ggml.cmake). Immutable, for any thread.

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// *sum = dot product of n elements: x in the row's type, y in its vec_dot_type. n is a multiple of
// the block sizes of both; x_rows is 1 and the strides are ignored.
typedef void (*GgmlVecDot)(int n, float* sum, size_t sum_stride, const void* x, size_t x_stride,
                           const void* y, size_t y_stride, int x_rows);
typedef void (*GgmlFromFloat)(const float* x, void* y, int64_t n);
typedef void (*GgmlToFloat)(const void* x, float* y, int64_t n);

// What a variant can do with one tensor type. A null function: not with this type.
typedef struct GgmlTypeKernels {
  GgmlVecDot vec_dot;
  int32_t vec_dot_type;      // type of the other operand of vec_dot
  GgmlFromFloat from_float;  // fast rounding to this type
  GgmlToFloat to_float;      // exact
} GgmlTypeKernels;

enum { GGML_KERNEL_TYPES = 64 };  // more than there are tensor types

typedef struct GgmlKernels {
  GgmlTypeKernels types[GGML_KERNEL_TYPES];
} GgmlKernels;

#ifdef __cplusplus
}  // extern "C"

#include <vector>

#include "base/isa.h"

namespace banyan {

// The best table for `isa` on this machine. Never one that uses AMX.
const GgmlKernels& ggml_kernels(Isa isa);

struct NamedGgmlKernels {
  const char* name;
  const GgmlKernels* kernels;
};

// All tables that this machine can run, lowest first.
std::vector<NamedGgmlKernels> runnable_ggml_kernels();

}  // namespace banyan
#endif
