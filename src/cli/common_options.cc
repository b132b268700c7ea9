// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/bytes.h"
#include "base/clock.h"
#include "cli/cli.h"
#include "cli/hub_cache.h"

namespace banyan {
namespace {

constexpr const char* kDefaultModel = "SmolLM2-135M-Instruct.Q4_1.gguf";
constexpr int kMaxThreads = 1024;

std::string environment(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): before any thread
  return value == nullptr ? "" : value;
}

// An option that was given (differs from its "not given" value) as an override.
template <class T, class U>
void override_if(bool given, U value, std::optional<T>& out) {
  if (given) out = static_cast<T>(value);
}

Result<RopeOverrides> rope_overrides(const CommonOptions& o) {
  RopeOverrides rope;
  if (o.rope_scaling == "none") {
    rope.scaling = RopeScaling::kNone;
  } else if (o.rope_scaling == "linear") {
    rope.scaling = RopeScaling::kLinear;
  } else if (o.rope_scaling == "yarn") {
    rope.scaling = RopeScaling::kYarn;
  } else if (!o.rope_scaling.empty()) {
    return bad_input(
        fmt::format("--rope-scaling is \"{}\", expected none, linear or yarn", o.rope_scaling));
  }
  override_if(o.rope_scale != 0, o.rope_scale, rope.factor);
  override_if(o.rope_freq_base != 0, o.rope_freq_base, rope.freq_base);
  override_if(o.yarn_orig_ctx != 0, o.yarn_orig_ctx, rope.original_context);
  override_if(o.yarn_ext_factor >= 0, o.yarn_ext_factor, rope.ext_factor);
  override_if(o.yarn_attn_factor >= 0, o.yarn_attn_factor, rope.attn_factor);
  override_if(o.yarn_beta_fast >= 0, o.yarn_beta_fast, rope.beta_fast);
  override_if(o.yarn_beta_slow >= 0, o.yarn_beta_slow, rope.beta_slow);
  return rope;
}

Result<Speculation> parse_speculation(const std::string& text) {
  if (text == "off") return Speculation::kOff;
  if (text == "auto") return Speculation::kAuto;
  if (text == "lookup") return Speculation::kLookup;
  if (text == "draft") return Speculation::kDraft;
  return bad_input(fmt::format("--spec is \"{}\", expected off, auto, lookup or draft", text));
}

}  // namespace

void add_common_options(CLI::App& app, CommonOptions& o, bool engine) {
  app.add_option("-m,--model", o.model,
                 "GGUF file or Hugging Face folder (default: SmolLM2-135M-Instruct)");
  app.add_option("--hf,--hf-repo", o.hub_model,
                 "USER/MODEL[:QUANT] of the Hugging Face hub, from a local cache (also -hf)");
  app.add_flag("--json", o.json, "print JSON only");
  app.add_option("--log-level", o.log_level, "error, warn, info or debug");
  if (!engine) return;
  app.add_option("-t,--threads", o.threads, "threads (default: physical cores)");
  app.add_option("-c,--ctx-size", o.context, "context in tokens (default: as trained)");
  app.add_option("--kv-budget", o.kv_budget, "memory for KV, e.g. 512MiB (default: 1/4 of free)");
  app.add_option("--panel-cache", o.panel_cache,
                 "memory to keep other types than Q4_0, Q4_1, Q8_0 expanded (default: 0)");
  app.add_option("--ctk,--cache-type-k", o.k_type, "type of K: f32, f16, bf16 or q8_0");
  app.add_option("--ctv,--cache-type-v", o.v_type, "type of V: f32, f16, bf16 or q8_0");
  app.add_option("--compute", o.compute, "auto, or f32: every product in 32 bits");
  app.add_option("--device", o.device, "auto or cpu");
  app.add_option("--spec", o.speculation,
                 "tokens that are verified together: off, auto (as many as pay), lookup (what "
                 "followed before) or draft (of -md)");
  app.add_option("--md,--model-draft", o.draft_model,
                 "smaller model with the same tokens, for --spec draft or auto (also -md)");
  app.add_flag("--deterministic", o.deterministic, "bit-equal for any threads and batch");
  const char* group = "Rotary positions";
  app.add_option("--rope-scaling", o.rope_scaling, "none, linear or yarn")->group(group);
  app.add_option("--rope-scale", o.rope_scale, "context is stretched by this")->group(group);
  app.add_option("--rope-freq-base", o.rope_freq_base, "base frequency")->group(group);
  app.add_option("--yarn-orig-ctx", o.yarn_orig_ctx, "context as trained")->group(group);
  app.add_option("--yarn-ext-factor", o.yarn_ext_factor, "0 to 1")->group(group);
  app.add_option("--yarn-attn-factor", o.yarn_attn_factor, "attention factor")->group(group);
  app.add_option("--yarn-beta-slow", o.yarn_beta_slow, "beta of low frequencies")->group(group);
  app.add_option("--yarn-beta-fast", o.yarn_beta_fast, "beta of high frequencies")->group(group);
}

