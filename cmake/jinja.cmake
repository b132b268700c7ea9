# The Jinja engine of llama.cpp, for chat templates: a copy in the build tree with our bounds patched
# in (cmake/patches/jinja-limits.patch says what and why). Patched anew only if the patch or a source
# changed.

find_program(PATCH_PROGRAM patch REQUIRED)
set(jinja_origin ${BANYAN_DEPS}/llama.cpp/common)
set(jinja_patch ${CMAKE_CURRENT_LIST_DIR}/patches/jinja-limits.patch)
set(jinja_copy ${CMAKE_BINARY_DIR}/jinja)
set(jinja_files jinja/lexer.cpp jinja/lexer.h jinja/parser.cpp jinja/parser.h jinja/runtime.cpp
  jinja/runtime.h jinja/string.cpp jinja/string.h jinja/utils.h jinja/value.cpp jinja/value.h
  unicode.cpp unicode.h)

file(SHA256 ${jinja_patch} jinja_stamp)
foreach(file ${jinja_files})
  file(SHA256 ${jinja_origin}/${file} hash)
  string(APPEND jinja_stamp "\n${hash} ${file}")
endforeach()
set(jinja_stamp_found "")
if(EXISTS ${jinja_copy}/stamp)
  file(READ ${jinja_copy}/stamp jinja_stamp_found)
endif()
if(NOT jinja_stamp STREQUAL jinja_stamp_found)
  file(REMOVE_RECURSE ${jinja_copy})
  foreach(file ${jinja_files})
    get_filename_component(folder ${jinja_copy}/${file} DIRECTORY)
    file(COPY ${jinja_origin}/${file} DESTINATION ${folder})
  endforeach()
  execute_process(
    COMMAND ${PATCH_PROGRAM} --strip=1 --fuzz=0 --forward --batch --input=${jinja_patch}
    WORKING_DIRECTORY ${jinja_copy} RESULT_VARIABLE result
    OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    file(REMOVE_RECURSE ${jinja_copy})
    message(FATAL_ERROR "${jinja_patch} does not apply to ${jinja_origin}/jinja; "
      "it is made for the llama.cpp sources of llama-cpp-python 0.3.36:\n${output}")
  endif()
  file(WRITE ${jinja_copy}/stamp "${jinja_stamp}")
endif()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${jinja_patch})

add_library(banyan_jinja STATIC
  ${jinja_copy}/jinja/lexer.cpp ${jinja_copy}/jinja/limits.cpp ${jinja_copy}/jinja/parser.cpp
  ${jinja_copy}/jinja/runtime.cpp ${jinja_copy}/jinja/string.cpp ${jinja_copy}/jinja/value.cpp
  ${jinja_copy}/unicode.cpp)
target_include_directories(banyan_jinja SYSTEM PUBLIC ${jinja_copy})
target_compile_features(banyan_jinja PUBLIC cxx_std_17)
# Its asserts fire on templates, which are input.
target_compile_definitions(banyan_jinja PRIVATE NDEBUG)
target_compile_options(banyan_jinja PRIVATE -w)
