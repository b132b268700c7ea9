// SPDX-License-Identifier: Apache-2.0
#pragma once
// Recorded requests, as providers publish them: when each came, how long prompt and answer were,
// and, where it is known, which blocks of the prompt were the same as another's. Read as a claim.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace banyan {

constexpr int32_t kTraceBlockTokens = 512;      // of a block that a trace names
constexpr int32_t kMostTraceTokens = 16 << 20;  // of a prompt or an answer

struct TraceRequest {
  double arrival_ms = 0;      // since the first request; at least that of the request before
  int32_t prompt_tokens = 0;  // 1 to kMostTraceTokens, as is output_tokens
  int32_t output_tokens = 0;
  // One for each block of the prompt, the last of which may be shorter: prompts that begin with the
  // same ids begin with the same tokens. None where the trace does not say.
  std::vector<uint64_t> blocks;
  bool operator==(const TraceRequest&) const = default;
};

// The requests in `text`, which is one of
//   Mooncake's traces: on each line {"timestamp": ms, "input_length": .., "output_length": ..,
//                      "hash_ids": [an id for each block of 512 tokens]} and what else there is
//   Azure's traces:    TIMESTAMP,ContextTokens,GeneratedTokens, then lines such as
//                      2023-11-16 18:15:46.6805900,374,44
// At least one. kBadInput: "name: line N: what". Memory is in proportion to the text.
Result<std::vector<TraceRequest>> read_request_trace(std::string_view text,
                                                     const std::string& name);

// The same of a file. kBadInput also if it cannot be read.
Result<std::vector<TraceRequest>> open_request_trace(const std::string& path);

}  // namespace banyan
