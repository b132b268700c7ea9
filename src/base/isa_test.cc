// SPDX-License-Identifier: Apache-2.0
#include "base/isa.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string>

namespace banyan {
namespace {

// The kernel's own list of what this CPU may use, an independent reading of the same facts.
std::set<std::string> kernel_flags() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (!line.starts_with("flags")) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    return {std::istream_iterator<std::string>(words), {}};
  }
  return {};
}

TEST(Isa, AgreesWithTheKernelsFlags) {
  const std::set<std::string> flags = kernel_flags();
  if (flags.empty()) GTEST_SKIP() << "/proc/cpuinfo has no flags here";
  const auto has = [&](std::initializer_list<const char*> names) {
    for (const char* flag : names) {
      if (!flags.contains(flag)) return false;
    }
    return true;
  };
  const Isa isa = detect_isa();
  EXPECT_EQ(isa >= Isa::kSse4, has({"ssse3", "sse4_1", "sse4_2", "popcnt"}));
  EXPECT_EQ(isa >= Isa::kAvx2, has({"avx2", "fma", "f16c", "bmi1", "bmi2"}));
  EXPECT_EQ(isa >= Isa::kAvx512, has({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}));
  EXPECT_EQ(has_avx512_bf16(), isa >= Isa::kAvx512 && has({"avx512_bf16"}));
  EXPECT_EQ(has_avx512_vnni(), isa >= Isa::kAvx512 && has({"avx512_vnni"}));
  if (isa == Isa::kAmx) {
    EXPECT_TRUE(has({"amx_tile", "amx_bf16", "amx_int8"}));
  }
}

TEST(Isa, NamesParseBack) {
  for (const Isa isa : {Isa::kSse4, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    EXPECT_EQ(parse_isa(name(isa)), isa);
  }
}

TEST(Isa, OtherWordsAreRefused) {
  for (const char* text : {"", "AVX2", "avx", "avx2 ", "sse", "baseline", "neon"}) {
    EXPECT_EQ(parse_isa(text), std::nullopt) << text;
  }
}

TEST(CpuName, IsOneTrimmedLine) {
  const std::string_view cpu = cpu_name();
  ASSERT_FALSE(cpu.empty());
  EXPECT_NE(cpu.front(), ' ');
  EXPECT_NE(cpu.back(), ' ');
  EXPECT_EQ(cpu.find('\n'), std::string_view::npos);
}

}  // namespace
}  // namespace banyan
