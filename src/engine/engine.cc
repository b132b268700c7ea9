// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/printable.h"
#include "engine/vocabulary.h"
#include "tensor/cpu/cpu_ops.h"

namespace banyan {
namespace {

Result<std::optional<ChatTemplate>> load_chat_template(const ModelFile& file,
                                                       const Tokenizer& tokenizer) {
  const Vocabulary& v = tokenizer.vocabulary();
  if (v.chat_template.empty()) return std::optional<ChatTemplate>();
  const auto text = [&](TokenId id) {
    return id < 0 ? std::string() : std::string(tokenizer.piece(id, Special::kParse));
  };
  auto parsed = ChatTemplate::create(v.chat_template, text(v.bos), text(v.eos));
  if (!parsed) {
    return bad_input(fmt::format("{}: chat template: {}", file.path(), parsed.error().message));
  }
  return std::optional<ChatTemplate>(*std::move(parsed));
}

// What the operations can multiply with; GGUF files may hold tensors of other types too.
Result<void> check_weight_types(const ModelFile& file) {
  for (const TensorInfo& tensor : file.tensors()) {
    if (can_be_weight(tensor.type)) continue;
    return bad_input(fmt::format("{}: tensor {} is {}, which cannot be a weight", file.path(),
                                 printable(tensor.name), type_info(tensor.type)->name));
  }
  return {};
}

// Positions that are learned end where their table ends.
Result<void> check_context(const ModelFile& file, const Hyperparameters& hp, int context) {
  if (hp.max_positions == 0 || context <= hp.max_positions) return {};
  return bad_input(fmt::format("-c is {}, but {} has embeddings for {} positions", context,
                               file.path(), hp.max_positions));
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(const EngineOptions& given) {
  EngineOptions options = given;
  auto file = ModelFile::open(options.model_path);
  if (!file) return file.error();
  BANYAN_TRY(check_weight_types(*file));
  auto model = load_model(*file, options.rope, options.context);
  if (!model) return model.error();
  BANYAN_TRY(check_context(*file, model->hp, options.context));
  std::optional<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;
  if (options.with_tokenizer) {
    // Folders bring tokens of other parts of a model along, such as Gemma 3's for images. Without a
    // row in the embedding they are no tokens here, and their text is text.
    auto loaded = load_tokenizer(*file, model->hp.vocab);
    if (!loaded) return loaded.error();
    if (loaded->size() > model->hp.vocab) {
      return bad_input(fmt::format("{}: the vocabulary has {} tokens, the embedding {} rows",
                                   file->path(), loaded->size(), model->hp.vocab));
    }
    auto parsed = load_chat_template(*file, *loaded);
    if (!parsed) return parsed.error();
    tokenizer = *std::move(loaded);
    chat_template = *std::move(parsed);
  }

  apply_isa_cap(options.isa);
  if (options.n_threads == 0) options.n_threads = ThreadPool::physical_cores();
  if (options.kv_budget_bytes == 0) options.kv_budget_bytes = available_memory() / 4;
  auto pool = PanelPool::create(kv_shapes(model->hp, options.k_type, options.v_type),
                                options.kv_budget_bytes);
  if (!pool) return pool.error();
  return std::unique_ptr<Engine>(new Engine(std::move(options), *std::move(file), *std::move(model),
                                            std::move(tokenizer), std::move(chat_template),
                                            *std::move(pool)));
}

Engine::Engine(EngineOptions options, ModelFile file, Model model,
               std::optional<Tokenizer> tokenizer, std::optional<ChatTemplate> chat_template,
               PanelPool pool)
    : options_(std::move(options)),
      context_binds_(options_.context > 0 || model.hp.max_positions > 0),
      file_(std::move(file)),
      model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      chat_template_(std::move(chat_template)),
      threads_(options_.n_threads, init_worker_thread),
      paths_(options_.deterministic || options_.compute == Compute::kF32
                 ? PathChoice()
                 : choose_paths(threads_, options_.isa, options_.cache_folder)),
      ops_(make_cpu_ops(threads_, {options_.compute, options_.deterministic, options_.isa,
                                   paths_.paths(), options_.panel_cache_bytes})),
      attention_(
          options_.attention == AttentionDevice::kCpu
              ? make_cpu_executor(threads_, {.isa = options_.isa,
                                             .bf16_products = options_.compute == Compute::kAuto &&
                                                              !options_.deterministic})
              : make_reference_executor()),
      pool_(std::move(pool)),
      tree_(pool_),
      steps_(model_, pool_, tree_,
             {ops_.get(), attention_.get(), options_.n_threads, options_.deterministic},
             options_.plan_method, options_.max_rows),
      scheduler_(pool_, tree_, steps_,
                 options_.k_type != DType::kQ8_0 && options_.v_type != DType::kQ8_0,
                 options_.retention) {
  if (options_.context == 0) options_.context = model_.hp.context_length;
}

Engine::~Engine() = default;

const Tokenizer& Engine::tokenizer() const {
  BANYAN_CHECK(tokenizer_.has_value(), "an engine that was opened with its tokenizer");
  return *tokenizer_;
}

Result<std::vector<TokenId>> Engine::encode(std::string_view text, Special special, bool bos,
                                            bool eos) const {
  const Vocabulary& v = tokenizer().vocabulary();
  auto tokens = tokenizer().encode(text, special);
  if (!tokens) return bad_input(fmt::format("{}: {}", file_.path(), tokens.error().message));
  if (bos && v.add_bos && v.bos >= 0) {
    tokens->insert(tokens->begin(), v.more_begins.begin(), v.more_begins.end());
    tokens->insert(tokens->begin(), v.bos);
  }
  if (eos && v.add_eos && v.eos >= 0) tokens->push_back(v.eos);
  return tokens;
}

Result<std::vector<TokenId>> Engine::encode_chat(std::span<const ChatMessage> messages) const {
  if (!chat_template_) {
    return bad_input(
        fmt::format("{} has no chat template; give the text as it is with --raw", file_.path()));
  }
  auto text = chat_template_->render(messages, /*add_generation_prompt=*/true);
  if (!text) {
    return bad_input(fmt::format("{}: chat template: {}", file_.path(), text.error().message));
  }
  // Most templates write BOS themselves; it must not stand there twice.
  const Vocabulary& v = tokenizer().vocabulary();
  auto tokens = encode(*text, Special::kParse, /*bos=*/false, /*eos=*/false);
  if (tokens && v.add_bos && v.bos >= 0 && (tokens->empty() || tokens->front() != v.bos)) {
    tokens->insert(tokens->begin(), v.bos);
  }
  return tokens;
}

MemoryUse Engine::memory() const {
  return {file_.file_bytes(),
          pool_.budget_bytes(),
          pool_.peak_bytes(),
          steps_.activation_bytes(),
          ops_->scratch_bytes() + attention_->workspace_bytes(),
          options_.panel_cache_bytes,
          ops_->panel_cache_bytes()};
}

}  // namespace banyan
