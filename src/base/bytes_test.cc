// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace banyan {
namespace {

TEST(CheckedArithmetic, TellsOverflow) {
  EXPECT_EQ(checked_mul(1ull << 32, 1ull << 31), 1ull << 63);
  EXPECT_EQ(checked_mul(1ull << 32, 1ull << 32), std::nullopt);
  EXPECT_EQ(checked_add(UINT64_MAX, 0), UINT64_MAX);
  EXPECT_EQ(checked_add(UINT64_MAX, 1), std::nullopt);
}

TEST(ParseBytes, ReadsWhatUsersWrite) {
  EXPECT_EQ(parse_bytes("0"), 0u);
  EXPECT_EQ(parse_bytes("4096"), 4096u);
  EXPECT_EQ(parse_bytes("4096B"), 4096u);
  EXPECT_EQ(parse_bytes("512MiB"), 512u << 20);
  EXPECT_EQ(parse_bytes("1.5GiB"), 3ull << 29);
  EXPECT_EQ(parse_bytes("64K"), 64u << 10);
  EXPECT_EQ(parse_bytes("64KB"), 64u << 10);
  EXPECT_EQ(parse_bytes("2 gib"), 2ull << 30);
  EXPECT_EQ(parse_bytes("0.001KiB"), 1u);
  EXPECT_EQ(parse_bytes("1TiB"), 1ull << 40);
  EXPECT_EQ(parse_bytes("18446744073709551615"), UINT64_MAX);
}

TEST(ParseBytes, RefusesWhatIsNoSize) {
  for (const char* text : {"",
                           " ",
                           "MiB",
                           "-1",
                           "+1",
                           "1.5",
                           "1.5B",
                           "1.",
                           ".5GiB",
                           "1..5GiB",
                           "1e9",
                           "0x10",
                           "1 000",
                           "1GiBB",
                           "1iB",
                           "1GB s",
                           "1  GiB",
                           " 1",
                           "1 GiB ",
                           "1,5GiB",
                           "nan",
                           "inf",
                           "18446744073709551616",
                           "16EiB",
                           "16777216TiB",
                           "99999999999999999999999999999999"}) {
    EXPECT_EQ(parse_bytes(text), std::nullopt) << text;
  }
}

TEST(ParseBytes, AgreesWithExactArithmeticOnRandomDecimals) {
  std::mt19937_64 random(7);
  constexpr char kUnits[] = "KMGT";
  for (int i = 0; i < 20000; ++i) {
    const int unit = static_cast<int>(random() % 4);
    const uint64_t whole = random() % (1u << 20);
    const uint64_t thousandths = random() % 1000;
    const uint64_t scale = 1ull << (10 * (unit + 1));
    const std::string digits = std::to_string(1000 + thousandths).substr(1);
    const std::string text = std::to_string(whole) + "." + digits + kUnits[unit];
    ASSERT_EQ(parse_bytes(text), whole * scale + thousandths * scale / 1000) << text;
  }
}

TEST(ParseBytes, AnyBytesGiveASizeOrNothing) {
  std::mt19937 random(3);
  constexpr std::string_view kAlphabet = "0123456789.kMgTbBiI -+e\0\xff";
  for (int i = 0; i < 50000; ++i) {
    std::string text(random() % 12, '0');
    for (char& c : text) c = kAlphabet[random() % kAlphabet.size()];
    const auto bytes = parse_bytes(text);
    if (bytes) {
      ASSERT_TRUE(text[0] >= '0' && text[0] <= '9') << text;
    }
  }
}

TEST(FormatBytes, UsesBinaryUnitsAndOneDecimal) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1.0 KiB");
  EXPECT_EQ(format_bytes(98'400'000), "93.8 MiB");
  EXPECT_EQ(format_bytes((1u << 20) - 1), "1.0 MiB");
  EXPECT_EQ(format_bytes(3ull << 29), "1.5 GiB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "16.0 EiB");
}

TEST(FormatBytes, ParsesBackToWithinItsRounding) {
  std::mt19937_64 random(11);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t bytes = random() >> (random() % 63 + 1);
    const auto parsed = parse_bytes(format_bytes(bytes));
    ASSERT_TRUE(parsed.has_value()) << format_bytes(bytes);
    const double error = std::abs(static_cast<double>(*parsed) - static_cast<double>(bytes));
    ASSERT_LE(error, 0.051 * static_cast<double>(bytes) + 0.5) << format_bytes(bytes);
  }
}

TEST(AvailableMemory, IsMoreThanThisTestUsesAndLessThanAnyMachineHas) {
  EXPECT_GT(available_memory(), 1u << 20);
  EXPECT_LT(available_memory(), 1ull << 50);
}

}  // namespace
}  // namespace banyan
