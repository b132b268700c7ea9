// SPDX-License-Identifier: Apache-2.0
#include "hwy/base.h"

#if HWY_ARCH_X86_64

#include "attention/cpu/hardware_tiles.h"
#include "attention/cpu/tile_kernels-inl.h"

namespace banyan {
const Bf16Kernels* tile_kernels() {
  static const Bf16Kernels kernels = bf16::tile_kernels_by<bf16::HardwareTiles>();
  return &kernels;
}
}  // namespace banyan

#else

#include "attention/cpu/bf16_kernels.h"

namespace banyan {
const Bf16Kernels* tile_kernels() { return nullptr; }
}  // namespace banyan

#endif
