// SPDX-License-Identifier: Apache-2.0
// The C API (include/banyan/banyan.h) over the engine: arguments are checked, calls that compute
// take turns, Results and exceptions become banyan_errors.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <thread>

#include "banyan/banyan.h"
#include "engine/engine.h"
#include "engine/evaluate.h"
#include "engine/search.h"

struct banyan_error {  // NOLINT(readability-identifier-naming): C's names
  banyan::Error error;
};

struct banyan_search;

struct banyan_model {  // NOLINT(readability-identifier-naming)
  explicit banyan_model(std::unique_ptr<banyan::Engine> opened) : engine(std::move(opened)) {}
  ~banyan_model();

  const std::unique_ptr<banyan::Engine> engine;
  std::mutex turn;                           // held by the call that computes
  std::atomic<std::thread::id> computing{};  // that call's thread
  std::atomic<uint64_t> n_cancels{0};        // calls of banyan_cancel() so far
  // Freed by callbacks, in the middle of a step; they end with the next one that is freed.
  std::vector<std::unique_ptr<banyan_search>> freed_searches;
};

struct banyan_search {  // NOLINT(readability-identifier-naming)
  banyan_model& model;
  banyan::Search search;
};

banyan_model::~banyan_model() = default;

namespace banyan {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kMaxContext = 1 << 30;
constexpr uint32_t kMaxStructSize = 4096;  // a larger struct_size is garbage

// Given where there is no memory for another; never changed.
banyan_error out_of_memory;
constexpr const char* kOutOfMemory = "there is not enough memory";

// Runs `f`, which returns a Result<void>, and hands over what went wrong.
template <class F>
banyan_error* guarded(F f) {
  try {
    try {
      const Result<void> result = f();
      return result ? nullptr : new banyan_error{result.error()};
    } catch (const std::bad_alloc&) {
      return &out_of_memory;
    } catch (const std::exception& error) {
      return new banyan_error{failed(fmt::format("an exception was thrown: {}", error.what()))};
    } catch (...) {
      return new banyan_error{failed("an exception was thrown")};
    }
  } catch (const std::bad_alloc&) {
    return &out_of_memory;
  }
}

struct Argument {
  const char* name;
  const void* pointer;
  size_t n = 1;  // of nothing there is no pointer
};

Result<void> check_given(const char* function, std::initializer_list<Argument> arguments) {
  for (const Argument& argument : arguments) {
    if (argument.pointer != nullptr || argument.n == 0) continue;
    return bad_input(fmt::format("{}: {} is NULL, and must not be", function, argument.name));
  }
  return {};
}

// Defaults for whoever knows `size` bytes of the struct.
template <class Options>
void init_options(Options* options, size_t size, const Options& defaults) {
  if (options == nullptr || size < sizeof defaults.struct_size) return;
  std::memset(options, 0, size);
  std::memcpy(options, &defaults, std::min(size, sizeof defaults));
  options->struct_size = static_cast<uint32_t>(size);
}

// The caller's options as this library knows them: defaults where the caller's struct is an older
// one, which held at least `first_size` bytes; an error where it is a newer one and sets more.
template <class Options>
Result<Options> read_options(const Options* given, const char* name, size_t first_size,
                             const Options& defaults) {
  Options options = defaults;
  if (given == nullptr) return options;
  const uint32_t size = given->struct_size;
  if (size < first_size || size > kMaxStructSize) {
    return bad_input(
        fmt::format("struct_size of {} is {}, expected {}; set it with its init "
                    "function",
                    name, size, sizeof options));
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (size_t i = sizeof options; i < size; ++i) {
    if (bytes[i] == 0) continue;
    return bad_input(fmt::format("{} sets an option that this library, version {}, does not have",
                                 name, BANYAN_VERSION));
  }
  std::memcpy(&options, given, std::min<size_t>(size, sizeof options));
  return options;
}

banyan_model_options default_model_options() {
  banyan_model_options options{};
  options.struct_size = sizeof options;
  return options;
}

banyan_generate_options default_generate_options() {
  const Request request;
  const SamplerParams& sampler = request.sampler;
  banyan_generate_options options{};
  options.struct_size = sizeof options;
  options.max_tokens = request.max_tokens;
  options.temperature = sampler.temperature;
  options.top_k = sampler.top_k;
  options.top_p = sampler.top_p;
  options.min_p = sampler.min_p;
  options.typical_p = sampler.typical_p;
  options.repeat_penalty = sampler.repeat_penalty;
  options.presence_penalty = sampler.presence_penalty;
  options.frequency_penalty = sampler.frequency_penalty;
  options.repeat_last_n = sampler.repeat_last_n;
  options.n = request.n;
  options.best_of = request.best_of;
  return options;
}

Result<void> check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return {};
  const std::string range =
      low == high ? fmt::format("{}", low) : fmt::format("{} to {}", low, high);
  return bad_input(fmt::format("{} is {}, expected {}", name, value, range));
}

Result<EngineOptions> engine_options(const char* path, const banyan_model_options* given) {
  constexpr size_t kFirstSize = offsetof(banyan_model_options, kv_budget_bytes) + sizeof(uint64_t);
  const auto options =
      read_options(given, "banyan_model_options", kFirstSize, default_model_options());
  if (!options) return options.error();
  BANYAN_TRY(check_range("n_threads", options->n_threads, 0, kMaxThreads));
  BANYAN_TRY(check_range("context", options->context, 0, kMaxContext));
  BANYAN_TRY(check_range("compute", options->compute, BANYAN_COMPUTE_AUTO, BANYAN_COMPUTE_F32));
  BANYAN_TRY(check_range("kv_type", options->kv_type, BANYAN_KV_F16, BANYAN_KV_Q8_0));
  BANYAN_TRY(check_range("speculation", options->speculation, BANYAN_SPECULATION_OFF,
                         BANYAN_SPECULATION_DRAFT));
  BANYAN_TRY(check_range("reserved", options->reserved, 0, 0));
  EngineOptions engine;
  engine.model_path = path;
  engine.n_threads = options->n_threads;
  engine.context = options->context;
  engine.compute = options->compute == BANYAN_COMPUTE_F32 ? Compute::kF32 : Compute::kAuto;
  engine.k_type = options->kv_type == BANYAN_KV_F32    ? DType::kF32
                  : options->kv_type == BANYAN_KV_BF16 ? DType::kBF16
                  : options->kv_type == BANYAN_KV_Q8_0 ? DType::kQ8_0
                                                       : DType::kF16;
  engine.v_type = engine.k_type;
  engine.deterministic = options->deterministic != 0;
  engine.kv_budget_bytes = options->kv_budget_bytes;
  engine.speculation = options->speculation == BANYAN_SPECULATION_AUTO     ? Speculation::kAuto
                       : options->speculation == BANYAN_SPECULATION_LOOKUP ? Speculation::kLookup
                       : options->speculation == BANYAN_SPECULATION_DRAFT  ? Speculation::kDraft
                                                                           : Speculation::kOff;
  if (options->draft_model_path != nullptr) engine.draft_model_path = options->draft_model_path;
  return engine;
}

Result<Request> request_of(const char* function, std::span<const TokenId> prompt,
                           const banyan_generate_options& o) {
  BANYAN_TRY(check_given(
      function, {{"stop", o.stop, o.n_stop}, {"logit_bias", o.logit_bias, o.n_logit_bias}}));
  BANYAN_TRY(check_range("max_tokens", o.max_tokens, -1, INT32_MAX));
  Request request;
  request.prompt.assign(prompt.begin(), prompt.end());
  request.max_tokens = o.max_tokens;
  request.ignore_eos = o.ignore_eos != 0;
  request.n = o.n;
  request.best_of = o.best_of;
  request.salt = o.salt;
  SamplerParams& sampler = request.sampler;
  sampler.temperature = o.temperature;
  sampler.top_k = o.top_k;
  sampler.top_p = o.top_p;
  sampler.min_p = o.min_p;
  sampler.typical_p = o.typical_p;
  sampler.repeat_penalty = o.repeat_penalty;
  sampler.presence_penalty = o.presence_penalty;
  sampler.frequency_penalty = o.frequency_penalty;
  sampler.repeat_last_n = o.repeat_last_n;
  sampler.seed = o.seed;
  for (const banyan_logit_bias& bias : std::span(o.logit_bias, o.n_logit_bias)) {
    sampler.logit_bias.emplace_back(bias.token, bias.bias);
  }
  for (const char* stop : std::span(o.stop, o.n_stop)) {
    if (stop == nullptr || *stop == '\0') return bad_input("a stop string is empty");
    request.stop.emplace_back(stop);
  }
  return request;
}

Result<banyan_generate_options> generate_options(const banyan_generate_options* given) {
  constexpr size_t kFirstSize = offsetof(banyan_generate_options, user) + sizeof(void*);
  return read_options(given, "banyan_generate_options", kFirstSize, default_generate_options());
}

// Runs `f`, which takes a bool() that says whether banyan_cancel() came, when it is its turn.
template <class F>
Result<void> in_turn(banyan_model& model, const char* function, F f) {
  if (model.computing == std::this_thread::get_id()) {
    return bad_input(fmt::format("{} was called from a callback of the same model", function));
  }
  const uint64_t before = model.n_cancels;
  const std::lock_guard lock(model.turn);
  struct Computing {
    std::atomic<std::thread::id>& thread;
    ~Computing() { thread = std::thread::id(); }
  } const computing{model.computing};
  model.computing = std::this_thread::get_id();
  return f([&model, before] { return model.n_cancels != before; });
}

// For callers that free it with banyan_free().
template <class T>
T* copied(std::span<const T> items) {
  void* copy = std::malloc(items.size_bytes() + 1);
  if (copy == nullptr) throw std::bad_alloc();
  if (!items.empty()) std::memcpy(copy, items.data(), items.size_bytes());
  return static_cast<T*>(copy);
}

void give_tokens(const std::vector<TokenId>& from, int32_t** tokens, size_t* n_tokens) {
  *tokens = copied(std::span(from));
  *n_tokens = from.size();
}

Special special(uint32_t flags) {
  return (flags & BANYAN_SPECIAL) != 0 ? Special::kParse : Special::kPlain;
}

int32_t finish_reason_of(FinishReason finish) {
  return finish == FinishReason::kStop     ? BANYAN_FINISH_STOP
         : finish == FinishReason::kLength ? BANYAN_FINISH_LENGTH
                                           : BANYAN_FINISH_CANCELLED;
}

// What both banyan_reply and banyan_sample have of an answer.
template <class Out>
void show_sample(const Sample& sample, Out& out) {
  out.struct_size = sizeof(Out);
  out.finish_reason = finish_reason_of(sample.finish);
  out.text = sample.text.c_str();
  out.text_bytes = sample.text.size();
  out.tokens = sample.tokens.data();
  out.logprobs = sample.logprobs.data();
  out.n_tokens = sample.tokens.size();
  out.note = sample.note.c_str();
}

// What a banyan_cache_facts points into lives with it.
struct OwnedCacheFacts : banyan_cache_facts {
  explicit OwnedCacheFacts(CacheFacts given) : banyan_cache_facts{}, facts(std::move(given)) {
    struct_size = sizeof(banyan_cache_facts);
    reused_tokens = facts.reused_tokens;
    computed_tokens = facts.computed_tokens;
    position = facts.position;
    why = name(facts.why).data();
    before = facts.before.c_str();
    had = facts.had.c_str();
    got = facts.got.c_str();
  }
  OwnedCacheFacts(const OwnedCacheFacts&) = delete;
  OwnedCacheFacts& operator=(const OwnedCacheFacts&) = delete;
  const CacheFacts facts;
};

// What a banyan_reply points into lives with it.
struct OwnedReply : banyan_reply {
  OwnedReply(Reply given, Compute used)
      : banyan_reply{}, reply(std::move(given)), cache_facts_(reply.cache) {
    show_sample<banyan_reply>(reply, *this);
    prompt_tokens = reply.prompt_tokens;
    reused_tokens = reply.cached_tokens;
    prompt_ms = reply.prompt_ms;
    predicted_ms = reply.predicted_ms;
    kv_bytes_peak = reply.kv_bytes_peak;
    compute = used == Compute::kF32 ? BANYAN_COMPUTE_F32 : BANYAN_COMPUTE_AUTO;
    kv_exact = reply.kv_exact ? 1 : 0;
    queue_ms = reply.queue_ms;
    cache_why = cache_facts_.why;
    cache = &cache_facts_;
    drafted_tokens = reply.speculation.drafted;
    accepted_tokens = reply.speculation.accepted;
    decode_steps = reply.speculation.steps;
    shown_.resize(reply.samples.size());
    for (size_t i = 0; i < shown_.size(); ++i) {
      show_sample(reply.samples[i], shown_[i]);
      shown_[i].mean_logprob = reply.samples[i].mean_logprob;
      pointers_.push_back(&shown_[i]);
    }
    samples = pointers_.data();
    n_samples = pointers_.size();
  }
  const Reply reply;

