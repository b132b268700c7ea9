// SPDX-License-Identifier: Apache-2.0
#include "sample/stop.h"

#include <gtest/gtest.h>

#include <random>

namespace banyan {
namespace {

using Strings = std::vector<std::string>;

// What must be shown of `text`, by looking for every stop string at every place.
struct Expected {
  std::string shown;
  bool stopped = false;
};
Expected expected(const Strings& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    const std::string seen = text.substr(0, end);
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (seen.ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

// How much of a text without a stop string may be shown before its end is known.
size_t showable(const Strings& stops, const std::string& text) {
  for (size_t begin = 0; begin < text.size(); ++begin) {
    for (const std::string& stop : stops) {
      if (stop.starts_with(text.substr(begin))) return begin;
    }
  }
  return text.size();
}

// Pushes text cut before each index whose bit is set, and checks what is shown after each piece.
void check_split(const Strings& stops, const std::string& text, uint64_t cuts) {
  const Expected want = expected(stops, text);
  StopMatcher matcher(stops);
  std::string shown;
  std::string pushed;
  bool stopped = false;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin + 1;
    while (end < text.size() && (cuts >> end & 1) == 0) ++end;
    pushed = text.substr(0, end);
    const StopMatcher::Result result = matcher.push(text.substr(begin, end - begin));
    shown += result.emit;
    const Expected now = expected(stops, pushed);
    ASSERT_EQ(result.stopped, now.stopped) << text << " after " << pushed;
    const size_t size = now.stopped ? now.shown.size() : showable(stops, pushed);
    ASSERT_EQ(shown, now.shown.substr(0, size)) << text << " after " << pushed;
    stopped = result.stopped;
    begin = end;
  }
  shown += matcher.finish();
  ASSERT_EQ(stopped, want.stopped) << text;
  ASSERT_EQ(shown, want.shown) << text;
}

TEST(StopMatcher, WithoutStopStringsEverythingIsShownAtOnce) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.push("some ").emit, "some ");
  EXPECT_EQ(matcher.push("").emit, "");
  EXPECT_EQ(matcher.push("text").emit, "text");
  EXPECT_FALSE(matcher.push("!").stopped);
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBeginAStopString) {
  StopMatcher matcher({"\nUser:"});
  EXPECT_EQ(matcher.push("Hello\nU").emit, "Hello");
  EXPECT_EQ(matcher.push("").emit, "");
  EXPECT_EQ(matcher.push("nit\n").emit, "\nUnit");
  EXPECT_EQ(matcher.push("User").emit, "");
  const StopMatcher::Result last = matcher.push(": more");
  EXPECT_EQ(last.emit, "");
  EXPECT_TRUE(last.stopped);
  EXPECT_TRUE(matcher.push("text").stopped);
  EXPECT_EQ(matcher.push("text").emit, "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, TheEndOfTheTextShowsWhatWasHeldBack) {
  StopMatcher matcher({"###"});
  EXPECT_EQ(matcher.push("a ##").emit, "a ");
  EXPECT_EQ(matcher.finish(), "##");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, TheStopStringThatIsCompleteFirstEndsTheText) {
  StopMatcher matcher({"abcd", "bc"});
  const StopMatcher::Result result = matcher.push("xabcd");
  EXPECT_EQ(result.emit, "xa");
  EXPECT_TRUE(result.stopped);
}

TEST(StopMatcher, OfSeveralThatAreCompleteAtOnceTheLongestIsTaken) {
  StopMatcher matcher({"c", "abc", "bc"});
  EXPECT_EQ(matcher.push("xab").emit, "x");
  const StopMatcher::Result result = matcher.push("c");
  EXPECT_EQ(result.emit, "");
  EXPECT_TRUE(result.stopped);
}

TEST(StopMatcher, EverySplitOfEveryShortTextShowsWhatASearchShows) {
  const Strings sets[] = {{"a"},         {"ab"},         {"aab"},
                          {"aba"},       {"abab", "bb"}, {"aabaab", "abb", "b"},
                          {"bab", "ab"}, {"aaa", "aaab"}};
  for (const Strings& stops : sets) {
    for (size_t size = 1; size <= 8; ++size) {
      for (uint32_t bits = 0; bits < 1U << size; ++bits) {
        std::string text;
        for (size_t i = 0; i < size; ++i) text += (bits >> i & 1) != 0 ? 'b' : 'a';
        for (uint64_t cuts = 0; cuts < uint64_t{1} << size; cuts += 2) {
          check_split(stops, text, cuts);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(StopMatcher, RandomTextsInRandomPiecesShowWhatASearchShows) {
  std::mt19937_64 random(3);
  const auto word = [&](size_t max_size, int alphabet) {
    std::string text(1 + random() % max_size, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % alphabet);
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    const int alphabet = 2 + static_cast<int>(random() % 3);
    Strings stops;
    for (size_t n = 1 + random() % 4; n > 0; --n) stops.push_back(word(6, alphabet));
    check_split(stops, word(40, alphabet), random() & random());
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace banyan
