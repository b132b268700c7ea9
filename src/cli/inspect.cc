// SPDX-License-Identifier: Apache-2.0
// banyan inspect: what a model file is.
#include "engine/inspect.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "cli/cli.h"

namespace banyan {
namespace {

struct InspectOptions {
  CommonOptions common;
  std::string model;
};

Json rope_json(const RopeSettings& rope) {
  Json json = {{"dimensions", rope.rot_dim},
               {"interleaved", rope.interleaved},
               {"freq_base", rope.freq_base},
               {"scaling", name(rope.scaling)}};
  if (rope.scaling != RopeScaling::kNone) json["factor"] = rope.factor;
  const bool has_original =
      rope.scaling == RopeScaling::kYarn || rope.scaling == RopeScaling::kLongRope;
  if (has_original) json["original_context"] = rope.original_context;
  if (rope.scaling == RopeScaling::kLongRope) json["long"] = rope.long_divisors;
  if (rope.attn_factor != 1) json["attention_factor"] = rope.attn_factor;
  return json;
}

// The settings of full layers, those of sliding ones within; {} where positions turn nothing.
Json ropes_json(const std::vector<RopeSettings>& ropes) {
  if (ropes.empty()) return Json::object();
  Json json = rope_json(ropes[0]);
  if (ropes.size() > 1) json["sliding"] = rope_json(ropes[1]);
  return json;
}

Json facts_json(const ModelFacts& f) {
  Json json = {{"path", f.path},
               {"architecture", f.architecture},
               {"name", f.name},
               {"license", f.license},
               {"parameters", f.parameters},
               {"bytes", f.bytes},
               {"context_length", f.context_length},
               {"layers", f.layers},
               {"heads", f.heads},
               {"kv_heads", f.kv_heads},
               {"head_dim", f.head_dim},
               {"vocab", f.vocab},
               {"kv_bytes_per_token", f.kv_bytes_per_token},
               {"types", f.types},
               {"chat_template", f.chat_template},
               {"rope", ropes_json(f.ropes)}};
  if (f.sliding_layers > 0) {
    json["sliding_window"] = {{"layers", f.sliding_layers}, {"window", f.window}};
  }
  if (f.experts > 0) json["experts"] = {{"count", f.experts}, {"used", f.experts_used}};
  return json;
}

// "8 of 32 dimensions, base 10000, yarn, factor 4 over 1024 positions"
std::string rope_text(const RopeSettings& rope, int head_dim) {
  std::string text = rope.rot_dim == head_dim
                         ? fmt::format("all {} dimensions", head_dim)
                         : fmt::format("{} of {} dimensions", rope.rot_dim, head_dim);
  text += fmt::format(", base {}", rope.freq_base);
  if (rope.scaling == RopeScaling::kNone) return text;
  text += fmt::format(", {}", name(rope.scaling));
  if (rope.factor != 1) text += fmt::format(", factor {:.4g}", rope.factor);
  if (rope.original_context > 0) text += fmt::format(" over {} positions", rope.original_context);
  if (rope.scaling == RopeScaling::kLongRope) text += rope.long_divisors ? ", long" : ", short";
  return text;
}

void print_table(const ModelFacts& f) {
  const auto line = [](const char* label, const std::string& value) {
    if (!value.empty()) fmt::print("{:<18} {}\n", label, value);
  };
  line("path", f.path);
  line("name", f.name);
  line("license", f.license);
  line("architecture", f.architecture);
  line("parameters", fmt::format("{:.1f} million", double(f.parameters) * 1e-6));
  line("size", format_bytes(f.bytes) + (f.files > 1 ? fmt::format(" in {} files", f.files) : ""));
  line("context", fmt::format("{} tokens as trained", f.context_length));
  line("layers", fmt::format("{}, {} wide, feed-forward {}", f.layers, f.hidden, f.ffn));
  line("heads", fmt::format("{} over {} KV heads of {}", f.heads, f.kv_heads, f.head_dim));
  if (f.experts > 0) line("experts", fmt::format("{} of {} a token", f.experts_used, f.experts));
  if (f.sliding_layers > 0) {
    line("sliding window", fmt::format("{} tokens in {} layers", f.window, f.sliding_layers));
  }
  line("rotary positions",
       f.ropes.empty() ? "none: learned" : rope_text(f.ropes.front(), f.head_dim));
  if (f.ropes.size() > 1) line("  sliding layers", rope_text(f.ropes[1], f.head_dim));
  line("vocabulary", fmt::format("{} tokens", f.vocab));
  line("KV", fmt::format("{} a token, {} at full context", format_bytes(f.kv_bytes_per_token),
                         format_bytes(f.kv_bytes_per_token * f.context_length)));
  std::vector<std::string> types;
  for (const auto& [type, count] : f.types) types.push_back(fmt::format("{} {}", count, type));
  line("tensors", fmt::format("{}", fmt::join(types, ", ")));
  line("chat template", f.chat_template ? "yes" : "no");
}

Result<int> inspect(InspectOptions& o) {
  if (!o.model.empty()) o.common.model = o.model;
  auto path = model_path(o.common);
  if (!path) return path.error();
  auto k_type = parse_kv_type("-ctk", o.common.k_type);
  if (!k_type) return k_type.error();
  auto v_type = parse_kv_type("-ctv", o.common.v_type);
  if (!v_type) return v_type.error();
  auto facts = inspect_model(*path, *k_type, *v_type);
  if (!facts) return facts.error();
  if (o.common.json) {
    print_json(facts_json(*facts));
  } else {
    print_table(*facts);
  }
  return 0;
}

}  // namespace

Command inspect_command() {
  auto o = std::make_shared<InspectOptions>();
  auto app = std::make_unique<CLI::App>("Says what a model file is.");
  app->add_option("MODEL", o->model,
                  "GGUF file or Hugging Face folder (default: SmolLM2-135M-Instruct)");
  add_common_options(*app, o->common, /*engine=*/false);
  app->add_option("--ctk,--cache-type-k", o->common.k_type, "type of K: f32, f16, bf16 or q8_0");
  app->add_option("--ctv,--cache-type-v", o->common.v_type, "type of V: f32, f16, bf16 or q8_0");
  return {std::move(app), [o] { return inspect(*o); }};
}

}  // namespace banyan
