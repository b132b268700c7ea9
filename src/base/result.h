// SPDX-License-Identifier: Apache-2.0
#pragma once
// Errors as values. A function that can fail at an edge of the program (files, user options,
// budgets) returns Result<T>; a broken invariant inside is a CHECK (base/check.h).
// Same member names as std::expected, which C++20 does not have yet.

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace banyan {

enum class ErrorCode {
  kBadInput,   // wrong usage, option, file or prompt: the program exits 2
  kFailed,     // right input, but it could not be done: the program exits 1
  kCancelled,  // the caller asked to stop
};

// One sentence for a person: what was wrong, where (as the user gave it), what would be right.
struct Error {
  ErrorCode code = ErrorCode::kFailed;
  std::string message;
};

inline Error bad_input(std::string message) { return {ErrorCode::kBadInput, std::move(message)}; }
inline Error failed(std::string message) { return {ErrorCode::kFailed, std::move(message)}; }

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  T& value() & {
    BANYAN_CHECK(has_value(), "value() of a Result that holds an error");
    return std::get<0>(state_);
  }
  const T& value() const& {
    BANYAN_CHECK(has_value(), "value() of a Result that holds an error");
    return std::get<0>(state_);
  }
  T&& value() && { return std::move(value()); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(value()); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const {
    BANYAN_CHECK(!has_value(), "error() of a Result that holds a value");
    return std::get<1>(state_);
  }

 private:
  std::variant<T, Error> state_;
};

// Result of something that yields nothing but may fail.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit

  bool has_value() const { return !error_; }
  explicit operator bool() const { return has_value(); }
  const Error& error() const {
    BANYAN_CHECK(error_.has_value(), "error() of a Result that holds a value");
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

}  // namespace banyan

// Returns the error of a Result<..> expression to the caller, if it has one.
#define BANYAN_TRY(expression)                           \
  do {                                                   \
    if (auto banyan_try_ = (expression); !banyan_try_) { \
      return banyan_try_.error();                        \
    }                                                    \
  } while (false)
