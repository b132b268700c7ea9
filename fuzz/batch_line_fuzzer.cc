// SPDX-License-Identifier: Apache-2.0
// Any bytes as a line of a batch file: a request that the engine may be given, or a refusal; and as
// a line of results. Seeds: seeds/batch_line, with every field right and wrong.

#include <cstddef>
#include <cstdint>

#include "openai/batch_line.h"
#include "readable.h"
#include "sample/sampler.h"
#include "temp_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace banyan;
  constexpr int32_t kVocabulary = 1000;
  const std::string_view text = text_of(data, size);
  static_cast<void>(read_batch_result(text));

  const BatchLine line = read_batch_line(text, kVocabulary);
  const auto* error = std::get_if<ApiError>(&line.asked);
  const int status = error == nullptr ? 200 : error->status;
  const std::string result = batch_result(1, line.custom_id, status, "{}");
  BANYAN_CHECK(result.find('\n') == result.size() - 1, "a result is one line");
  const auto read = read_batch_result(std::string_view(result).substr(0, result.size() - 1));
  BANYAN_CHECK(read && read->custom_id == line.custom_id, "ids come back");
  BANYAN_CHECK(read->failed == (error != nullptr), "what failed is said to have failed");
  if (error != nullptr) {
    BANYAN_CHECK(!error->message.empty(), "an error is a sentence");
    return 0;
  }
  const auto& asked = std::get<ApiRequest>(line.asked);
  const Request& request = asked.request;
  BANYAN_CHECK(validate(request.sampler, kVocabulary).has_value(), "what passed is in range");
  BANYAN_CHECK(request.max_tokens >= -1 && request.max_tokens != 0, "an answer has tokens");
  BANYAN_CHECK(request.n >= 1 && request.samples() >= request.n && request.samples() <= 128,
               "a number of answers");
  for (const std::string& stop : request.stop) BANYAN_CHECK(!stop.empty(), "stops at something");
  return 0;
}
