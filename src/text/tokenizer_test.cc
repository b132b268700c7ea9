// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "text/testing_vocabulary.h"
#include "text/utf8.h"

namespace banyan {
namespace {

using Ids = std::vector<TokenId>;

constexpr char kSpace[] = "\xE2\x96\x81";

// "Ġ" is the letter of the space.
const Tokenizer& english() {
  static const Tokenizer tokenizer = create_or_fail(small_byte_vocabulary(
      {"h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "Ã ©", "Ġ Ġ"}));
  return tokenizer;
}

TokenId id_of(const Tokenizer& tokenizer, const std::string& token) {
  const auto& tokens = tokenizer.vocabulary().tokens;
  const auto found = std::find(tokens.begin(), tokens.end(), token);
  EXPECT_NE(found, tokens.end()) << token;
  return static_cast<TokenId>(found - tokens.begin());
}

Ids bytes_as_ids(std::string_view bytes) {
  Ids ids;
  for (const char c : bytes) ids.push_back(static_cast<uint8_t>(c));
  return ids;
}

std::string random_bytes(std::mt19937& random, size_t longest) {
  const char* const kPieces[] = {"hello", " world",   "é",  " ",    "  ",      "<|a|>", "<think>",
                                 "\xFF",  "\xE2\x96", "\n", "1",    "<|end|>", "<s>",   "</s>",
                                 "日本",  "\xC3",     "x",  kSpace, "<0x41>",  "<unk>", "he"};
  std::string text;
  for (size_t n = random() % (longest + 1); n > 0; --n) {
    text += kPieces[random() % std::size(kPieces)];
  }
  return text;
}

TEST(ByteLevelTokenizer, MergesByRankInsideWords) {
  const Tokenizer& t = english();
  EXPECT_EQ(*t.encode("hello world", Special::kPlain),
            (Ids{id_of(t, "hello"), id_of(t, "Ġworld")}));
  EXPECT_EQ(*t.encode("hellohe", Special::kPlain), (Ids{id_of(t, "hello"), id_of(t, "he")}));
  EXPECT_EQ(*t.encode("", Special::kPlain), Ids{});
  EXPECT_EQ(t.decode(*t.encode("hello world", Special::kPlain), Special::kPlain), "hello world");
}

TEST(ByteLevelTokenizer, BytesThatAreNotUtf8BecomeTheirTokensAndPartTheWords) {
  const Tokenizer& t = english();
  EXPECT_EQ(*t.encode("he\xFFhe", Special::kPlain), (Ids{id_of(t, "he"), 0xFF, id_of(t, "he")}));
  EXPECT_EQ(*t.encode("\xC3", Special::kPlain), Ids{0xC3});
  // Half of é at the end of one text, the other at the start of the next, stay bytes.
  EXPECT_EQ(*t.encode("\xA9", Special::kPlain), Ids{0xA9});
  EXPECT_EQ(*t.encode("é", Special::kPlain), Ids{id_of(t, "Ã©")});
  std::string all;
  for (int byte = 0x80; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(*t.encode(all + '\0', Special::kPlain), bytes_as_ids(all + '\0'));
}

TEST(ByteLevelTokenizer, SpecialTokensAreFoundOnlyWhereAskedForAndUserDefinedOnesAlways) {
  const Tokenizer& t = english();
  const TokenId a = id_of(t, "<|a|>");
  const TokenId think = id_of(t, "<think>");
  const TokenId he = id_of(t, "he");
  EXPECT_EQ(*t.encode("he<|a|><think>he", Special::kParse), (Ids{he, a, think, he}));
  Ids plain = bytes_as_ids("<|a|>");
  plain.insert(plain.begin(), he);
  plain.insert(plain.end(), {think, he});
  EXPECT_EQ(*t.encode("he<|a|><think>he", Special::kPlain), plain);
  EXPECT_EQ(t.piece(a, Special::kParse), "<|a|>");
  EXPECT_EQ(t.piece(a, Special::kPlain), "");
  EXPECT_EQ(t.piece(think, Special::kPlain), "<think>");
  EXPECT_TRUE(t.is_special(a));
  EXPECT_TRUE(t.is_special(think));
  EXPECT_FALSE(t.is_special(he));
}

// Merges that spell a control token out must not make it: a user could type it.
TEST(ByteLevelTokenizer, TextNeverBecomesAControlTokenByMerging) {
  for (const char* pre : {"gpt-2", "llama-bpe"}) {
    Vocabulary v = small_byte_vocabulary({"< |", "| >", "<| a", "<|a |>"});
    v.pre = pre;
    v.tokens[v.tokens.size() - 4] = "unused";  // its place is taken by the control token's text
    const Tokenizer t = create_or_fail(v);
    const auto ids = *t.encode("<|a|>", Special::kPlain);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), id_of(t, "<|a|>")), 0) << pre;
    EXPECT_EQ(t.decode(ids, Special::kPlain), "<|a|>") << pre;
  }
}

TEST(ByteLevelTokenizer, APairMayMergeIntoWhatIsNoTokenAndFallsBackToBytes) {
  Vocabulary v = small_byte_vocabulary({"a b"});
  v.merges.insert(v.merges.begin(), {"x y", "xy z"});
  v.tokens.insert(v.tokens.begin() + 256, "xyz");
  v.types.insert(v.types.begin() + 256, TokenType::kNormal);
  const Tokenizer t = create_or_fail(v);
  EXPECT_EQ(*t.encode("xyz", Special::kPlain), Ids{256});
  EXPECT_EQ(*t.encode("xyab", Special::kPlain), (Ids{'x', 'y', 257}));
}

TEST(ByteLevelTokenizer, ABytesMissingTokenIsTheUnknownOneOrNothing) {
  Vocabulary v = small_byte_vocabulary({"a b"});
  v.tokens['q'] = "qq";
  EXPECT_EQ(*create_or_fail(v).encode("aqab", Special::kPlain), (Ids{'a', 256}));
  v.unk = 5;
  EXPECT_EQ(*create_or_fail(v).encode("aqab", Special::kPlain), (Ids{'a', 5, 256}));
}

TEST(ByteLevelTokenizer, WordsThatComeAgainGetTheSameTokensInLongTexts) {
  std::mt19937 random(2);
  const Tokenizer& t = english();
  std::string text;
  Ids expected;
  while (text.size() < 20'000) {
    std::string word = " ";
    for (size_t n = 1 + random() % 5; n > 0; --n) word += "helowrd"[random() % 7];
    const auto ids = *t.encode(word, Special::kPlain);  // too short for the cache
    expected.insert(expected.end(), ids.begin(), ids.end());
    text += word;
  }
  EXPECT_EQ(*t.encode(text, Special::kPlain), expected);
}

TEST(ByteLevelTokenizer, DecodingUndoesEncodingForAnyBytes) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 3000; ++trial) {
    const std::string text = random_bytes(random, trial % 50 == 0 ? 1000 : 20);
    for (const Special special : {Special::kParse, Special::kPlain}) {
      ASSERT_EQ(english().decode(*english().encode(text, special), special), text);
    }
  }
}

Tokenizer sentencepiece(bool add_space_prefix = true) {
  const std::string s = kSpace;
  Vocabulary v = small_sentencepiece_vocabulary(
      {"he",        "ll", "hell", "hello", s + "hello", "or", "wor", "ld",  s + "wor",
       s + "world", s,    s + s,  "h",     "e",         "l",  "o",   "w",   "r",
       "d",         "é",  "日本", "<",     "s",         ">",  "<s",  "<s>x"});
  v.add_space_prefix = add_space_prefix;
  return create_or_fail(v);
}

TEST(SentencePieceTokenizer, PutsASpaceInFrontAndTakesItAwayAgain) {
  const Tokenizer t = sentencepiece();
  const auto ids = *t.encode("hello world", Special::kPlain);
  EXPECT_EQ(
      ids, (Ids{id_of(t, std::string(kSpace) + "hello"), id_of(t, std::string(kSpace) + "world")}));
  EXPECT_EQ(t.decode(ids, Special::kPlain), "hello world");
  EXPECT_EQ(t.piece(ids[0], Special::kPlain), " hello");
  EXPECT_EQ(*t.encode("", Special::kParse), Ids{});

  const Tokenizer bare = sentencepiece(false);
  EXPECT_EQ(*bare.encode("hello", Special::kPlain), Ids{id_of(bare, "hello")});
  EXPECT_EQ(bare.decode(*bare.encode(" hello", Special::kPlain), Special::kPlain), " hello");
}

TEST(SentencePieceTokenizer, BeginsAnewAfterSpecialTokens) {
  const Tokenizer t = sentencepiece();
  const auto ids = *t.encode("<s>hello</s> hello", Special::kParse);
  const TokenId word = id_of(t, std::string(kSpace) + "hello");
  EXPECT_EQ(ids, (Ids{1, word, 2, id_of(t, kSpace), word}));
  EXPECT_EQ(t.decode(ids, Special::kParse), "<s>hello</s> hello");
  EXPECT_EQ(t.decode(ids, Special::kPlain), "hello hello");
}

TEST(SentencePieceTokenizer, CharactersWithoutATokenBecomeBytes) {
  const Tokenizer t = sentencepiece(false);
  EXPECT_EQ(*t.encode("é", Special::kPlain), Ids{id_of(t, "é")});
  EXPECT_EQ(*t.encode("ñ", Special::kPlain), (Ids{id_of(t, "<0xC3>"), id_of(t, "<0xB1>")}));
  EXPECT_EQ(*t.encode("\xFF", Special::kPlain), Ids{id_of(t, "<0xFF>")});
  EXPECT_EQ(t.piece(id_of(t, "<0xFF>"), Special::kPlain), "\xFF");
  // Characters that are no token alone may still be one together.
  EXPECT_EQ(*t.encode("日本", Special::kPlain), Ids{id_of(t, "日本")});
  EXPECT_EQ(*t.encode("日", Special::kPlain),
            (Ids{id_of(t, "<0xE6>"), id_of(t, "<0x97>"), id_of(t, "<0xA5>")}));
}

TEST(SentencePieceTokenizer, BetterScoresMergeFirstAndTheLeftmostOfEqualOnes) {
  Vocabulary v = small_sentencepiece_vocabulary({"a", "b", "c", "ab", "bc", "aa"});
  v.add_space_prefix = false;
  const size_t ab = v.tokens.size() - 3;
  v.scores[ab] = -5;
  v.scores[ab + 1] = -4;  // bc
  v.scores[ab + 2] = -4;  // aa
  const Tokenizer t = create_or_fail(v);
  EXPECT_EQ(*t.encode("abc", Special::kPlain), (Ids{id_of(t, "a"), id_of(t, "bc")}));
  EXPECT_EQ(*t.encode("aaa", Special::kPlain), (Ids{id_of(t, "aa"), id_of(t, "a")}));
}

// Tokens that span words keep the text in one piece; it must come out the same.
TEST(SentencePieceTokenizer, TokensMaySpanWords) {
  Vocabulary v = small_sentencepiece_vocabulary(
      {"a", "b", kSpace, std::string("a") + kSpace, std::string("a") + kSpace + "b"});
  v.add_space_prefix = false;
  const Tokenizer t = create_or_fail(v);
  EXPECT_EQ(*t.encode("a ba b", Special::kPlain), (Ids{id_of(t, std::string("a") + kSpace + "b"),
                                                       id_of(t, std::string("a") + kSpace + "b")}));
}

TEST(SentencePieceTokenizer, TextNeverBecomesAControlTokenByMerging) {
  const Tokenizer t = sentencepiece(false);
  EXPECT_EQ(*t.encode("<s>", Special::kPlain), (Ids{id_of(t, "<s"), id_of(t, ">")}));
  EXPECT_EQ(t.encode("<0x41>", Special::kPlain)->size(), 6U);
}

TEST(SentencePieceTokenizer, DecodingUndoesEncodingForAnyBytesButItsOwnSpace) {
  const Tokenizer t = sentencepiece();
  std::mt19937 random(1);
  for (int trial = 0; trial < 3000; ++trial) {
    std::string text = random_bytes(random, trial % 50 == 0 ? 1000 : 20);
    std::string spaces = text;
    for (size_t at = 0; (at = spaces.find(kSpace, at)) != std::string::npos;) {
      spaces.replace(at, 3, 1, ' ');
    }
    for (const Special special : {Special::kParse, Special::kPlain}) {
      if (special == Special::kPlain && text.find("<unk>") != std::string::npos) continue;
      ASSERT_EQ(t.decode(*t.encode(text, special), special), spaces);
    }
  }
}

TEST(Tokenizer, Phi3sSpecialTokensSwallowTheWhiteSpaceAfterThem) {
  Vocabulary v = small_sentencepiece_vocabulary({"a", "\n"});
  v.add_space_prefix = false;
  v.tokens.emplace_back("<|user|>");
  v.types.push_back(TokenType::kControl);
  v.scores.push_back(0);
  const auto user = static_cast<TokenId>(v.tokens.size() - 1);
  const std::string text = "<|user|> \n a<s> a";
  const TokenId a = user - 2;
  v.name = "Phi-3-mini";
  EXPECT_EQ(*create_or_fail(v).encode(text, Special::kParse),
            (Ids{user, a, 1, 3 + 0xE2, 3 + 0x96, 3 + 0x81, a}));
  v.name = "other";
  EXPECT_EQ(create_or_fail(v).encode(text, Special::kParse)->front(), user);
  EXPECT_GT(create_or_fail(v).encode(text, Special::kParse)->size(), 9U);
}

TEST(Tokenizer, GenerationEndsWithTheNamedTokensAndTheirKin) {
  Vocabulary v = small_byte_vocabulary({"a b"});
  for (const char* text : {"<|im_end|>", "<|eot_id|>", "<|im_start|>", "</s>"}) {
    v.tokens.emplace_back(text);
    v.types.push_back(TokenType::kNormal);  // as some converters have it
  }
  v.eos = 7;
  const Tokenizer t = create_or_fail(v);
  for (const char* text : {"<|im_end|>", "<|eot_id|>", "<|end|>", "</s>"}) {
    EXPECT_TRUE(t.is_end(id_of(t, text))) << text;
    EXPECT_EQ(t.piece(id_of(t, text), Special::kPlain), "") << text;
    EXPECT_EQ(*t.encode(text, Special::kParse), Ids{id_of(t, text)});
  }
  EXPECT_TRUE(t.is_end(7));
  EXPECT_FALSE(t.is_end(id_of(t, "<|im_start|>")));
  EXPECT_FALSE(t.is_end(id_of(t, "<|a|>")));
  EXPECT_FALSE(t.is_end(-1));
  EXPECT_FALSE(t.is_end(t.size()));
}

TEST(Tokenizer, AChannelsEndDoesNotEndTheAnswer) {
  Vocabulary v = small_byte_vocabulary({"a b"});
  for (const char* text : {"<|return|>", "<|call|>"}) {
    v.tokens.emplace_back(text);
    v.types.push_back(TokenType::kControl);
  }
  const Tokenizer t = create_or_fail(v);
  EXPECT_TRUE(t.is_end(id_of(t, "<|return|>")));
  EXPECT_FALSE(t.is_end(id_of(t, "<|end|>")));
}

TEST(Tokenizer, WrongVocabulariesAreErrorsThatSayWhatIsWrong) {
  const auto message = [](auto change) {
    Vocabulary v = small_byte_vocabulary({"a b"});
    change(v);
    const auto created = Tokenizer::create(v);
    if (created) return std::string("created");
    EXPECT_EQ(created.error().code, ErrorCode::kBadInput);
    return created.error().message;
  };
  EXPECT_EQ(message([](Vocabulary& v) { v.model = "bert"; }),
            "its tokenizer is WordPiece (bert), that of encoders, which do not generate text");
  EXPECT_EQ(message([](Vocabulary& v) { v.model = "rwkv"; }),
            "its tokenizer model 'rwkv' is not known; gpt2 (byte-level BPE), llama (SentencePiece "
            "BPE), t5 (SentencePiece unigram) and gemma4 (BPE of characters) are");
  EXPECT_EQ(message([](Vocabulary& v) { v.pre = "what"; }),
            "its pre-tokenizer 'what' is not known");
  EXPECT_EQ(message([](Vocabulary& v) { v.merges.clear(); }), "it has no merges");
  EXPECT_EQ(message([](Vocabulary& v) { v.merges[0] = "ab"; }), "its merge 0 is not two words");
  EXPECT_EQ(message([](Vocabulary& v) { v.merges[0] = "ab "; }), "its merge 0 is not two words");
  EXPECT_EQ(message([](Vocabulary& v) { v.eos = 260; }),
            "its EOS token 260 is not one of its 260 tokens");
  EXPECT_EQ(message([](Vocabulary& v) { v.bos = -2; }),
            "its BOS token -2 is not one of its 260 tokens");
  EXPECT_EQ(message([](Vocabulary& v) { v.types.pop_back(); }),
            "it has 259 token types for 260 tokens");
  EXPECT_EQ(message([](Vocabulary& v) { v.scores = {1.0F}; }),
            "it has 1 token scores for 260 tokens");
  EXPECT_EQ(message([](Vocabulary& v) {
              v.tokens.clear();
              v.types.clear();
            }),
            "its vocabulary is empty");
}

TEST(Tokenizer, OddVocabulariesAreTakenAsTheyAre) {
  Vocabulary v = small_sentencepiece_vocabulary({"", "", "a", "a", std::string(300, 'a'), "\xFF"});
  v.tokens.emplace_back("");  // an empty control token is found nowhere
  v.types.push_back(TokenType::kControl);
  v.scores.push_back(std::nanf(""));
  v.add_space_prefix = false;  // there is no token for the space
  const Tokenizer t = create_or_fail(v);
  const std::string text(1000, 'a');
  EXPECT_EQ(t.decode(*t.encode(text, Special::kParse), Special::kParse), text);
}

// A run of one character is one word; time that grows with its square would not end here.
TEST(Tokenizer, AWordOfMillionsOfCharactersIsTokenized) {
  const std::string run(4'000'000, 'l');
  EXPECT_EQ(english().encode(run, Special::kPlain)->size(), run.size() / 2);
  const std::string spaces(4'000'000, ' ');
  EXPECT_EQ(english().encode(spaces, Special::kPlain)->size(), spaces.size() / 2);
  EXPECT_EQ(sentencepiece(false).encode(spaces, Special::kPlain)->size(), spaces.size() / 2);
}

}  // namespace
}  // namespace banyan
