# Everything that is not ours. Sources fetched by tools/fetch.py lie in BANYAN_DEPS; the rest are
# Debian packages. Why each is here: docs/decisions.md.

if(NOT EXISTS ${BANYAN_DEPS}/llama.cpp OR NOT EXISTS ${BANYAN_DEPS}/highway)
  message(FATAL_ERROR "${BANYAN_DEPS} lacks the fetched sources: run tools/fetch.py deps")
endif()

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)

# ggml: tensor types, dequantisation, and dot products in one object for each instruction set.
include(ggml)

# Google Highway (sources fetched: the distributions' versions differ too much).
set(hwy_source ${BANYAN_DEPS}/highway)
add_library(hwy_banyan STATIC
  ${hwy_source}/hwy/abort.cc ${hwy_source}/hwy/aligned_allocator.cc ${hwy_source}/hwy/per_target.cc
  ${hwy_source}/hwy/print.cc ${hwy_source}/hwy/targets.cc)
target_include_directories(hwy_banyan SYSTEM PUBLIC ${hwy_source})
target_compile_features(hwy_banyan PUBLIC cxx_std_17)
# Four targets on x86: SSE4 (the floor), AVX2, AVX3 (AVX-512), and none between or above.
target_compile_definitions(hwy_banyan PUBLIC HWY_SHARED_DEFINE HWY_DISABLE_PCLMUL_AES=1
  "HWY_DISABLED_TARGETS=(HWY_SSE2|HWY_SSSE3|HWY_AVX3_DL|HWY_AVX3_ZEN4|HWY_AVX3_SPR|HWY_AVX10_2)")

# oneDNN: products with many rows. Called with one thread from each of our workers, for which the
# OpenMP runtime that it is built with (GCC's, whoever compiles us) is linked too. Looked for by
# file: its CMake package asks for OpenCL's development files, which nothing here needs.
find_path(DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.hpp REQUIRED)
find_library(DNNL_LIBRARY dnnl REQUIRED)
add_library(banyan_dnnl INTERFACE)
target_include_directories(banyan_dnnl SYSTEM INTERFACE ${DNNL_INCLUDE_DIR})
target_link_libraries(banyan_dnnl INTERFACE ${DNNL_LIBRARY} gomp)

# PCRE2: Unicode classes of the pre-tokenizers.
find_path(PCRE2_INCLUDE_DIR pcre2.h REQUIRED)
find_library(PCRE2_LIBRARY pcre2-8 REQUIRED)
add_library(banyan_pcre2 INTERFACE)
target_include_directories(banyan_pcre2 SYSTEM INTERFACE ${PCRE2_INCLUDE_DIR})
target_link_libraries(banyan_pcre2 INTERFACE ${PCRE2_LIBRARY})
target_compile_definitions(banyan_pcre2 INTERFACE PCRE2_CODE_UNIT_WIDTH=8)

# utf8proc: Unicode normalization forms, case and grapheme borders of the normalizers.
find_path(UTF8PROC_INCLUDE_DIR utf8proc.h REQUIRED)
find_library(UTF8PROC_LIBRARY utf8proc REQUIRED)
add_library(banyan_utf8proc INTERFACE)
target_include_directories(banyan_utf8proc SYSTEM INTERFACE ${UTF8PROC_INCLUDE_DIR})
target_link_libraries(banyan_utf8proc INTERFACE ${UTF8PROC_LIBRARY})

# nlohmann-json (single header, from the llama.cpp sources) and CLI11 (Debian).
add_library(banyan_json INTERFACE)
target_include_directories(banyan_json SYSTEM INTERFACE ${BANYAN_DEPS}/llama.cpp/vendor)
find_path(CLI11_INCLUDE_DIR CLI/CLI.hpp REQUIRED)
add_library(banyan_cli11 INTERFACE)
target_include_directories(banyan_cli11 SYSTEM INTERFACE ${CLI11_INCLUDE_DIR})

# The Jinja engine of llama.cpp.
include(jinja)
