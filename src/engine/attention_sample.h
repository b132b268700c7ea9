// SPDX-License-Identifier: Apache-2.0
#pragma once
// How far an executor's output is from exact attention, on a sample of the rows.

#include <cstdint>
#include <span>
#include <vector>

#include "attention/executor.h"
#include "base/isa.h"
#include "base/thread_pool.h"
#include "engine/attention_workload.h"

namespace banyan {

// Some rows with their exact attention over the stored K and V, as the reference executor defines
// it: every product and sum in double.
struct AttentionSample {
  std::vector<uint32_t> rows;  // rising
  std::vector<double> out;     // [rows][n_heads][head_dim]
  std::vector<double> lse;     // [rows][n_heads]
};

// At most `max_rows` rows, spread over all of them.
AttentionSample sample_attention(const AttentionWorkload& workload, int layer, int max_rows,
                                 ThreadPool& pool, Isa isa);

struct AttentionErrors {
  double rel_err = 0;      // largest difference, over the root mean square of the exact output
  double recall_mean = 0;  // exp(lse - exact lse): share of the softmax that was kept, by row and
  double recall_p5 = 0;    // head; the fifth percentile
};

// `output` is that of all rows, lse included. A number that is not finite makes rel_err infinite.
AttentionErrors compare(const AttentionSample& sample, const AttentionCase& shape,
                        const AttendOutputs& output);

}  // namespace banyan
