// SPDX-License-Identifier: Apache-2.0
#include "base/isa.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace banyan {
namespace {

constexpr std::string_view kUnknownCpu = "unknown CPU";

#if defined(__x86_64__)

// Bit numbers: Intel SDM volume 2A, CPUID; volume 1, section 13.1 (XCR0).
struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero where the CPU has no such leaf.
Registers cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

bool has_bits(uint64_t value, std::initializer_list<int> bits) {
  for (const int bit : bits) {
    if ((value >> bit & 1) == 0) return false;
  }
  return true;
}

// The register state that the OS saves when it switches threads; 0 if it does not say.
uint64_t enabled_register_state() {
  if (!has_bits(cpuid(1).ecx, {27})) return 0;  // OSXSAVE
  uint32_t low = 0;
  uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

bool cpu_has_sse4() { return has_bits(cpuid(1).ecx, {9, 19, 20, 23}); }  // SSSE3 4.1 4.2 POPCNT

bool cpu_has_avx2() {
  return has_bits(enabled_register_state(), {1, 2}) &&  // XMM, YMM
         has_bits(cpuid(1).ecx, {12, 28, 29}) &&        // FMA AVX F16C
         has_bits(cpuid(7).ebx, {3, 5, 8});             // BMI1 AVX2 BMI2
}

bool cpu_has_avx512() {
  return has_bits(enabled_register_state(), {5, 6, 7}) &&  // mask registers, ZMM
         has_bits(cpuid(7).ebx, {16, 17, 28, 30, 31});     // F DQ CD BW VL
}

// Linux 5.16 and later grant tiles only to a process that asks; earlier ones have no tiles.
bool os_grants_tiles() {
#if defined(__linux__)
  constexpr int kArchReqXcompPerm = 0x1023;
  constexpr int kXfeatureTileData = 18;
  return ::syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
#else
  return false;
#endif
}

bool cpu_has_amx() {
  return has_bits(enabled_register_state(), {17, 18}) &&  // tile configuration, tile data
         has_bits(cpuid(7).edx, {22, 24, 25}) &&          // BF16 TILE INT8
         os_grants_tiles();
}

std::string read_cpu_name() {
  constexpr uint32_t kBrandStringLeaf = 0x80000002;  // and the two after it, 16 bytes each
  std::array<char, 49> text{};
  for (uint32_t i = 0; i < 3; ++i) {
    const Registers r = cpuid(kBrandStringLeaf + i);
    std::memcpy(text.data() + 16 * i, &r, 16);
  }
  const std::string_view padded(text.data());
  const size_t begin = padded.find_first_not_of(' ');
  if (begin == std::string_view::npos) return std::string(kUnknownCpu);
  return std::string(padded.substr(begin, padded.find_last_not_of(' ') + 1 - begin));
}

#endif

}  // namespace

#if defined(__x86_64__)

Isa detect_isa() {
  if (!cpu_has_sse4()) return Isa::kBaseline;
  if (!cpu_has_avx2()) return Isa::kSse4;
  if (!cpu_has_avx512()) return Isa::kAvx2;
  return cpu_has_amx() ? Isa::kAmx : Isa::kAvx512;
}

bool has_avx512_bf16() {
  static const bool has = cpu_has_avx512() && has_bits(cpuid(7, 1).eax, {5});
  return has;
}

bool has_avx512_vnni() {
  static const bool has = cpu_has_avx512() && has_bits(cpuid(7).ecx, {11});
  return has;
}

std::string_view cpu_name() {
  static const std::string name = read_cpu_name();
  return name;
}

uint32_t cpu_signature() { return cpuid(1).eax; }

#else

Isa detect_isa() { return Isa::kBaseline; }
bool has_avx512_bf16() { return false; }
bool has_avx512_vnni() { return false; }
std::string_view cpu_name() { return kUnknownCpu; }
uint32_t cpu_signature() { return 0; }

#endif

std::string_view name(Isa isa) {
  switch (isa) {
    case Isa::kBaseline:
      return "baseline";
    case Isa::kSse4:
      return "sse4";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAmx:
      return "amx";
  }
  return "unknown";
}

std::optional<Isa> parse_isa(std::string_view text) {
  for (const Isa isa : {Isa::kSse4, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (text == name(isa)) return isa;
  }
  return std::nullopt;
}

}  // namespace banyan