 private:
  const OwnedCacheFacts cache_facts_;
  std::vector<banyan_sample> shown_;
  std::vector<const banyan_sample*> pointers_;
};

SearchNode node_of(banyan_node node) {
  return {static_cast<uint32_t>(node), static_cast<uint32_t>(node >> 32)};
}
banyan_node handle_of(SearchNode node) { return uint64_t{node.generation} << 32 | node.index; }

// What a leaf is to get, but for the tokens that are given.
Result<Extension> extension_of(const banyan_generate_options* given) {
  Extension extension;
  if (given == nullptr) return extension;
  const auto o = generate_options(given);
  if (!o) return o.error();
  if (o->n != 1 || o->best_of != 0 || o->on_token != nullptr) {
    return bad_input(
        "banyan_extend: n, best_of or on_token is set, expected their defaults; fork for more "
        "texts, and read a node for its own");
  }
  BANYAN_TRY(check_range("max_tokens", o->max_tokens, 0, INT32_MAX));
  auto request = request_of("banyan_extend", {}, *o);
  if (!request) return request.error();
  extension.max_tokens = request->max_tokens;
  extension.sampler = std::move(request->sampler);
  extension.stop = std::move(request->stop);
  extension.ignore_eos = request->ignore_eos;
  return extension;
}

// What a banyan_node_facts points into lives with it.
struct OwnedNodeFacts : banyan_node_facts {
  OwnedNodeFacts(const Search& of, SearchNode node, std::vector<TokenId> own,
                 Result<Sample> generated)
      : banyan_node_facts{},
        own_tokens_(std::move(own)),
        own_text_(of.engine().tokenizer().decode(own_tokens_, Special::kPlain)) {
    struct_size = sizeof(banyan_node_facts);
    is_leaf = *of.is_leaf(node) ? 1 : 0;
    parent = node == of.root() ? 0 : handle_of(*of.parent(node));
    text = own_text_.c_str();
    text_bytes = own_text_.size();
    tokens = own_tokens_.data();
    n_tokens = own_tokens_.size();
    if (generated) {
      sample_ = *std::move(generated);
    } else {
      failed = 1;
      why_ = generated.error().message;
    }
    sampled_text = sample_.text.c_str();
    sampled_text_bytes = sample_.text.size();
    sampled_tokens = sample_.tokens.data();
    n_sampled = sample_.tokens.size();
    finish_reason = finish_reason_of(sample_.finish);
    why = why_.c_str();
  }

