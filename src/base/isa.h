// SPDX-License-Identifier: Apache-2.0
#pragma once
// Instruction sets that kernels are chosen by, in rising order: a machine that has one has all
// below it. Detected once at start, capped by the caller (the cli reads BANYAN_ISA).

#include <cstdint>
#include <optional>
#include <string_view>

namespace banyan {

enum class Isa { kBaseline, kSse4, kAvx2, kAvx512, kAmx };

// What this CPU and its kernel allow. kAmx only if the OS granted tile permission to this process
// (asks for it). kAvx512 means F, BW, CD, DQ and VL. kBaseline off x86 (NEON there).
Isa detect_isa();

// Whether VDPBF16PS (AVX512_BF16) may be used when `isa` is at least kAvx512.
bool has_avx512_bf16();

// Whether AVX512 VNNI may be used when `isa` is at least kAvx512.
bool has_avx512_vnni();

std::string_view name(Isa isa);                       // "sse4", "avx2", ..
std::optional<Isa> parse_isa(std::string_view text);  // accepts what BANYAN_ISA accepts

// CPU model name for people, e.g. "AMD EPYC 9354"; "unknown CPU" where the system has none.
std::string_view cpu_name();

// Family, model and stepping as CPUID packs them, which tell CPUs apart where a hypervisor hides
// the name; 0 off x86.
uint32_t cpu_signature();

}  // namespace banyan
