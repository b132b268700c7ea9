// SPDX-License-Identifier: Apache-2.0
// The table of one variant: compiled with that variant's flags beside ggml's own files, so that
// each name below means the copy for this instruction set. f32, f16 and bf16 have no entry: their
// products are ours (kernels.cc), with activations in f32.

#include "ggml_kernels.h"

#include "ggml-quants.h"
#include "quants.h"

_Static_assert(GGML_TYPE_COUNT <= GGML_KERNEL_TYPES, "the table has room for every tensor type");

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

// A type whose rows meet activations of type `other`.
#define PRODUCT(TYPE, name, OTHER, other)                         \
  [GGML_TYPE_##TYPE] = {.vec_dot = ggml_vec_dot_##name##_##other, \
                        .vec_dot_type = GGML_TYPE_##OTHER,        \
                        .to_float = (GgmlToFloat)dequantize_row_##name}

__attribute__((visibility("default")))
const GgmlKernels JOIN(banyan_ggml_kernels_, BANYAN_GGML_VARIANT) = {
    .types = {
        PRODUCT(Q1_0, q1_0, Q8_0, q8_0),
        PRODUCT(Q2_0, q2_0, Q8_0, q8_0),
        PRODUCT(Q4_0, q4_0, Q8_0, q8_0),
        PRODUCT(Q4_1, q4_1, Q8_1, q8_1),
        PRODUCT(Q5_0, q5_0, Q8_0, q8_0),
        PRODUCT(Q5_1, q5_1, Q8_1, q8_1),
        PRODUCT(MXFP4, mxfp4, Q8_0, q8_0),
        PRODUCT(NVFP4, nvfp4, Q8_0, q8_0),
        PRODUCT(Q2_K, q2_K, Q8_K, q8_K),
        PRODUCT(Q3_K, q3_K, Q8_K, q8_K),
        PRODUCT(Q4_K, q4_K, Q8_K, q8_K),
        PRODUCT(Q5_K, q5_K, Q8_K, q8_K),
        PRODUCT(Q6_K, q6_K, Q8_K, q8_K),
        PRODUCT(IQ1_S, iq1_s, Q8_K, q8_K),
        PRODUCT(IQ1_M, iq1_m, Q8_K, q8_K),
        PRODUCT(IQ2_XXS, iq2_xxs, Q8_K, q8_K),
        PRODUCT(IQ2_XS, iq2_xs, Q8_K, q8_K),
        PRODUCT(IQ2_S, iq2_s, Q8_K, q8_K),
        PRODUCT(IQ3_XXS, iq3_xxs, Q8_K, q8_K),
        PRODUCT(IQ3_S, iq3_s, Q8_K, q8_K),
        PRODUCT(IQ4_NL, iq4_nl, Q8_0, q8_0),
        PRODUCT(IQ4_XS, iq4_xs, Q8_K, q8_K),
        PRODUCT(TQ1_0, tq1_0, Q8_K, q8_K),
        PRODUCT(TQ2_0, tq2_0, Q8_K, q8_K),
        [GGML_TYPE_Q8_0] = {.vec_dot = ggml_vec_dot_q8_0_q8_0,
                            .vec_dot_type = GGML_TYPE_Q8_0,
                            .from_float = quantize_row_q8_0,
                            .to_float = (GgmlToFloat)dequantize_row_q8_0},
        // Only ever the other operand.
        [GGML_TYPE_Q8_1] = {.from_float = quantize_row_q8_1},
        [GGML_TYPE_Q8_K] = {.from_float = quantize_row_q8_K},
    }};