Result<PlanMethod> parse_plan_method(const std::string& text) {
  for (const PlanMethod method :
       {PlanMethod::kAuto, PlanMethod::kPaged, PlanMethod::kTwoPhase, PlanMethod::kNode,
        PlanMethod::kNodeChunk, PlanMethod::kFlatten}) {
    if (text == name(method)) return method;
  }
  return bad_input(fmt::format(
      "--method is \"{}\", expected auto, paged, two-phase, node, node-chunk or flatten", text));
}

Result<DType> parse_kv_type(const std::string& option, const std::string& text) {
  if (text == "f32") return DType::kF32;
  if (text == "f16") return DType::kF16;
  if (text == "bf16") return DType::kBF16;
  if (text == "q8_0") return DType::kQ8_0;
  return bad_input(fmt::format("{} is \"{}\", expected f32, f16, bf16 or q8_0", option, text));
}

Result<Isa> isa_from_environment() {
  const Isa machine = detect_isa();
  const std::string text = environment("BANYAN_ISA");
  if (text.empty()) return machine;
  const auto cap = parse_isa(text);
  if (!cap) {
    return bad_input(fmt::format("BANYAN_ISA is \"{}\", expected sse4, avx2, avx512 or amx", text));
  }
  return std::min(machine, *cap);
}

std::string cache_folder() {
  const std::string cache = environment("XDG_CACHE_HOME");
  if (!cache.empty()) return cache + "/banyan";
  const std::string home = environment("HOME");
  return home.empty() ? "" : home + "/.cache/banyan";
}

Result<std::string> paths_folder(const CommonOptions& o) {
  const std::string text = environment("BANYAN_PATHS");
  if (text == "default") return std::string();
  if (!text.empty() && text != "measured") {
    return bad_input(fmt::format("BANYAN_PATHS is \"{}\", expected measured or default", text));
  }
  const std::string folder = cache_folder();
  const bool has_choice = o.compute != "f32" && !o.deterministic;
  if (folder.empty() && has_choice) {
    log_line(LogLevel::kWarn, log_level(o),
             "warning: neither HOME nor XDG_CACHE_HOME is set, so the fastest paths of products "
             "are not measured and the default ones are taken; set XDG_CACHE_HOME to a folder "
             "that can be written");
  }
  return folder;
}

Result<void> check_range(const char* option, int value, int least, int most) {
  if (value >= least && value <= most) return {};
  return bad_input(fmt::format("{} is {}, expected {} to {}", option, value, least, most));
}

Result<void> check_threads(const CommonOptions& o) {
  if (o.threads >= 0 && o.threads <= kMaxThreads) return {};
  return bad_input(
      fmt::format("-t is {}, expected 1 to {} (0: physical cores)", o.threads, kMaxThreads));
}

Result<std::string> model_path(const CommonOptions& o) {
  if (!o.hub_model.empty()) {
    if (o.model.empty()) return find_hub_model(o.hub_model, hub_caches());
    return bad_input(fmt::format("-hf {} and {} are two models; give one", o.hub_model, o.model));
  }
  if (!o.model.empty()) return o.model;
  const std::string cache = cache_folder();
  if (cache.empty()) {
    return bad_input("HOME is not set, so there is no place for a default model; give one with -m");
  }
  const std::string path = cache + "/models/" + kDefaultModel;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return bad_input(fmt::format(
        "the default model is not at {}; `make run` fetches it, or give another with -m", path));
  }
  return path;
}

