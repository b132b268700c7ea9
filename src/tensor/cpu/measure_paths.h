// SPDX-License-Identifier: Apache-2.0
#pragma once
// Measures which way products with weights are fastest on this machine.

#include <string>

#include "base/isa.h"
#include "base/thread_pool.h"
#include "tensor/cpu/product_paths.h"

namespace banyan {

// Of what is measured, oneDNN's version included: measurements of another say nothing.
std::string product_paths_version();

inline constexpr double kMeasureMs = 500;

// Times the paths that Products may take with Compute::kAuto, with synthetic weights, on all
// workers of `pool`, in turns. The default paths stay but where another is clearly faster. Ends
// after about `budget_ms`; what was not measured often enough by then keeps its default.
MeasuredPaths measure_paths(ThreadPool& pool, Isa isa, double budget_ms = kMeasureMs);

}  // namespace banyan
