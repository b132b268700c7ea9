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

// A model with its tokenizer, where options.with_tokenizer.
struct Loaded {
  ModelFile file;
  Model model;
  std::optional<Tokenizer> tokenizer;
};

Result<Loaded> load(const std::string& path, const RopeOverrides& rope,
                    const EngineOptions& options) {
  auto file = ModelFile::open(path);
  if (!file) return file.error();
  BANYAN_TRY(check_weight_types(*file));
  auto model = load_model(*file, rope, options.context);
  if (!model) return model.error();
  BANYAN_TRY(check_context(*file, model->hp, options.context));
  std::optional<Tokenizer> tokenizer;
  if (options.with_tokenizer) {
    // Folders bring tokens of other parts of a model along, such as Gemma 3's for images. Without a
    // row in the embedding they are no tokens here, and their text is text.
    auto loaded = load_tokenizer(*file, model->hp.vocab);
    if (!loaded) return loaded.error();
    if (loaded->size() > model->hp.vocab) {
      return bad_input(fmt::format("{}: the vocabulary has {} tokens, the embedding {} rows",
                                   file->path(), loaded->size(), model->hp.vocab));
    }
    tokenizer = *std::move(loaded);
  }
  return Loaded{*std::move(file), *std::move(model), std::move(tokenizer)};
}

Result<void> check_speculation(const EngineOptions& options) {
  const bool has_model = !options.draft_model_path.empty();
  const Speculation from = options.speculation;
  if (from == Speculation::kDraft && !has_model) {
    return bad_input("--spec draft needs a model that drafts: give -md FILE");
  }
  if (has_model && from != Speculation::kDraft && from != Speculation::kAuto) {
    return bad_input(fmt::format("-md {} is for --spec draft or auto; give one of these",
                                 options.draft_model_path));
  }
  return {};
}

Result<void> check_same_tokens(const Loaded& model, const Loaded& draft) {
  const auto refuse = [&](const std::string& what) {
    return bad_input(fmt::format("-md {} has other tokens than {}: {}; give a model with the same",
                                 draft.file.path(), model.file.path(), what));
  };
  const Tokenizer& want = *model.tokenizer;
  const Tokenizer& found = *draft.tokenizer;
  if (found.size() != want.size()) {
    return refuse(fmt::format("{} instead of {}", found.size(), want.size()));
  }
  for (TokenId token = 0; token < want.size(); ++token) {
    const std::string_view there = want.piece(token, Special::kParse);
    const std::string_view here = found.piece(token, Special::kParse);
    if (here == there) continue;
    return refuse(fmt::format("token {} is \"{}\" instead of \"{}\"", token, printable(here),
                              printable(there)));
  }
  return {};
}

uint64_t panel_bytes(std::span<const KvShape> shapes) {
  uint64_t bytes = 0;
  for (const KvShape& shape : shapes) bytes += shape.panel_bytes();
  return bytes;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(const EngineOptions& given) {
  EngineOptions options = given;
  auto loaded = load(options.model_path, options.rope, options);
  if (!loaded) return loaded.error();
  std::optional<ChatTemplate> chat_template;
  if (loaded->tokenizer) {
    auto parsed = load_chat_template(loaded->file, *loaded->tokenizer);
    if (!parsed) return parsed.error();
    chat_template = *std::move(parsed);
  }
  BANYAN_TRY(check_speculation(options));
  std::optional<Loaded> draft;
  if (loaded->tokenizer && !options.draft_model_path.empty()) {
    auto smaller = load(options.draft_model_path, {}, options);
    if (!smaller) return smaller.error();
    BANYAN_TRY(check_same_tokens(*loaded, *smaller));
    draft = *std::move(smaller);
  }

  apply_isa_cap(options.isa);
  if (options.n_threads == 0) options.n_threads = ThreadPool::physical_cores();
  if (options.kv_budget_bytes == 0) options.kv_budget_bytes = available_memory() / 4;
  const auto shapes = kv_shapes(loaded->model.hp, options.k_type, options.v_type);
  uint64_t budget = options.kv_budget_bytes;
  std::optional<DraftParts> parts;
  if (draft) {
    // Shares of the budget that hold as many tokens.
    const auto draft_shapes = kv_shapes(draft->model.hp, options.k_type, options.v_type);
    const auto bytes = static_cast<double>(panel_bytes(shapes));
    const auto draft_bytes = static_cast<double>(panel_bytes(draft_shapes));
    budget = static_cast<uint64_t>(static_cast<double>(budget) * bytes / (bytes + draft_bytes));
    auto pool = PanelPool::create(draft_shapes, options.kv_budget_bytes - budget);
    if (!pool) return pool.error();
    parts.emplace(DraftParts{std::move(draft->file), std::move(draft->model), *std::move(pool)});
  }
  auto pool = PanelPool::create(shapes, budget);
  if (!pool) return pool.error();
  return std::unique_ptr<Engine>(new Engine(
      std::move(options), std::move(loaded->file), std::move(loaded->model),
      std::move(loaded->tokenizer), std::move(chat_template), *std::move(pool), std::move(parts)));
}

Engine::Engine(EngineOptions options, ModelFile file, Model model,
               std::optional<Tokenizer> tokenizer, std::optional<ChatTemplate> chat_template,
               PanelPool pool, std::optional<DraftParts> draft)
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
                                             .pair_products = options_.compute == Compute::kAuto &&
                                                              !options_.deterministic})
              : make_reference_executor()),
      pool_(std::move(pool)),
      tree_(pool_),
      steps_(model_, pool_, tree_, step_device(), options_.plan_method, options_.max_rows),
      draft_model_(draft ? std::make_unique<DraftModel>(
                               std::move(draft->file), std::move(draft->model),
                               std::move(draft->pool), tokenizer_->size(), step_device(),
                               options_.plan_method, options_.max_rows)
                         : nullptr),
      scheduler_(pool_, tree_, steps_,
                 options_.k_type != DType::kQ8_0 && options_.v_type != DType::kQ8_0,
                 options_.retention, options_.speculation, draft_model_.get()) {
  if (options_.context == 0) options_.context = model_.hp.context_length;
}

Engine::~Engine() = default;

StepDevice Engine::step_device() const {
  return {ops_.get(), attention_.get(), options_.n_threads, options_.deterministic};
}

StepRunner Engine::make_steps(PlanMethod method, int32_t block, int max_rows) {
  StepDevice device = step_device();
  device.block = block;
  return StepRunner(model_, pool_, tree_, device, method, max_rows);
}

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
  MemoryUse use = {file_.file_bytes(),
                   pool_.budget_bytes(),
                   pool_.peak_bytes(),
                   steps_.activation_bytes(),
                   ops_->scratch_bytes() + attention_->workspace_bytes(),
                   options_.panel_cache_bytes,
                   ops_->panel_cache_bytes()};
  if (draft_model_ != nullptr) {
    use.weights += draft_model_->weight_bytes();
    use.kv_budget += draft_model_->pool().budget_bytes();
    use.kv_peak += draft_model_->pool().peak_bytes();
    use.activations += draft_model_->activation_bytes();
  }
  return use;
}

}  // namespace banyan
