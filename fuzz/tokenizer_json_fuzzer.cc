// SPDX-License-Identifier: Apache-2.0
// Any bytes as a tokenizer.json, or as a tokenizer_config.json beside one: refused, or a tokenizer
// that takes any text and gives ids of its own for it, twice the same.
// Seeds: seeds/tokenizer_json, small tokenizers and configurations.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "text/tokenizer_json.h"

namespace {

using namespace banyan;

const std::vector<std::string>& texts() {
  static const std::vector<std::string> all = [] {
    std::string word(240, 'a');  // long enough to be merged in windows
    for (size_t i = 0; i < word.size(); i += 1 + i * i % 7) word[i] = "bethr"[i % 5];
    return std::vector<std::string>{
        "", "The tree's 12345 roots\n\n  e\xCC\x81 \xEF\xAC\x81 \xE4\xB8\xAD<s></s><mask> word",
        "\xFF\xC3 a\xE2\x82", std::string(66, 'a') + "  ", word};
  }();
  return all;
}

void check_error(const Error& error) {
  BANYAN_CHECK(error.code == ErrorCode::kBadInput, "a wrong file is bad input");
  BANYAN_CHECK(!error.message.empty() && error.message.size() < 1000, "an error is a sentence");
  for (const unsigned char c : error.message) BANYAN_CHECK(c >= 0x20, "on one line");
}

void use(const Tokenizer& tokenizer) {
  for (const std::string& text : texts()) {
    for (const Special special : {Special::kParse, Special::kPlain}) {
      const auto tokens = tokenizer.encode(text, special);
      if (!tokens) {
        check_error(tokens.error());
        return;
      }
      if (const auto again = tokenizer.encode(text, special)) {  // else: the clock
        BANYAN_CHECK(*tokens == *again, "encoding leaves no trace");
      }
      for (const TokenId token : *tokens) {
        BANYAN_CHECK(token >= 0 && token < tokenizer.size(), "ids are the vocabulary's");
      }
      const std::string decoded = tokenizer.decode(*tokens, special);
      BANYAN_CHECK(decoded.size() < 64 << 20, "a text stays in proportion");
    }
  }
}

Vocabulary small_vocabulary() {
  Vocabulary vocabulary;
  vocabulary.model = "gpt2";
  vocabulary.tokens = {"a", "b", "ab", "<s>", "</s>"};
  vocabulary.types.assign(5, TokenType::kNormal);
  vocabulary.merges = {"a b"};
  return vocabulary;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  auto vocabulary = parse_tokenizer_json(bytes);
  if (vocabulary) {
    const auto tokenizer = Tokenizer::create(*std::move(vocabulary));
    tokenizer ? use(*tokenizer) : check_error(tokenizer.error());
    return 0;
  }
  check_error(vocabulary.error());
  Vocabulary configured = small_vocabulary();
  for (const auto apply : {apply_tokenizer_config, apply_generation_config,
                           apply_chat_template_json, apply_model_config}) {
    if (const auto applied = apply(bytes, configured); !applied) check_error(applied.error());
  }
  const auto tokenizer = Tokenizer::create(std::move(configured));
  if (!tokenizer) check_error(tokenizer.error());
  const auto pair = parse_vocab_and_merges(bytes, bytes);
  if (!pair) check_error(pair.error());
  return 0;
}
