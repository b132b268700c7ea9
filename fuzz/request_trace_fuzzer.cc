// SPDX-License-Identifier: Apache-2.0
// Any bytes as a trace of requests: what is read can be replayed, the rest is refused. Seeds:
// seeds/request_trace, the first lines of published traces and what is wrong with others.

#include <cstddef>
#include <cstdint>

#include "files/request_trace_file.h"
#include "readable.h"
#include "temp_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace banyan;
  const auto trace = read_request_trace(text_of(data, size), "f");
  if (!trace) {
    check_error(trace.error());
    return 0;
  }
  BANYAN_CHECK(!trace->empty() && trace->front().arrival_ms == 0, "it begins with a request");
  double before_ms = 0;
  for (const TraceRequest& request : *trace) {
    BANYAN_CHECK(request.arrival_ms >= before_ms && request.arrival_ms < 1e18, "they come in turn");
    before_ms = request.arrival_ms;
    for (const int32_t tokens : {request.prompt_tokens, request.output_tokens}) {
      BANYAN_CHECK(tokens >= 1 && tokens <= kMostTraceTokens, "lengths are in range");
    }
    const size_t blocks = (request.prompt_tokens - 1) / kTraceBlockTokens + 1;
    BANYAN_CHECK(request.blocks.empty() || request.blocks.size() == blocks, "blocks make a prompt");
  }
  return 0;
}
