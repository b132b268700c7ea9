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

// The C structs, with their defaults set.
struct ModelOptions : banyan_model_options {
  ModelOptions() { banyan_init_model_options(this, sizeof(banyan_model_options)); }
};

struct GenerateOptions : banyan_generate_options {
  GenerateOptions() { banyan_init_generate_options(this, sizeof(banyan_generate_options)); }
};

namespace detail {

struct Free {
  void operator()(banyan_error* error) const { banyan_free_error(error); }
  void operator()(banyan_model* model) const { banyan_free_model(model); }
  void operator()(banyan_reply* reply) const { banyan_free_reply(reply); }
  void operator()(banyan_cache_facts* facts) const { banyan_free_cache_facts(facts); }
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

  Result<CacheFacts> explain(const std::vector<Token>& prompt) {
    banyan_cache_facts* facts = nullptr;
    banyan_error* error = banyan_explain(get(), prompt.data(), prompt.size(), &facts);
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