 private:
  const std::vector<TokenId> own_tokens_;
  const std::string own_text_;
  Sample sample_;
  std::string why_;
};

// Runs `f` of a search and a bool() as in_turn() does. Requires arguments that are given.
template <class F>
banyan_error* with_search(banyan_search* search, const char* function,
                          std::initializer_list<Argument> outputs, F f) {
  return guarded([&]() -> Result<void> {
    BANYAN_TRY(check_given(function, outputs));
    BANYAN_TRY(check_given(function, {{"search", search}}));
    return in_turn(search->model, function,
                   [&](auto cancelled) -> Result<void> { return f(search->search, cancelled); });
  });
}

template <class Cancelled>
Result<Reply> generate(Engine& engine, const Request& request, const banyan_generate_options& o,
                       Cancelled cancelled) {
  if (cancelled()) {  // while it waited for its turn
    Reply reply;
    reply.finish = FinishReason::kCancelled;
    reply.prompt_tokens = static_cast<int>(request.prompt.size());
    reply.samples.push_back(reply);
    return reply;
  }
  auto hear_token = [&](TokenId token, const std::string& text) {
    return (o.on_token == nullptr || o.on_token(o.user, token, text.c_str(), text.size()) == 0) &&
           !cancelled();
  };
  auto hear_prompt = [&](int, int) { return !cancelled(); };
  const FunctionRef<bool(TokenId, const std::string&)> on_token = hear_token;
  const FunctionRef<bool(int, int)> on_prompt = hear_prompt;
  auto ask = [&] { return !cancelled(); };
  const FunctionRef<bool()> go_on = ask;
  return engine.generate(request, {&on_token, &on_prompt, &go_on});
}

banyan_error* explain(const char* function, banyan_model* model, std::span<const TokenId> prompt,
                      const banyan_generate_options* options, banyan_cache_facts** facts) {
  return guarded([&]() -> Result<void> {
    BANYAN_TRY(check_given(function, {{"facts", facts}}));
    *facts = nullptr;
    BANYAN_TRY(check_given(function, {{"model", model}, {"prompt", prompt.data(), prompt.size()}}));
    const auto o = generate_options(options);
    if (!o) return o.error();
    const auto request = request_of(function, prompt, *o);
    if (!request) return request.error();
    return in_turn(*model, function, [&](auto) -> Result<void> {
      auto explained = model->engine->explain(*request);
      if (!explained) return explained.error();
      *facts = new OwnedCacheFacts(*std::move(explained));
      return {};
    });
  });
}

}  // namespace
}  // namespace banyan

