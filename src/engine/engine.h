// SPDX-License-Identifier: Apache-2.0
#pragma once
// The engine: a model, its KV and its workers behind one object. Requests go in, replies come out.
// Not thread safe: one thread drives an engine; all parallelism is inside.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "base/result.h"
#include "engine/options.h"
#include "engine/path_choice.h"
#include "engine/step.h"
#include "files/model_file.h"
#include "sample/sampler.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace banyan {

class CpuOps;

struct Request {
  std::vector<TokenId> prompt;  // at least one token
  SamplerParams sampler;
  int max_tokens = 128;           // -1: until the context is full
  bool ignore_eos = false;        // tokens that end a text are never chosen
  std::vector<std::string> stop;  // generation ends where one of these would be written
};

enum class FinishReason { kStop, kLength, kCancelled };
std::string_view name(FinishReason reason);

struct Reply {
  std::string text;
  std::vector<TokenId> tokens;  // the generated ones; a token that ended the text is not among them
  std::vector<float> logprobs;  // of the model, for each token
  std::vector<std::vector<TokenLogprob>> top_logprobs;  // for each token, if asked for
  FinishReason finish = FinishReason::kStop;
  int prompt_tokens = 0;
  int cached_tokens = 0;  // of the prompt, whose KV was there already
  double prompt_ms = 0;   // until the first token was chosen
  double predicted_ms = 0;
  uint64_t kv_bytes_peak = 0;
  bool kv_exact = true;  // false: K or V were rounded to 8 bits (q8_0)
  std::string note;      // why a reply ended early, where nobody asked it to; usually empty
};

// Called on the driving thread.
struct Listener {
  // Each generated token with the text that became printable with it, which may be empty; at the
  // end kNoToken with what was held back, if any. Returning false ends the reply (kCancelled); it
  // is not called again then. May be null.
  const FunctionRef<bool(TokenId, const std::string&)>* on_token = nullptr;
  // Prompt tokens done so far, of all; returning false cancels. May be null.
  const FunctionRef<bool(int done, int total)>* on_prompt = nullptr;
};

// Where the bytes of a running engine are.
struct MemoryUse {
  uint64_t weights = 0;      // the mapped file
  uint64_t kv_budget = 0;    // most that KV may take
  uint64_t kv_peak = 0;      // most that it took
  uint64_t activations = 0;  // of a step of max_rows rows, and logits
  uint64_t scratch = 0;      // weight slices, attention states
  uint64_t panels_most = 0;  // most that weights kept expanded may take
  uint64_t panels = 0;       // what they take
};

class Engine {
 public:
  static Result<std::unique_ptr<Engine>> open(const EngineOptions& options);
  ~Engine();

  // Runs one request. kBadInput for a prompt that does not fit the context or the KV budget;
  // kCancelled is no error but Reply::finish.
  Result<Reply> generate(const Request& request, const Listener& listener = {});

  // The text's tokens, between BOS and EOS where they are asked for and the model's file wants
  // them. kBadInput where an expression of the model's tokenizer takes too long for the text.
  Result<std::vector<TokenId>> encode(std::string_view text, Special special, bool bos,
                                      bool eos) const;
  // A prompt's tokens: BOS where the model's file asks for one, then the text. The text of a chat
  // template brings its own special tokens.
  Result<std::vector<TokenId>> encode_raw(std::string_view text) const {
    return encode(text, Special::kParse, /*bos=*/true, /*eos=*/false);
  }
  // The messages through the model's chat template, ready for the answer.
  Result<std::vector<TokenId>> encode_chat(std::span<const ChatMessage> messages) const;

  const EngineOptions& options() const { return options_; }  // resolved: no zeros for "default"
  const Model& model() const { return model_; }
  const Tokenizer& tokenizer() const;  // requires EngineOptions::with_tokenizer
  int context() const;                 // positions a sequence may have; as trained where not given
  MemoryUse memory() const;
  const std::string& note() const { return paths_.note; }  // what to warn of; usually empty
  const PanelPool& pool() const { return pool_; }

  // For evaluation and benchmarks, which drive steps themselves.
  KvTree& tree() { return tree_; }
  StepRunner& steps() { return steps_; }

 private:
  Engine(EngineOptions options, ModelFile file, Model model, std::optional<Tokenizer> tokenizer,
         std::optional<ChatTemplate> chat_template, PanelPool pool);
  Result<void> admit(const Request& request) const;
  Result<bool> prefill(SeqId seq, std::span<const TokenId> rest, int cached,
                       const Listener& listener);

  EngineOptions options_;
  bool context_binds_;  // no answer may pass it
  ModelFile file_;
  Model model_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> chat_template_;
  ThreadPool threads_;
  PathChoice paths_;
  std::unique_ptr<CpuOps> ops_;
  std::unique_ptr<AttentionExecutor> attention_;
  PanelPool pool_;
  KvTree tree_;
  StepRunner steps_;
};

}  // namespace banyan
