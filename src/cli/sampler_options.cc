// SPDX-License-Identifier: Apache-2.0
// How tokens are chosen, and where a text ends: options of whatever samples.
#include <fmt/format.h>

#include <random>

#include "cli/cli.h"

namespace banyan {
namespace {

// "15043+1.5", "15043-1", "15043-inf" as llama.cpp writes them.
Result<std::pair<TokenId, float>> parse_logit_bias(const std::string& text) {
  const size_t sign = text.find_first_of("+-", 1);
  if (sign != std::string::npos && sign + 1 < text.size()) {
    char* token_end = nullptr;
    char* bias_end = nullptr;
    const std::string token = text.substr(0, sign);
    const std::string bias = text.substr(sign);
    const long id = std::strtol(token.c_str(), &token_end, 10);
    const float value = std::strtof(bias.c_str(), &bias_end);
    const bool whole = *token_end == '\0' && *bias_end == '\0';
    if (whole && id >= 0 && id <= INT32_MAX) return std::pair(static_cast<TokenId>(id), value);
  }
  return bad_input(
      fmt::format("--logit-bias is \"{}\", expected a token id and a bias like 15043+1.5", text));
}

}  // namespace

void add_sampler_options(CLI::App& app, SamplerOptions& o) {
  SamplerParams& s = o.params;
  const char* group = "Sampling";
  app.add_option("--temp", s.temperature, "temperature, 0 is greedy (0.8)")->group(group);
  app.add_option("--top-k", s.top_k, "keep the k best, 0 all (40)")->group(group);
  app.add_option("--top-p", s.top_p, "keep the best that make up p (0.95)")->group(group);
  app.add_option("--min-p", s.min_p, "drop below p x the best (0.05)")->group(group);
  app.add_option("--typical", s.typical_p, "locally typical, 1 off (1)")->group(group);
  app.add_option("--repeat-penalty", s.repeat_penalty, "1 off (1)")->group(group);
  app.add_option("--repeat-last-n", s.repeat_last_n, "tokens penalties see (64)")->group(group);
  app.add_option("--presence-penalty", s.presence_penalty, "0 off (0)")->group(group);
  app.add_option("--frequency-penalty", s.frequency_penalty, "0 off (0)")->group(group);
  app.add_option("-l,--logit-bias", o.logit_bias, "ID+BIAS or ID-BIAS")->group(group);
  app.add_option("-s,--seed", o.seed, "-1: a new one each time (-1)")->group(group);
}

Result<SamplerParams> sampler_params(const SamplerOptions& o) {
  SamplerParams params = o.params;
  for (const std::string& text : o.logit_bias) {
    auto bias = parse_logit_bias(text);
    if (!bias) return bias.error();
    params.logit_bias.push_back(*bias);
  }
  if (o.seed < -1) return bad_input(fmt::format("-s is {}, expected a seed >= 0, or -1", o.seed));
  params.seed = o.seed >= 0 ? static_cast<uint64_t>(o.seed) : std::random_device{}();
  return params;
}

void add_stop_option(CLI::App& app, std::vector<std::string>& stop) {
  app.add_option("--stop", stop, "end where this text would come (again for more)")
      ->take_all()
      ->expected(1);
}

Result<void> check_stop(const std::vector<std::string>& stop) {
  for (const std::string& text : stop) {
    if (text.empty()) return bad_input("--stop is empty, expected some text");
  }
  return {};
}

}  // namespace banyan