using namespace banyan;  // NOLINT: below are the C functions

const char* banyan_version() { return BANYAN_VERSION; }
int32_t banyan_abi_version() { return BANYAN_ABI_VERSION; }

int32_t banyan_error_code(const banyan_error* error) {
  if (error == nullptr) return 0;
  switch (error->error.code) {
    case ErrorCode::kBadInput:
      return BANYAN_BAD_INPUT;
    case ErrorCode::kCancelled:
      return BANYAN_CANCELLED;
    case ErrorCode::kFailed:
      break;
  }
  return BANYAN_FAILED;
}

const char* banyan_error_message(const banyan_error* error) {
  if (error == nullptr) return "";
  return error == &out_of_memory ? kOutOfMemory : error->error.message.c_str();
}

void banyan_free_error(banyan_error* error) {
  if (error != &out_of_memory) delete error;
}

void banyan_init_model_options(banyan_model_options* options, size_t struct_size) {
  init_options(options, struct_size, default_model_options());
}

banyan_error* banyan_load_model(const char* path, const banyan_model_options* options,
                                banyan_model** model) {
  return guarded([&]() -> Result<void> {
    BANYAN_TRY(check_given("banyan_load_model", {{"model", model}}));
    *model = nullptr;
    BANYAN_TRY(check_given("banyan_load_model", {{"path", path}}));
    const auto given = engine_options(path, options);
    if (!given) return given.error();
    auto engine = Engine::open(*given);
    if (!engine) return engine.error();
    *model = new banyan_model(*std::move(engine));
    return {};
  });
}

