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

#include "base/result.h"
#include "engine/draft_model.h"
#include "engine/options.h"
#include "engine/path_choice.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/step.h"
#include "files/model_file.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace banyan {

class CpuOps;

// Where the bytes of a running engine are.
struct MemoryUse {
  uint64_t weights = 0;      // the mapped files
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

  // Puts a request into the line; nothing is computed yet. kBadInput for a prompt that does not fit
  // the context or the KV budget, and for values out of range. Any number may wait.
  Result<RequestId> submit(Request request, const Listener& listener = {});

  // One forward pass over all requests that have their turn; appends those that are complete with
  // it: an error of one is no error of the others. False when nothing is left to do. An exception
  // of a listener ends its request without a completion and leaves step() when the pass is done.
  bool step(std::vector<Completion>& finished);

  // Ends a request, in any phase, with the next step: FinishReason::kCancelled and what there is.
  // Does nothing for one that is complete.
  void cancel(RequestId id) { scheduler_.cancel(id); }

  // submit(), and steps until that request is complete; others that were submitted go on with it,
  // and what is complete of them comes with the next step(). Must not be called by a listener.
  Result<Reply> generate(const Request& request, const Listener& listener = {});

  // What a request would find in the cache if it were taken up now, and if not all, why. Computes
  // nothing and changes nothing. kBadInput as submit().
  Result<CacheFacts> explain(const Request& request) const;

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
  bool context_binds() const { return context_binds_; }  // no answer may pass it
  MemoryUse memory() const;
  const std::string& note() const { return paths_.note; }  // what to warn of; usually empty
  const PanelPool& pool() const { return pool_; }

  // For those who drive steps themselves: searches, evaluation, benchmarks.
  PanelPool& pool() { return pool_; }
  KvTree& tree() { return tree_; }
  StepRunner& steps() { return steps_; }
  // Another runner of steps of this tree, for those who compare ways to plan them; `block` as
  // DeviceDescription::block. The engine must outlive it.
  StepRunner make_steps(PlanMethod method, int32_t block, int max_rows);
  ThreadPool& threads() { return threads_; }
  const Scheduler& scheduler() const { return scheduler_; }

 private:
  // What a draft model is made of.
  struct DraftParts {
    ModelFile file;
    Model model;
    PanelPool pool;
  };
  Engine(EngineOptions options, ModelFile file, Model model, std::optional<Tokenizer> tokenizer,
         std::optional<ChatTemplate> chat_template, PanelPool pool,
         std::optional<DraftParts> draft);
  Result<void> check(const Request& request) const;
  StepDevice step_device() const;

  EngineOptions options_;
  bool context_binds_;
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
  std::unique_ptr<DraftModel> draft_model_;  // may be null
  Scheduler scheduler_;
  std::vector<Completion> completed_;  // in generate(), of other requests
};

}  // namespace banyan
