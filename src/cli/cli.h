// SPDX-License-Identifier: Apache-2.0
#pragma once
// The door for people and scripts: `banyan COMMAND ..`. Each command lives in a file of its own;
// this header is what they share.

#include <CLI/App.hpp>
#include <memory>
#include <string>

#include "base/result.h"
#include "engine/engine.h"
#include "openai/reply.h"

namespace banyan {

// The whole program; returns its exit code: 0 done, 1 failed while running, 2 bad usage or input.
int cli_main(int argc, char** argv);

// How much is said on stderr.
enum class LogLevel { kError, kWarn, kInfo, kDebug };

// Options that every command has.
struct CommonOptions {
  std::string model;
  std::string hub_model;
  int threads = 0;
  int context = 0;
  std::string kv_budget;
  std::string panel_cache;
  std::string k_type = "f16";
  std::string v_type = "f16";
  std::string compute = "auto";
  std::string device = "auto";
  std::string speculation = "off";
  std::string draft_model;
  std::string log_level = "info";
  bool deterministic = false;
  bool json = false;
  std::string rope_scaling;
  double rope_scale = 0;
  double rope_freq_base = 0;
  int yarn_orig_ctx = 0;
  double yarn_ext_factor = -1;
  double yarn_attn_factor = -1;
  double yarn_beta_slow = -1;
  double yarn_beta_fast = -1;
};

// One command: its options are added to `app`; `action` runs after they were parsed.
struct Command {
  std::unique_ptr<CLI::App> app;
  std::function<Result<int>()> action;
};

Command run_command();
Command explain_command();
Command search_beam_command();
Command search_best_of_command();
Command search_thoughts_command();
Command search_monte_carlo_command();
Command tokenize_command();
Command inspect_command();
Command eval_logits_command();
Command eval_perplexity_command();
Command bench_decode_command();
Command bench_prefill_command();
Command bench_attention_command();
Command bench_tree_command();
Command bench_serve_trace_command();

// --- common_options.cc
// -m, --json and --log-level; with `engine`, all that CommonOptions holds.
void add_common_options(CLI::App& app, CommonOptions& options, bool engine);
Result<EngineOptions> engine_options(const CommonOptions& options);
// Path of the model: -m as given, or what -hf names in a local cache, else the default model's
// place in the cache folder.
Result<std::string> model_path(const CommonOptions& options);
// Where this program keeps things: $XDG_CACHE_HOME/banyan or ~/.cache/banyan; "" without a home.
std::string cache_folder();
// Where the measured paths of products are kept; "" where BANYAN_PATHS=default forbids them, or
// without a home, of which it warns if such paths would be taken.
Result<std::string> paths_folder(const CommonOptions& options);
// kBadInput names the option.
Result<void> check_range(const char* option, int value, int least, int most);
Result<void> check_threads(const CommonOptions& options);
// Highest instruction set to use: the machine's, capped by BANYAN_ISA.
Result<Isa> isa_from_environment();
// What a command has an engine for.
struct EngineUse {
  bool with_tokenizer = true;  // false: token ids only
  bool drafts = true;  // false: its steps are its own, so it warns of --spec and leaves it out
};
// engine_options and Engine::open, and a line that says what was opened.
Result<std::unique_ptr<Engine>> open_engine(const CommonOptions& options,
                                            const EngineUse& use = {});
LogLevel log_level(const CommonOptions& options);
// A value of --method, for any number of sequences.
Result<PlanMethod> parse_plan_method(const std::string& text);
Result<DType> parse_kv_type(const std::string& option, const std::string& text);

// --- prompt.cc
// What is asked, and how: -p or -f, -sys, --raw.
struct PromptOptions {
  std::optional<std::string> text;
  std::string file;
  std::string system;
  bool raw = false;
};
void add_prompt_options(CLI::App& app, PromptOptions& options);
// kBadInput where both are.
Result<bool> prompt_given(const PromptOptions& options);
// The text that -p or -f give, through the chat template unless --raw.
Result<std::vector<TokenId>> prompt_tokens(const Engine& engine, const PromptOptions& options);

// --- sampler_options.cc
// How tokens are chosen.
struct SamplerOptions {
  SamplerParams params;
  std::vector<std::string> logit_bias;  // as typed
  int64_t seed = -1;                    // -1: a new one each time
};
void add_sampler_options(CLI::App& app, SamplerOptions& options);
Result<SamplerParams> sampler_params(const SamplerOptions& options);
void add_stop_option(CLI::App& app, std::vector<std::string>& stop);
Result<void> check_stop(const std::vector<std::string>& stop);

// --- output.cc
// One JSON document on one line of stdout. Text that is not UTF-8 gets U+FFFD.
void print_json(const Json& json);
// "banyan: .." on stderr, if `level` is to be said.
void log_line(LogLevel said, LogLevel level, const std::string& text);
// The whole file, or standard input for "-". kBadInput names the path.
Result<std::string> read_text_file(const std::string& path);
// The tokens' KV budget, memory parts and peak resident memory as one sentence.
std::string memory_sentence(const MemoryUse& use);
Json memory_json(const MemoryUse& use);
// count / seconds, 0 where no time passed.
double per_second(double count, double ms);

// A line on a terminal's stderr that rewrites itself; nothing where stderr is no terminal.
class ProgressLine {
 public:
  explicit ProgressLine(bool enabled);
  ~ProgressLine();  // clears the line
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  void show(const std::string& text);
  void clear();

 private:
  bool enabled_;
  bool shown_ = false;
};

// How far long work is: such a line five times a second, or where stderr is no terminal a line of
// its own every minute.
class SlowProgress {
 public:
  explicit SlowProgress(LogLevel level);
  void show(FunctionRef<std::string()> text);

 private:
  LogLevel level_;
  ProgressLine line_;
  int64_t shown_ns_;
};

// Turns Ctrl-C into a question while it lives: interrupted() says whether it came, once.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  static bool take();  // true if Ctrl-C came since the last call
};

// --- batch.cc
// Answers the requests of a file, each line one of OpenAI's batch requests, in another, each line
// one of its results, in their order; goes on where such a file ends already. Returns the exit
// code: 1 if any request failed.
Result<int> run_batch(const CommonOptions& options, const std::string& in, const std::string& out);

// --- chat.cc
struct ChatOptions {
  std::string system;
  SamplerParams sampler;
  int max_tokens = -1;
  std::vector<std::string> stop;
};
// Reads lines and answers them until end of input.
Result<int> chat(Engine& engine, const ChatOptions& options);

}  // namespace banyan