void banyan_free_model(banyan_model* model) { delete model; }

int32_t banyan_context(const banyan_model* model) {
  return model == nullptr ? 0 : model->engine->context();
}

int32_t banyan_vocabulary_size(const banyan_model* model) {
  return model == nullptr ? 0 : model->engine->tokenizer().size();
}

int32_t banyan_embedding_size(const banyan_model* model) {
  return model == nullptr ? 0 : model->engine->model().hp.hidden;
}

banyan_error* banyan_tokenize(const banyan_model* model, const char* text, size_t text_bytes,
                              uint32_t flags, int32_t** tokens, size_t* n_tokens) {
  return guarded([&]() -> Result<void> {
    BANYAN_TRY(check_given("banyan_tokenize", {{"tokens", tokens}, {"n_tokens", n_tokens}}));
    *tokens = nullptr;
    *n_tokens = 0;
    BANYAN_TRY(check_given("banyan_tokenize", {{"model", model}, {"text", text, text_bytes}}));
    const auto found =
        model->engine->encode({text, text_bytes}, special(flags), (flags & BANYAN_ADD_BOS) != 0,
                              (flags & BANYAN_ADD_EOS) != 0);
    if (!found) return found.error();
    give_tokens(*found, tokens, n_tokens);
    return {};
  });
}

