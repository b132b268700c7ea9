// SPDX-License-Identifier: Apache-2.0
#pragma once
// Foreign bytes in error sentences.

#include <string>
#include <string_view>

namespace banyan {

// `text` with everything outside printable ASCII written as \xNN and cut to about `max_length`
// characters, so that a hostile file cannot write to a terminal through an error message.
std::string printable(std::string_view text, size_t max_length = 80);

}  // namespace banyan
