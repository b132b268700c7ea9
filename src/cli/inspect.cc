// SPDX-License-Identifier: Apache-2.0
// banyan inspect: what a model file is, or the machine.
#include "engine/inspect.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "cli/cli.h"
#include "engine/machine_facts.h"

namespace banyan {
namespace {

struct InspectOptions {
  CommonOptions common;
  std::string model;
  bool machine = false;
  bool measure = false;
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

// Empty values are left out.
void print_line(const char* label, const std::string& value) {
  if (!value.empty()) fmt::print("{:<18} {}\n", label, value);
}

void print_table(const ModelFacts& f) {
  print_line("path", f.path);
  print_line("name", f.name);
  print_line("license", f.license);
  print_line("architecture", f.architecture);
  print_line("parameters", fmt::format("{:.1f} million", double(f.parameters) * 1e-6));
  print_line("size",
             format_bytes(f.bytes) + (f.files > 1 ? fmt::format(" in {} files", f.files) : ""));
  print_line("context", fmt::format("{} tokens as trained", f.context_length));
  print_line("layers", fmt::format("{}, {} wide, feed-forward {}", f.layers, f.hidden, f.ffn));
  print_line("heads", fmt::format("{} over {} KV heads of {}", f.heads, f.kv_heads, f.head_dim));
  if (f.experts > 0)
    print_line("experts", fmt::format("{} of {} a token", f.experts_used, f.experts));
  if (f.sliding_layers > 0) {
    print_line("sliding window", fmt::format("{} tokens in {} layers", f.window, f.sliding_layers));
  }
  print_line("rotary positions",
             f.ropes.empty() ? "none: learned" : rope_text(f.ropes.front(), f.head_dim));
  if (f.ropes.size() > 1) print_line("  sliding layers", rope_text(f.ropes[1], f.head_dim));
  print_line("vocabulary", fmt::format("{} tokens", f.vocab));
  print_line("KV", fmt::format("{} a token, {} at full context", format_bytes(f.kv_bytes_per_token),
                               format_bytes(f.kv_bytes_per_token * f.context_length)));
  std::vector<std::string> types;
  for (const auto& [type, count] : f.types) types.push_back(fmt::format("{} {}", count, type));
  print_line("tensors", fmt::format("{}", fmt::join(types, ", ")));
  print_line("chat template", f.chat_template ? "yes" : "no");
}

Json machine_json(const MachineFacts& f) {
  Json caches = Json::array();
  for (const CpuCache& cache : f.caches) {
    caches.push_back({{"level", cache.level}, {"type", cache.type}, {"bytes", cache.bytes}});
  }
  return {{"cpu", f.cpu},
          {"isa", f.isa},
          {"cpus", f.cpus},
          {"cores", f.cores},
          {"cpu_quota", f.cpu_quota ? Json(*f.cpu_quota) : Json()},
          {"threads", f.threads},
          {"caches", caches},
          {"memory_bytes", f.memory},
          {"memory_free_bytes", f.memory_free},
          {"bandwidth_gbps", f.figures.bandwidth_gbps},
          {"peak_gflops", f.figures.peak_gflops},
          {"peak_gexps", f.figures.peak_gexps},
          {"paths_from", !f.paths.measured  ? "default"
                         : f.paths.was_kept ? "file"
                                            : "measured"},
          {"paths_file", f.paths.file},
          {"paths", Json::parse(f.paths_document)["paths"]}};
}

// The path of each class of weights and rows, and its rate where it was measured.
void print_paths(const Json& paths) {
  fmt::print("\n{:<12}", "rows");
  for (const auto& [rows, cell] : paths.front().items()) fmt::print(" {:>8}", rows);
  for (const auto& [weights, row] : paths.items()) {
    fmt::print("\n{:<12}", weights);
    for (const Json& cell : row) {
      const std::string path = cell["path"];
      const double rate = cell["gflops"].value(path, 0.0);
      fmt::print(" {:>8}", rate > 0 ? fmt::format("{} {:.0f}", path, rate) : path);
    }
  }
  fmt::print("\n");
}

void print_machine(const MachineFacts& f) {
  const Json json = machine_json(f);
  print_line("CPU", f.cpu);
  print_line("instructions", f.isa);
  print_line("cores", fmt::format("{} of {} hardware threads{}", f.cores, f.cpus,
                                  f.cpu_quota ? fmt::format(", quota {:.2g}", *f.cpu_quota) : ""));
  std::string caches;
  for (const CpuCache& c : f.caches) {
    caches += fmt::format("L{} {} {}  ", c.level, c.type, format_bytes(c.bytes));
  }
  print_line("caches", caches);
  print_line("memory",
             fmt::format("{}, {} free", format_bytes(f.memory), format_bytes(f.memory_free)));
  print_line("measured",
             fmt::format("{} threads: {:.1f} GB/s, {:.0f} GFLOP/s, {:.1f} Gexp/s", f.threads,
                         f.figures.bandwidth_gbps, f.figures.peak_gflops, f.figures.peak_gexps));
  print_line("products",
             fmt::format("{} paths{}, GFLOP/s of each:", f.paths.measured ? "measured" : "default",
                         f.paths.measured ? " (" + f.paths.file + ")" : ""));
  print_paths(json["paths"]);
}

Result<int> inspect_machine_main(const InspectOptions& o) {
  if (!o.model.empty() || !o.common.model.empty() || !o.common.hub_model.empty()) {
    return bad_input("--machine is about the machine; a model is inspected without it");
  }
  BANYAN_TRY(check_threads(o.common));
  auto isa = isa_from_environment();
  if (!isa) return isa.error();
  auto folder = paths_folder(o.common);
  if (!folder) return folder.error();
  auto facts = inspect_machine({.n_threads = o.common.threads,
                                .isa = *isa,
                                .cache_folder = *folder,
                                .measure_again = o.measure});
  if (!facts) return facts.error();
  if (!facts->paths.note.empty()) {
    log_line(LogLevel::kWarn, log_level(o.common), "warning: " + facts->paths.note);
  }
  if (o.common.json) {
    print_json(machine_json(*facts));
  } else {
    print_machine(*facts);
  }
  return 0;
}

Result<int> inspect(InspectOptions& o) {
  if (o.machine) return inspect_machine_main(o);
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
  auto app = std::make_unique<CLI::App>("Says what a model file is, or the machine.");
  app->add_option("MODEL", o->model,
                  "GGUF file or Hugging Face folder (default: SmolLM2-135M-Instruct)");
  app->add_flag("--machine", o->machine,
                "what this machine can do instead, and which paths it takes");
  app->add_flag("--measure", o->measure, "measure the fastest paths again and keep them")
      ->needs("--machine");
  add_common_options(*app, o->common, /*engine=*/false);
  app->add_option("-t,--threads", o->common.threads, "threads to measure with (default: cores)");
  app->add_option("--ctk,--cache-type-k", o->common.k_type, "type of K: f32, f16, bf16 or q8_0");
  app->add_option("--ctv,--cache-type-v", o->common.v_type, "type of V: f32, f16, bf16 or q8_0");
  return {std::move(app), [o] { return inspect(*o); }};
}

}  // namespace banyan