banyan_error* banyan_detokenize(const banyan_model* model, const int32_t* tokens, size_t n_tokens,
                                uint32_t flags, char** text, size_t* text_bytes) {
  return guarded([&]() -> Result<void> {
    BANYAN_TRY(check_given("banyan_detokenize", {{"text", text}, {"text_bytes", text_bytes}}));
    *text = nullptr;
    *text_bytes = 0;
    BANYAN_TRY(check_given("banyan_detokenize", {{"model", model}, {"tokens", tokens, n_tokens}}));
    const Tokenizer& tokenizer = model->engine->tokenizer();
    const std::span all(tokens, n_tokens);
    for (const TokenId token : all) {
      BANYAN_TRY(check_range("a token", token, 0, tokenizer.size() - 1));
    }
    const std::string decoded = tokenizer.decode(all, special(flags));
    *text = copied(std::span(decoded.c_str(), decoded.size() + 1));
    *text_bytes = decoded.size();
    return {};
  });
}

banyan_error* banyan_apply_chat_template(const banyan_model* model, const banyan_message* messages,
                                         size_t n_messages, int32_t** tokens, size_t* n_tokens) {
  return guarded([&]() -> Result<void> {
    constexpr const char* kFunction = "banyan_apply_chat_template";
    BANYAN_TRY(check_given(kFunction, {{"tokens", tokens}, {"n_tokens", n_tokens}}));
    *tokens = nullptr;
    *n_tokens = 0;
    BANYAN_TRY(check_given(kFunction, {{"model", model}, {"messages", messages, n_messages}}));
    std::vector<ChatMessage> chat;
    for (const banyan_message& message : std::span(messages, n_messages)) {
      BANYAN_TRY(check_given(kFunction, {{"role", message.role}, {"content", message.content}}));
      chat.push_back({message.role, message.content});
    }
    const auto prompt = model->engine->encode_chat(chat);
    if (!prompt) return prompt.error();
    give_tokens(*prompt, tokens, n_tokens);
    return {};
  });
}

void banyan_free(void* tokens_or_text) { std::free(tokens_or_text); }

void banyan_init_generate_options(banyan_generate_options* options, size_t struct_size) {
  init_options(options, struct_size, default_generate_options());
}

banyan_error* banyan_generate(banyan_model* model, const int32_t* prompt, size_t n_prompt,
                              const banyan_generate_options* options, banyan_reply** reply) {
  return guarded([&]() -> Result<void> {
    BANYAN_TRY(check_given("banyan_generate", {{"reply", reply}}));
    *reply = nullptr;
    BANYAN_TRY(check_given("banyan_generate", {{"model", model}, {"prompt", prompt, n_prompt}}));
    const auto o = generate_options(options);
    if (!o) return o.error();
    const auto request = request_of("banyan_generate", {prompt, n_prompt}, *o);
    if (!request) return request.error();
    return in_turn(*model, "banyan_generate", [&](auto cancelled) -> Result<void> {
      Engine& engine = *model->engine;
      auto generated = generate(engine, *request, *o, cancelled);
      if (!generated) return generated.error();
      *reply = new OwnedReply(*std::move(generated), engine.options().compute);
      return {};
    });
  });
}

void banyan_free_reply(banyan_reply* reply) { delete static_cast<OwnedReply*>(reply); }

banyan_error* banyan_explain(banyan_model* model, const int32_t* prompt, size_t n_prompt,
                             banyan_cache_facts** facts) {
  return explain("banyan_explain", model, {prompt, n_prompt}, nullptr, facts);
}

banyan_error* banyan_explain_with(banyan_model* model, const int32_t* prompt, size_t n_prompt,
                                  const banyan_generate_options* options,
                                  banyan_cache_facts** facts) {
  return explain("banyan_explain_with", model, {prompt, n_prompt}, options, facts);
}

void banyan_free_cache_facts(banyan_cache_facts* facts) {
  delete static_cast<OwnedCacheFacts*>(facts);
}

