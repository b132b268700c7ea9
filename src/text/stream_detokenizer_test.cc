// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "text/testing_vocabulary.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace banyan {
namespace {

bool is_valid(std::string_view text) { return valid_utf8_length(text) == text.size(); }

// Streams of tokens that are bytes of characters, broken ones, words and special tokens.
std::vector<TokenId> random_stream(std::mt19937& random, const Tokenizer& tokenizer,
                                   TokenId first_byte) {
  std::vector<TokenId> tokens;
  const std::string bytes = "a \xC3\xA9\xE2\x82\xAC\xF0\x9F\x8C\xB3\xED\xA0\xFF\x80";
  for (size_t n = random() % 30; n > 0; --n) {
    if (random() % 3 == 0) {
      tokens.push_back(static_cast<TokenId>(random() % tokenizer.size()));
    } else {
      const size_t at = random() % bytes.size();
      for (size_t i = at; i < bytes.size() && i < at + random() % 5; ++i) {
        tokens.push_back(first_byte + static_cast<uint8_t>(bytes[i]));
      }
    }
  }
  return tokens;
}

void expect_streaming_is_decoding(const Tokenizer& tokenizer, TokenId first_byte) {
  std::mt19937 random(9);
  for (int trial = 0; trial < 20'000; ++trial) {
    const auto tokens = random_stream(random, tokenizer, first_byte);
    const Special special = trial % 2 == 0 ? Special::kParse : Special::kPlain;
    StreamDetokenizer stream(tokenizer, special, true);
    std::string text;
    for (const TokenId token : tokens) {
      const std::string printed = stream.push(token);
      ASSERT_TRUE(is_valid(printed));
      text += printed;
    }
    text += stream.finish();
    ASSERT_TRUE(is_valid(text));
    ASSERT_EQ(text, make_valid_utf8(tokenizer.decode(tokens, special)));
    ASSERT_EQ(stream.finish(), "");
  }
}

TEST(StreamDetokenizer, PrintsValidPiecesOfTheDecodedTextForByteLevel) {
  Vocabulary v = small_byte_vocabulary({"Ã ©", "â Ĥ", "Ġ a"});
  expect_streaming_is_decoding(create_or_fail(v), 0);
}

TEST(StreamDetokenizer, PrintsValidPiecesOfTheDecodedTextForSentencePiece) {
  Vocabulary v = small_sentencepiece_vocabulary({"a", "\xE2\x96\x81",
                                                 "\xE2\x96\x81"
                                                 "a",
                                                 "é"});
  expect_streaming_is_decoding(create_or_fail(v), 3);
}

TEST(StreamDetokenizer, ACharacterComesWithItsLastByteAndNotBefore) {
  const Tokenizer t = create_or_fail(small_byte_vocabulary({"a b"}));
  StreamDetokenizer stream(t, Special::kPlain, false);
  EXPECT_EQ(stream.push(0xF0), "");
  EXPECT_EQ(stream.push(0x9F), "");
  EXPECT_EQ(stream.push(0x8C), "");
  EXPECT_EQ(stream.push(0xB3), "\xF0\x9F\x8C\xB3");
  EXPECT_EQ(stream.push(0xE2), "");
  EXPECT_EQ(stream.push('x'), "\xEF\xBF\xBDx");
  EXPECT_EQ(stream.push(0xE2), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
}

TEST(StreamDetokenizer, TheFirstSpaceStaysWhereATextGoesOn) {
  const Tokenizer t = create_or_fail(small_sentencepiece_vocabulary({"a", "\xE2\x96\x81",
                                                                     "\xE2\x96\x81"
                                                                     "a"}));
  const TokenId word = t.size() - 1;
  EXPECT_EQ(StreamDetokenizer(t, Special::kPlain, false).push(word), " a");
  StreamDetokenizer stream(t, Special::kPlain, true);
  EXPECT_EQ(stream.push(word), "a");
  EXPECT_EQ(stream.push(word), " a");
}

}  // namespace
}  // namespace banyan