LogLevel log_level(const CommonOptions& o) {
  if (o.log_level == "error") return LogLevel::kError;
  if (o.log_level == "warn") return LogLevel::kWarn;
  if (o.log_level == "debug") return LogLevel::kDebug;
  return LogLevel::kInfo;
}

Result<EngineOptions> engine_options(const CommonOptions& o) {
  EngineOptions engine;
  auto path = model_path(o);
  if (!path) return path.error();
  engine.model_path = *path;
  BANYAN_TRY(check_threads(o));
  engine.n_threads = o.threads;
  if (o.context < 0 || o.context > (1 << 30)) {
    return bad_input(fmt::format("-c is {}, expected at least 1 (0: as trained)", o.context));
  }
  engine.context = o.context;
  if (!o.kv_budget.empty()) {
    const auto bytes = parse_bytes(o.kv_budget);
    if (!bytes || *bytes == 0) {
      return bad_input(fmt::format(
          "--kv-budget is \"{}\", expected bytes like 536870912, 512MiB or 2GiB", o.kv_budget));
    }
    engine.kv_budget_bytes = *bytes;
  }
  if (!o.panel_cache.empty()) {
    const auto bytes = parse_bytes(o.panel_cache);
    if (!bytes) {
      return bad_input(fmt::format(
          "--panel-cache is \"{}\", expected bytes like 536870912, 512MiB or 2GiB, or 0",
          o.panel_cache));
    }
    engine.panel_cache_bytes = *bytes;
  }
  auto k_type = parse_kv_type("-ctk", o.k_type);
  if (!k_type) return k_type.error();
  engine.k_type = *k_type;
  auto v_type = parse_kv_type("-ctv", o.v_type);
  if (!v_type) return v_type.error();
  engine.v_type = *v_type;
  if (o.compute != "auto" && o.compute != "f32") {
    return bad_input(fmt::format("--compute is \"{}\", expected auto or f32", o.compute));
  }
  engine.compute = o.compute == "f32" ? Compute::kF32 : Compute::kAuto;
  if (o.device != "auto" && o.device != "cpu") {
    return bad_input(
        fmt::format("--device is \"{}\", expected auto or cpu: this build has no other", o.device));
  }
  engine.deterministic = o.deterministic;
  auto speculation = parse_speculation(o.speculation);
  if (!speculation) return speculation.error();
  engine.speculation = *speculation;
  engine.draft_model_path = o.draft_model;
  auto isa = isa_from_environment();
  if (!isa) return isa.error();
  engine.isa = *isa;
  auto rope = rope_overrides(o);
  if (!rope) return rope.error();
  engine.rope = *rope;
  const auto levels = {"error", "warn", "info", "debug"};
  if (std::ranges::find(levels, o.log_level) == levels.end()) {
    return bad_input(
        fmt::format("--log-level is \"{}\", expected error, warn, info or debug", o.log_level));
  }
  auto folder = paths_folder(o);
  if (!folder) return folder.error();
  engine.cache_folder = *folder;
  return engine;
}

Result<std::unique_ptr<Engine>> open_engine(const CommonOptions& o, const EngineUse& use) {
  auto options = engine_options(o);
  if (!options) return options.error();
  options->with_tokenizer = use.with_tokenizer;
  if (!use.drafts && options->speculation != Speculation::kOff) {
    log_line(LogLevel::kWarn, log_level(o),
             fmt::format("warning: this command drafts nothing, so --spec {} is left out; run and "
                         "bench serve-trace draft",
                         o.speculation));
    options->speculation = Speculation::kOff;
    options->draft_model_path.clear();
  }
  auto engine = Engine::open(*options);
  if (!engine) return engine;
  const Engine& e = **engine;
  if (!e.note().empty()) log_line(LogLevel::kWarn, log_level(o), "warning: " + e.note());
  const uint64_t tokens = uint64_t{e.pool().capacity()} * kPanelTokens;
  log_line(LogLevel::kInfo, log_level(o),
           fmt::format("{} threads, {}, compute {}{}; KV budget {} ({} tokens), context {}",
                       e.options().n_threads, name(e.options().isa), o.compute,
                       o.deterministic ? ", deterministic" : "", format_bytes(e.memory().kv_budget),
                       tokens, e.context()));
  return engine;
}

}  // namespace banyan