banyan_error* banyan_open_search(banyan_model* model, const int32_t* prompt, size_t n_prompt,
                                 banyan_search** search) {
  return guarded([&]() -> Result<void> {
    constexpr const char* kFunction = "banyan_open_search";
    BANYAN_TRY(check_given(kFunction, {{"search", search}}));
    *search = nullptr;
    BANYAN_TRY(check_given(kFunction, {{"model", model}, {"prompt", prompt, n_prompt}}));
    return in_turn(*model, kFunction, [&](auto) -> Result<void> {
      auto opened = Search::open(*model->engine, {prompt, n_prompt});
      if (!opened) return opened.error();
      *search = new banyan_search{*model, *std::move(opened)};
      return {};
    });
  });
}

void banyan_free_search(banyan_search* search) {
  if (search == nullptr) return;
  std::unique_ptr<banyan_search> owned(search);
  banyan_model& model = search->model;
  if (model.computing == std::this_thread::get_id()) {
    model.freed_searches.push_back(std::move(owned));
    return;
  }
  const std::lock_guard lock(model.turn);
  model.freed_searches.clear();
  owned.reset();
}

banyan_node banyan_search_root(const banyan_search* search) {
  return search == nullptr ? 0 : handle_of(search->search.root());
}

banyan_error* banyan_fork(banyan_search* search, banyan_node node, size_t n,
                          banyan_node* children) {
  if (children != nullptr) std::fill_n(children, n, 0);
  const auto fork = [&](Search& s, auto) -> Result<void> {
    const auto forked = s.fork(node_of(node), static_cast<int>(std::min<size_t>(n, INT32_MAX)));
    if (!forked) return forked.error();
    std::ranges::transform(*forked, children, handle_of);
    return {};
  };
  return with_search(search, "banyan_fork", {{"children", children, n}}, fork);
}

banyan_error* banyan_extend(banyan_search* search, banyan_node leaf, const int32_t* tokens,
                            size_t n_tokens, const banyan_generate_options* options) {
  const auto extend = [&](Search& s, auto) -> Result<void> {
    auto extension = extension_of(options);
    if (!extension) return extension.error();
    extension->tokens.assign(tokens, tokens + n_tokens);
    return s.extend(node_of(leaf), *std::move(extension));
  };
  return with_search(search, "banyan_extend", {{"tokens", tokens, n_tokens}}, extend);
}

banyan_error* banyan_join(banyan_search* search, banyan_node leaf, banyan_node other) {
  return with_search(search, "banyan_join", {},
                     [&](Search& s, auto) { return s.join(node_of(leaf), node_of(other)); });
}

banyan_error* banyan_step_search(banyan_search* search, int32_t* more) {
  if (more != nullptr) *more = 0;
  return with_search(search, "banyan_step_search", {}, [&](Search& s, auto) -> Result<void> {
    const bool has_more = s.step();
    if (more != nullptr) *more = has_more ? 1 : 0;
    return {};
  });
}

banyan_error* banyan_run_search(banyan_search* search) {
  return with_search(search, "banyan_run_search", {},
                     [](Search& s, auto cancelled) -> Result<void> {
                       do {
                         if (cancelled())
                           return Error{ErrorCode::kCancelled, "banyan_cancel() was called"};
                       } while (s.step());
                       return {};
                     });
}

banyan_error* banyan_prune(banyan_search* search, banyan_node node) {
  return with_search(search, "banyan_prune", {},
                     [&](Search& s, auto) { return s.prune(node_of(node)); });
}

banyan_error* banyan_commit(banyan_search* search, banyan_node node) {
  return with_search(search, "banyan_commit", {},
                     [&](Search& s, auto) { return s.commit(node_of(node)); });
}

banyan_error* banyan_score(banyan_search* search, banyan_node node, double* score) {
  if (score != nullptr) *score = 0;
  const auto ask = [&](Search& s, auto) -> Result<void> {
    const auto found = s.score(node_of(node));
    if (!found) return found.error();
    *score = *found;
    return {};
  };
  return with_search(search, "banyan_score", {{"score", score}}, ask);
}

banyan_error* banyan_set_score(banyan_search* search, banyan_node node, double score) {
  return with_search(search, "banyan_set_score", {},
                     [&](Search& s, auto) { return s.set_score(node_of(node), score); });
}

