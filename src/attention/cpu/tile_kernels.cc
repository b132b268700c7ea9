// SPDX-License-Identifier: Apache-2.0
#include "hwy/base.h"

#if HWY_ARCH_X86_64

#include "attention/cpu/hardware_tiles.h"
#include "attention/cpu/tile_kernels-inl.h"

namespace banyan {
const PairKernels* tile_kernels() {
  static const PairKernels kernels = pairs::tile_kernels_by<pairs::HardwareTiles>();
  return &kernels;
}
}  // namespace banyan

#else

#include "attention/cpu/pair_kernels.h"

namespace banyan {
const PairKernels* tile_kernels() { return nullptr; }
}  // namespace banyan

#endif
