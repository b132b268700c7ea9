// SPDX-License-Identifier: Apache-2.0
#pragma once
// A smaller model that goes ahead of the one that answers: it drafts what is likeliest, greedily,
// and beside each token those that come next for it. It has KV of its own and shares workers and
// operations with the other, between whose steps it takes its own.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/function_ref.h"
#include "engine/step.h"
#include "engine/step_time.h"
#include "files/model_file.h"
#include "sample/draft/acceptance.h"
#include "sample/draft/draft.h"

namespace banyan {

// Not thread safe.
class DraftModel {
 public:
  // A text that it drafts for.
  class Text {
   public:
    Text();
    // Share of the tokens drafted for it that were right; assumed where there are few.
    double typical_rate() const { return typical_; }

   private:
    friend class DraftModel;
    static constexpr size_t kOthers = 2;
    struct Other {
      TokenId token;
      int level;
    };
    SeqId seq_ = kNoSequence;
    size_t base_ = 0;               // tokens that it had when it was last drafted for
    std::vector<TokenId> drafted_;  // then; all but the last of them have KV
    std::vector<int> levels_;       // what spoke for them
    std::vector<std::array<Other, kOthers>> others_;  // that came next for the model, at each place
    uint32_t last_ = Draft::kText;                    // place of the last of them in the draft
    Acceptance acceptance_;
    std::array<Acceptance, kOthers> other_acceptance_;  // given that what came before is wrong
    double typical_;
  };
  struct Asked {
    Text* text = nullptr;
    std::span<const TokenId> tokens;  // all that it has; at least one
    uint64_t salt = 0;                // of KvScope
    size_t most = 0;                  // tokens of the chain
    Draft* draft = nullptr;           // out; left as it is where nothing is drafted
  };

  // `file` is the model's; tokens are below `vocabulary`.
  DraftModel(ModelFile file, Model model, PanelPool pool, int32_t vocabulary, StepDevice device,
             PlanMethod method, int max_rows);
  DraftModel(const DraftModel&) = delete;
  DraftModel& operator=(const DraftModel&) = delete;

  // Drafts for each text a chain, a token at a time while pays(gain, ms) says so, and at each place
  // of it what else might come there. gain: probability that the chain's next token is accepted;
  // ms: what it takes. What the KV budget cannot hold gets no draft.
  // Requires distinct texts, at most max_rows of them.
  void draft(std::span<const Asked> asked, FunctionRef<bool(double gain, double ms)> pays);

  // The text ends, or waits: its KV is cache from now on.
  void close(Text& text);

  const PanelPool& pool() const { return pool_; }
  uint64_t weight_bytes() const { return file_.file_bytes(); }
  uint64_t activation_bytes() const { return steps_.activation_bytes(); }

 private:
  size_t max_rows() const { return static_cast<size_t>(steps_.max_rows()); }
  void settle(const Asked& asked);
  static size_t compare(Text& text, std::span<const TokenId> came);
  void take_up(const Asked& asked, std::span<const float> logits);
  bool catch_up(const Asked& asked, size_t most_left);
  bool step();
  void give_up(Text& text, int32_t length);

  ModelFile file_;
  Model model_;
  PanelPool pool_;
  KvTree tree_;
  int32_t vocabulary_;
  StepRunner steps_;
  StepTimeModel time_;

  // Scratch of a draft, kept for its capacity.
  std::vector<const Asked*> going_;
  std::vector<Piece> pieces_;     // by place in going_, as what follows
  std::vector<uint32_t> last_;    // index of a piece's last token
  std::vector<int32_t> lengths_;  // before the step
};

}  // namespace banyan
