// SPDX-License-Identifier: Apache-2.0
#ifndef BANYAN_BANYAN_HPP
#define BANYAN_BANYAN_HPP
// Banyan's C++ API: owners and values over banyan.h, where threads, errors and options are
// described. C++17; all of it is inline, so that what a program and the library share is the C ABI,
// whatever compiler and standard library either was built with.

#include <banyan/banyan.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace banyan {
inline namespace v1 {

using Token = std::int32_t;
using Message = banyan_message;

struct Error {
  std::int32_t code = 0;  // BANYAN_BAD_INPUT, ..
  std::string message;    // one sentence
};

// A value, or the error that came instead. Asking for the one that is not there throws
// std::bad_variant_access.
template <class T>
class Result {
 public:
  Result(T value) : state_(std::move(value)) {}
  Result(Error error) : state_(std::move(error)) {}

  explicit operator bool() const { return state_.index() == 0; }
  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &**this; }
  const T* operator->() const { return &**this; }
  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

// Nothing, of what gives nothing but may fail.
struct Done {};

// The C structs, with their defaults set.
struct ModelOptions : banyan_model_options {
  ModelOptions() { banyan_init_model_options(this, sizeof(banyan_model_options)); }
};

struct GenerateOptions : banyan_generate_options {
  GenerateOptions() { banyan_init_generate_options(this, sizeof(banyan_generate_options)); }
};

using Node = banyan_node;
using SearchKv = banyan_search_kv;
struct TokenLogprob {
  Token token = 0;
  float logprob = 0;
};

namespace detail {

struct Free {
  void operator()(banyan_error* error) const { banyan_free_error(error); }
  void operator()(banyan_model* model) const { banyan_free_model(model); }
  void operator()(banyan_reply* reply) const { banyan_free_reply(reply); }
  void operator()(banyan_cache_facts* facts) const { banyan_free_cache_facts(facts); }
  void operator()(banyan_search* search) const { banyan_free_search(search); }
  void operator()(banyan_node_facts* facts) const { banyan_free_node_facts(facts); }
  void operator()(void* memory) const { banyan_free(memory); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

inline Error taken(banyan_error* error) {
  const Owned<banyan_error> owned(error);
  return {banyan_error_code(error), banyan_error_message(error)};
}

// What a C function that gives an array has given.
template <class Items, class T>
Result<Items> taken(banyan_error* error, T* items, std::size_t n) {
  const Owned<T> owned(items);
  if (error != nullptr) return taken(error);
  return Items(items, items + n);
}

}  // namespace detail

using Reply = detail::Owned<banyan_reply>;             // never null; reply->text, reply->tokens, ..
using CacheFacts = detail::Owned<banyan_cache_facts>;  // never null; facts->why, ..
using NodeFacts = detail::Owned<banyan_node_facts>;    // never null; facts->text, ..

// A tree of texts; ends before its model does.
class Search {
 public:
  Node root() const { return banyan_search_root(get()); }

  Result<std::vector<Node>> fork(Node node, std::size_t n) {
    std::vector<Node> children(n);
    banyan_error* error = banyan_fork(get(), node, n, children.data());
    if (error != nullptr) return detail::taken(error);
    return children;
  }

  // Forces the tokens, then samples options.max_tokens.
  Result<Done> extend(Node leaf, const std::vector<Token>& tokens, const GenerateOptions& options) {
    return done(banyan_extend(get(), leaf, tokens.data(), tokens.size(), &options));
  }
  Result<Done> extend(Node leaf, const std::vector<Token>& tokens) {
    return done(banyan_extend(get(), leaf, tokens.data(), tokens.size(), nullptr));
  }
  Result<Done> join(Node leaf, Node other) { return done(banyan_join(get(), leaf, other)); }

  // Whether work is left.
  Result<bool> step() {
    std::int32_t more = 0;
    banyan_error* error = banyan_step_search(get(), &more);
    if (error != nullptr) return detail::taken(error);
    return more != 0;
  }
  Result<Done> run() { return done(banyan_run_search(get())); }

  Result<Done> prune(Node node) { return done(banyan_prune(get(), node)); }
  Result<Done> commit(Node node) { return done(banyan_commit(get(), node)); }

  Result<double> score(Node node) {
    double score = 0;
    banyan_error* error = banyan_score(get(), node, &score);
    if (error != nullptr) return detail::taken(error);
    return score;
  }
  Result<Done> set_score(Node node, double score) {
    return done(banyan_set_score(get(), node, score));
  }

  Result<std::vector<TokenLogprob>> next_tokens(Node node, std::size_t k) {
    std::vector<Token> tokens(k);
    std::vector<float> logprobs(k);
    std::size_t n = 0;
    banyan_error* error =
        banyan_next_tokens(get(), node, k, tokens.data(), logprobs.data(), &n);
    if (error != nullptr) return detail::taken(error);
    std::vector<TokenLogprob> next;
    for (std::size_t i = 0; i < n; ++i) next.push_back({tokens[i], logprobs[i]});
    return next;
  }

  Result<NodeFacts> read(Node node) {
    banyan_node_facts* facts = nullptr;
    banyan_error* error = banyan_read_node(get(), node, &facts);
    if (error != nullptr) return detail::taken(error);
    return NodeFacts(facts);
  }

  // Depth-first, the root first.
  Result<std::vector<Node>> nodes() {
    Node* nodes = nullptr;
    std::size_t n = 0;
    banyan_error* error = banyan_search_nodes(get(), &nodes, &n);
    return detail::taken<std::vector<Node>>(error, nodes, n);
  }

  Result<SearchKv> kv() {
    SearchKv kv{};
    kv.struct_size = sizeof kv;
    banyan_error* error = banyan_read_search_kv(get(), &kv);
    if (error != nullptr) return detail::taken(error);
    return kv;
  }

 private:
  friend class Model;
  explicit Search(banyan_search* search) : search_(search) {}
  banyan_search* get() const { return search_.get(); }
  static Result<Done> done(banyan_error* error) {
    if (error != nullptr) return detail::taken(error);
    return Done{};
  }

  detail::Owned<banyan_search> search_;
};

class Model {
 public:
  static Result<Model> load(const std::string& path, const ModelOptions& options = {}) {
    banyan_model* model = nullptr;
    banyan_error* error = banyan_load_model(path.c_str(), &options, &model);
    if (error != nullptr) return detail::taken(error);
    return Model(model);
  }

  // `flags`: BANYAN_ADD_BOS, BANYAN_ADD_EOS, BANYAN_SPECIAL.
  Result<std::vector<Token>> tokenize(std::string_view text, std::uint32_t flags = 0) const {
    Token* tokens = nullptr;
    std::size_t n = 0;
    banyan_error* error = banyan_tokenize(get(), text.data(), text.size(), flags, &tokens, &n);
    return detail::taken<std::vector<Token>>(error, tokens, n);
  }

  Result<std::string> detokenize(const std::vector<Token>& tokens, std::uint32_t flags = 0) const {
    char* text = nullptr;
    std::size_t n = 0;
    banyan_error* error = banyan_detokenize(get(), tokens.data(), tokens.size(), flags, &text, &n);
    return detail::taken<std::string>(error, text, n);
  }

  // The tokens of a conversation, ready for the next answer.
  Result<std::vector<Token>> apply_chat_template(const std::vector<Message>& messages) const {
    Token* tokens = nullptr;
    std::size_t n = 0;
    banyan_error* error =
        banyan_apply_chat_template(get(), messages.data(), messages.size(), &tokens, &n);
    return detail::taken<std::vector<Token>>(error, tokens, n);
  }

  Result<Reply> generate(const std::vector<Token>& prompt, const GenerateOptions& options = {}) {
    banyan_reply* reply = nullptr;
    banyan_error* error = banyan_generate(get(), prompt.data(), prompt.size(), &options, &reply);
    if (error != nullptr) return detail::taken(error);
    return Reply(reply);
  }

  // on_token(token, text) as banyan_on_token, returning whether to go on.
  template <class OnToken>
  Result<Reply> generate(const std::vector<Token>& prompt, GenerateOptions options,
                         OnToken on_token) {
    options.user = std::addressof(on_token);
    options.on_token = [](void* user, Token token, const char* text,
                          std::size_t text_bytes) -> std::int32_t {
      return (*static_cast<OnToken*>(user))(token, std::string_view(text, text_bytes)) ? 0 : 1;
    };
    return generate(prompt, options);
  }

  Result<Search> search(const std::vector<Token>& prompt) {
    banyan_search* search = nullptr;
    banyan_error* error = banyan_open_search(get(), prompt.data(), prompt.size(), &search);
    if (error != nullptr) return detail::taken(error);
    return Search(search);
  }

  Result<CacheFacts> explain(const std::vector<Token>& prompt) {
    banyan_cache_facts* facts = nullptr;
    banyan_error* error = banyan_explain(get(), prompt.data(), prompt.size(), &facts);
    if (error != nullptr) return detail::taken(error);
    return CacheFacts(facts);
  }

  // The salt of the options decides what is found.
  Result<CacheFacts> explain(const std::vector<Token>& prompt, const GenerateOptions& options) {
    banyan_cache_facts* facts = nullptr;
    banyan_error* error =
        banyan_explain_with(get(), prompt.data(), prompt.size(), &options, &facts);
    if (error != nullptr) return detail::taken(error);
    return CacheFacts(facts);
  }

  // At length 1. `pooling`: BANYAN_POOLING_LAST, BANYAN_POOLING_MEAN.
  Result<std::vector<float>> embed(const std::vector<Token>& tokens,
                                   std::int32_t pooling = BANYAN_POOLING_LAST) {
    std::vector<float> embedding(banyan_embedding_size(get()));
    banyan_error* error = banyan_embed(get(), tokens.data(), tokens.size(), pooling,
                                       embedding.data(), embedding.size());
    if (error != nullptr) return detail::taken(error);
    return embedding;
  }

  void cancel() { banyan_cancel(get()); }

  std::int32_t context() const { return banyan_context(get()); }
  std::int32_t vocabulary_size() const { return banyan_vocabulary_size(get()); }

 private:
  explicit Model(banyan_model* model) : model_(model) {}
  banyan_model* get() const { return model_.get(); }

  detail::Owned<banyan_model> model_;
};

}  // namespace v1
}  // namespace banyan

#endif