banyan_error* banyan_next_tokens(banyan_search* search, banyan_node node, size_t k, int32_t* tokens,
                                 float* logprobs, size_t* n) {
  if (n != nullptr) *n = 0;
  const auto next = [&](Search& s, auto) -> Result<void> {
    const auto found =
        s.next_tokens(node_of(node), static_cast<int>(std::min<size_t>(k, INT32_MAX)));
    if (!found) return found.error();
    for (const TokenLogprob& one : *found) {
      tokens[*n] = one.token;
      logprobs[(*n)++] = one.logprob;
    }
    return {};
  };
  return with_search(search, "banyan_next_tokens",
                     {{"n", n}, {"tokens", tokens, k}, {"logprobs", logprobs, k}}, next);
}

banyan_error* banyan_read_node(banyan_search* search, banyan_node node, banyan_node_facts** facts) {
  if (facts != nullptr) *facts = nullptr;
  const auto read = [&](Search& s, auto) -> Result<void> {
    const SearchNode of = node_of(node);
    auto tokens = s.tokens(of);
    if (!tokens) return tokens.error();
    *facts = new OwnedNodeFacts(s, of, *std::move(tokens), s.generated(of));
    return {};
  };
  return with_search(search, "banyan_read_node", {{"facts", facts}}, read);
}

void banyan_free_node_facts(banyan_node_facts* facts) {
  delete static_cast<OwnedNodeFacts*>(facts);
}

banyan_error* banyan_search_nodes(banyan_search* search, banyan_node** nodes, size_t* n) {
  if (nodes != nullptr) *nodes = nullptr;
  if (n != nullptr) *n = 0;
  const auto list = [&](Search& s, auto) -> Result<void> {
    std::vector<banyan_node> all;
    for (const SearchTree::Node& node : s.snapshot().nodes) all.push_back(handle_of(node.node));
    *nodes = copied(std::span<const banyan_node>(all));
    *n = all.size();
    return {};
  };
  return with_search(search, "banyan_search_nodes", {{"nodes", nodes}, {"n", n}}, list);
}

banyan_error* banyan_read_search_kv(banyan_search* search, banyan_search_kv* kv) {
  const auto read = [&](Search& s, auto) -> Result<void> {
    const uint32_t size = kv->struct_size;
    if (size < sizeof(banyan_search_kv) || size > kMaxStructSize) {
      return bad_input(fmt::format("struct_size of banyan_search_kv is {}, expected {}", size,
                                   sizeof(banyan_search_kv)));
    }
    const SearchKv found = s.kv();
    *kv = {sizeof(banyan_search_kv), 0,           found.tokens,
           found.path_tokens,        found.bytes, found.bytes_peak};
    return {};
  };
  return with_search(search, "banyan_read_search_kv", {{"kv", kv}}, read);
}

void banyan_cancel(banyan_model* model) {
  if (model != nullptr) ++model->n_cancels;
}

banyan_error* banyan_embed(banyan_model* model, const int32_t* tokens, size_t n_tokens,
                           int32_t pooling, float* embedding, size_t n_floats) {
  return guarded([&]() -> Result<void> {
    BANYAN_TRY(check_given("banyan_embed", {{"embedding", embedding, n_floats}}));
    std::fill_n(embedding, n_floats, 0.0F);
    BANYAN_TRY(check_given("banyan_embed", {{"model", model}, {"tokens", tokens, n_tokens}}));
    const int32_t size = banyan_embedding_size(model);
    BANYAN_TRY(check_range("n_floats", static_cast<int64_t>(n_floats), size, size));
    BANYAN_TRY(check_range("pooling", pooling, BANYAN_POOLING_LAST, BANYAN_POOLING_MEAN));
    return in_turn(*model, "banyan_embed", [&](auto cancelled) -> Result<void> {
      auto hear = [&](int, int) { return !cancelled(); };
      const FunctionRef<bool(int, int)> on_tokens = hear;
      const auto embedded =
          embed(*model->engine, {tokens, n_tokens},
                pooling == BANYAN_POOLING_MEAN ? Pooling::kMean : Pooling::kLast, &on_tokens);
      if (!embedded) return embedded.error();
      std::ranges::copy(*embedded, embedding);
      return {};
    });
  });
}
