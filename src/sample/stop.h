// SPDX-License-Identifier: Apache-2.0
#pragma once
// Stop strings in streamed text: what may be shown now, and when the text is at its end. What is
// shown does not depend on how the text was cut into pieces.

#include <string>
#include <string_view>
#include <vector>

namespace banyan {

// Not thread safe.
class StopMatcher {
 public:
  // Strings must not be empty. None at all: everything is shown at once.
  explicit StopMatcher(std::vector<std::string> stop_strings);

  struct Result {
    std::string emit;      // show this now
    bool stopped = false;  // a stop string is complete; no more text will be shown
  };
  // Text that continues what was pushed before. Held back is only what may be the beginning of a
  // stop string. The stop string that is complete first ends the text (the longest, if several are
  // at once); what stands before it is shown, itself and what follows is not.
  // O(piece * number of stop strings), whatever they are.
  Result push(std::string_view piece);

  // The text ends here: what was held back, which is no stop string after all. Empty once stopped.
  std::string finish();

 private:
  // Knuth, Morris & Pratt 1977.
  struct Pattern {
    std::string text;
    std::vector<size_t> borders;  // [i]: longest proper prefix of text that ends text[0..i]
    size_t matched = 0;           // bytes of text that end what was pushed
  };

  std::vector<Pattern> patterns_;
  std::string held_;  // pushed, not shown: as long as the longest beginning of a stop string
  bool stopped_ = false;
};

}  // namespace banyan
