// SPDX-License-Identifier: Apache-2.0
#include "base/printable.h"

#include <gtest/gtest.h>

#include <string>

namespace banyan {
namespace {

TEST(Printable, LeavesPrintableAsciiAlone) {
  EXPECT_EQ(printable(""), "");
  EXPECT_EQ(printable("blk.0.attn_q.weight ~"), "blk.0.attn_q.weight ~");
}

TEST(Printable, EscapesEveryOtherByte) {
  EXPECT_EQ(printable(std::string_view("\0\n\x1b[2J\x7f\xc3\xa9", 9)),
            "\\x00\\x0a\\x1b[2J\\x7f\\xc3\\xa9");
}

TEST(Printable, CutsLongText) {
  EXPECT_EQ(printable("abcdef", 3), "abc..");
  EXPECT_EQ(printable("abc", 3), "abc");
  EXPECT_LE(printable(std::string(5000, '\n')).size(), 86u);
}

}  // namespace
}  // namespace banyan
