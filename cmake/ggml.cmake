# ggml, used for its tensor types only: block sizes, conversions and dot products, never its graph.
# The files that depend on the instruction set are compiled once for each set below; the copies live
# side by side because each is linked into one object that exports nothing but its table
# banyan_ggml_kernels_<variant> (src/tensor/cpu/ggml_kernels.h).

set(ggml_source ${BANYAN_DEPS}/llama.cpp/ggml)
set(ggml_kernels_dir ${CMAKE_SOURCE_DIR}/src/tensor/cpu)

# Flags of every ggml file. NDEBUG: its asserts fire on unusual numbers in weights, which are input.
# -O3 in all build types, as ggml's own build has it: without it a debug build is no use with a model.
set(ggml_flags -w -O3 -DNDEBUG -fvisibility=hidden -fno-lto)
set(ggml_includes ${CMAKE_BINARY_DIR}/ggml ${ggml_source}/include ${ggml_source}/src
  ${ggml_source}/src/ggml-cpu ${ggml_kernels_dir})
if(BANYAN_SANITIZE)
  # ggml shifts into sign bits and reads through pointers of wider alignment: harmless on all that it
  # runs on. Its memory accesses stay watched.
  list(APPEND ggml_flags -fno-sanitize=undefined)
endif()
if(BANYAN_FUZZERS)
  list(APPEND ggml_flags -O0 -fno-sanitize=all)  # its table of types is all that fuzzers reach
endif()

# ggml.c wants to print a version; nobody asks it here.
set(GGML_VERSION 0)
set(GGML_BUILD_COMMIT none)
configure_file(${ggml_source}/src/ggml-version.h.in ${CMAKE_BINARY_DIR}/ggml/ggml-version.h @ONLY)

# banyan_ggml_variant(NAME FP16_TO_FP32 arch_file flag..): one set of kernels as the object file
# ggml_NAME.o. FP16_TO_FP32 replaces ggml's 256 KiB lookup table, which evicts weights from the L1.
set(banyan_ggml_objects)
function(banyan_ggml_variant name fp16_to_fp32 arch_file)
  set(target banyan_ggml_${name})
  set(object ${CMAKE_BINARY_DIR}/ggml/ggml_${name}.o)
  add_library(${target} OBJECT ${ggml_kernels_dir}/ggml_kernels.c ${ggml_source}/src/ggml-quants.c
    ${ggml_source}/src/ggml-cpu/quants.c ${ggml_source}/src/ggml-cpu/${arch_file})
  target_include_directories(${target} SYSTEM PRIVATE ${ggml_includes})
  target_compile_features(${target} PRIVATE c_std_11)
  target_compile_options(${target} PRIVATE ${ggml_flags} ${ARGN})
  target_compile_definitions(${target} PRIVATE BANYAN_GGML_VARIANT=${name})
  if(fp16_to_fp32)
    target_compile_definitions(${target} PRIVATE GGML_CPU_FP16_TO_FP32=${fp16_to_fp32})
  endif()
  add_custom_command(OUTPUT ${object}
    COMMAND ${CMAKE_LINKER} -r -o ${object}.tmp $<TARGET_OBJECTS:${target}>
    COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${object}.tmp ${object}
    COMMAND ${CMAKE_COMMAND} -E rm ${object}.tmp
    DEPENDS $<TARGET_OBJECTS:${target}> COMMAND_EXPAND_LISTS VERBATIM
    COMMENT "Linking ggml kernels for ${name}")
  list(APPEND banyan_ggml_objects ${object})
  set(banyan_ggml_objects ${banyan_ggml_objects} PARENT_SCOPE)
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(avx2 -mavx2 -mfma -mf16c -mbmi2)
  set(avx512 ${avx2} -mavx512f -mavx512cd -mavx512vl -mavx512dq -mavx512bw)
  banyan_ggml_variant(sse4 ggml_compute_fp16_to_fp32 arch/x86/quants.c -msse4.2)
  banyan_ggml_variant(avx2 _cvtsh_ss arch/x86/quants.c ${avx2})
  banyan_ggml_variant(avx512 _cvtsh_ss arch/x86/quants.c ${avx512})
  # Of the extensions above AVX-512 only VNNI is used by these files, and it came first.
  banyan_ggml_variant(avx512_vnni _cvtsh_ss arch/x86/quants.c ${avx512} -mavx512vnni)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  banyan_ggml_variant(baseline "" arch/arm/quants.c)
else()
  banyan_ggml_variant(baseline ggml_compute_fp16_to_fp32 quants.c -DGGML_CPU_GENERIC)
endif()

# What does not depend on the instruction set: the table of types, and quantisation for the tests.
add_library(banyan_ggml_types STATIC ${ggml_source}/src/ggml.c ${ggml_source}/src/ggml-quants.c
  ${ggml_source}/src/ggml-threading.cpp ${ggml_kernels_dir}/ggml_no_graph.c)
target_include_directories(banyan_ggml_types SYSTEM PRIVATE ${ggml_includes}
  INTERFACE ${ggml_source}/include)
target_compile_options(banyan_ggml_types PRIVATE ${ggml_flags})
target_link_libraries(banyan_ggml_types PUBLIC m)

add_library(banyan_ggml STATIC ${banyan_ggml_objects})
set_source_files_properties(${banyan_ggml_objects} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
set_target_properties(banyan_ggml PROPERTIES LINKER_LANGUAGE C)
target_link_libraries(banyan_ggml PUBLIC banyan_ggml_types)
