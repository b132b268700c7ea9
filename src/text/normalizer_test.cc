// SPDX-License-Identifier: Apache-2.0
#include "text/normalizer.h"

#include <gtest/gtest.h>

#include "text/base64.h"
#include "text/charsmap.h"

namespace banyan {
namespace {

std::string run(std::vector<NormalizerStep> steps, std::string_view text) {
  auto normalizer = Normalizer::create(steps);
  EXPECT_TRUE(normalizer.has_value()) << normalizer.error().message;
  SearchEffort effort(text.size());
  return normalizer->apply(text, effort);
}

std::string run(NormalizerStep::Kind kind, std::string_view text) {
  return run(std::vector{NormalizerStep{kind}}, text);
}

// Examples of UAX 15, figures 3 to 6.
TEST(Normalizer, FormsAreUnicodes) {
  EXPECT_EQ(run(NormalizerStep::kNfd, "\u212B\u1E9B\u0323"), "A\u030A\u017F\u0323\u0307");
  EXPECT_EQ(run(NormalizerStep::kNfc, "A\u030A\u212B\u1E0A\u0323"), "\u00C5\u00C5\u1E0C\u0307");
  EXPECT_EQ(run(NormalizerStep::kNfkd, "\uFB01\u00B2\u1E9B\u0323"), "fi2s\u0323\u0307");
  EXPECT_EQ(run(NormalizerStep::kNfkc, "\uFB012\u2075\u1E9B\u0323"), "fi25\u1E69");
  EXPECT_EQ(run(NormalizerStep::kNfc, "\u1112\u1161\u11AB"), "\uD55C");
}

TEST(Normalizer, BytesThatAreNotUtf8StayAsTheyAre) {
  for (const auto kind : {NormalizerStep::kNfc, NormalizerStep::kNfkd, NormalizerStep::kLowercase,
                          NormalizerStep::kStripAccents, NormalizerStep::kStrip}) {
    EXPECT_EQ(run(kind, "a\xFF\xE2\x82z\xC3"), "a\xFF\xE2\x82z\xC3");
  }
}

TEST(Normalizer, StepsFollowEachOther) {
  NormalizerStep replace{NormalizerStep::kReplaceText};
  replace.pattern = " ";
  replace.content = "_";
  NormalizerStep strip{NormalizerStep::kStrip};
  strip.left = strip.right = true;
  NormalizerStep prepend{NormalizerStep::kPrepend};
  prepend.content = ">";
  EXPECT_EQ(run({strip, replace, prepend}, " \u3000A b \n"), ">A_b");
  EXPECT_EQ(run({strip, replace, prepend}, " \n"), "");
  EXPECT_EQ(run(NormalizerStep::kLowercase, "ÀÉİΣ"), "àéi\u0307σ");
}

TEST(Normalizer, SpacesOfUnigramModels) {
  NormalizerStep spaces{NormalizerStep::kSpaceLetters};
  spaces.left = true;
  EXPECT_EQ(run({spaces}, "a  b "), "▁a▁▁b▁");
  EXPECT_EQ(run({spaces}, " a"), "▁▁a");
  spaces.collapse = true;
  EXPECT_EQ(run({spaces}, " a  b "), "▁a▁b");
  spaces.left = spaces.collapse = false;
  EXPECT_EQ(run({spaces}, "a b"), "a▁b");
}

// Time that grows with the square of a row of marks would not end here; nothing may be lost.
TEST(Normalizer, ARowOfAMillionMarksIsNormalized) {
  std::string marks = "a";
  while (marks.size() < 2'000'000) marks += "\u0301\u0323";
  EXPECT_EQ(run(NormalizerStep::kNfd, marks).size(), marks.size());
  EXPECT_LE(run(NormalizerStep::kNfc, marks).size(), marks.size());
}

// Aoe's double array for the keys "a" -> "xy" and "ab" -> "z", laid out by hand: unit = offset <<
// 10 | has value << 8 | label.
std::string small_charsmap() {
  const auto unit = [](uint32_t offset, bool value, uint32_t label) {
    return offset << 10 | static_cast<uint32_t>(value) << 8 | label;
  };
  std::vector<uint32_t> units(256, 0);
  units[0] = unit(128, false, 0);
  units[128 ^ 'a'] = unit((128 ^ 'a') ^ 64, true, 'a');  // children from 64
  units[64] = 1U << 31 | 0;
  units[64 ^ 'b'] = unit((64 ^ 'b') ^ 200, true, 'b');
  units[200] = 1U << 31 | 3;
  std::string bytes;
  const auto put = [&bytes](uint32_t n) {
    for (int i = 0; i < 4; ++i) bytes += static_cast<char>(n >> (8 * i) & 0xFF);
  };
  put(static_cast<uint32_t>(4 * units.size()));
  for (const uint32_t u : units) put(u);
  return bytes + std::string("xy\0z\0", 5);
}

TEST(Charsmap, ReplacesTheLongestBeginningItKnows) {
  auto map = Charsmap::create(small_charsmap());
  ASSERT_TRUE(map.has_value()) << map.error().message;
  EXPECT_EQ(map->longest("abc")->replacement, "z");
  EXPECT_EQ(map->longest("abc")->length, 2U);
  EXPECT_EQ(map->shortest("abc")->replacement, "xy");
  EXPECT_FALSE(map->longest("ba").has_value());
  EXPECT_FALSE(map->longest("").has_value());
  NormalizerStep step{NormalizerStep::kCharsmapLongest};
  step.content = small_charsmap();
  EXPECT_EQ(run({step}, "aab-ba"), "xyz-bxy");
}

TEST(Charsmap, TablesThatLeadOutsideThemselvesFindNothing) {
  EXPECT_FALSE(Charsmap::create("").has_value());
  EXPECT_FALSE(Charsmap::create(std::string("\xFF\xFF\xFF\x7F", 4)).has_value());
  std::string bytes = small_charsmap();
  for (size_t at = 4; at < bytes.size(); ++at) {
    std::string broken = bytes;
    broken[at] = static_cast<char>(broken[at] ^ 0x5A);
    auto map = Charsmap::create(broken);
    ASSERT_TRUE(map.has_value());
    const auto match = map->longest("abab");
    if (match) {
      EXPECT_LE(match->length, 4U);
      EXPECT_LE(match->replacement.size(), 64U);
    }
  }
}

TEST(Base64, IsRfc4648) {
  EXPECT_EQ(decode_base64(""), "");
  EXPECT_EQ(decode_base64("Zg=="), "f");
  EXPECT_EQ(decode_base64("Zm8="), "fo");
  EXPECT_EQ(decode_base64("Zm9vYmFy"), "foobar");
  EXPECT_EQ(decode_base64("+/8="), "\xFB\xFF");
  for (const char* wrong : {"Z", "Zg=", "Z===", "====", "Zg==Zg==", "Z*==", "Zm 9"}) {
    EXPECT_FALSE(decode_base64(wrong).has_value()) << wrong;
  }
}

}  // namespace
}  // namespace banyan
