// SPDX-License-Identifier: Apache-2.0
#pragma once
// The small integers that cross rooms.

#include <cstdint>

namespace banyan {

using TokenId = int32_t;   // index into the vocabulary, >= 0
using Position = int32_t;  // place of a token in its sequence, from 0
using PanelId = uint32_t;  // index of a panel in its pool

inline constexpr TokenId kNoToken = -1;

}  // namespace banyan
