# What every test program links, and how tests come to ctest.
find_package(GTest REQUIRED)
include(GoogleTest)
set(BANYAN_SHARED_DATA ${CMAKE_SOURCE_DIR}/../shared/data CACHE PATH
  "Models and texts that tests use where they are there, and say that they skip where not")
add_library(banyan_test_support INTERFACE)
target_link_libraries(banyan_test_support INTERFACE GTest::gtest GTest::gtest_main)
target_compile_definitions(banyan_test_support INTERFACE
  BANYAN_TEST_DATA="${CMAKE_SOURCE_DIR}/tests/data"
  BANYAN_VOCAB_DATA="${BANYAN_DEPS}/llama.cpp/models"
  BANYAN_SHARED_DATA="${BANYAN_SHARED_DATA}")

# Before each test's name, so that builds whose tests run together can be told apart.
set(BANYAN_TEST_PREFIX "" CACHE STRING "Put before the name of every test, e.g. asan/")

# Rooms whose tests heed BANYAN_ISA. Where there is more than AVX2 they run a second time, as on a
# machine that has no more. Those of tensor and attention take turns with the sets by themselves.
set(BANYAN_ISA_ROOMS engine journeys)
set(BANYAN_ABOVE_AVX2 "")
if(EXISTS /proc/cpuinfo)
  file(STRINGS /proc/cpuinfo BANYAN_ABOVE_AVX2 REGEX "^flags.* avx512f " LIMIT_COUNT 1)
endif()

# banyan_register_tests(TARGET ROOM): every test of a test program, as "ROOM: Suite.name".
function(banyan_register_tests target room)
  gtest_discover_tests(${target} TEST_PREFIX "${BANYAN_TEST_PREFIX}${room}: "
    DISCOVERY_TIMEOUT 120 PROPERTIES TIMEOUT 600 LABELS ${room})
  if(room IN_LIST BANYAN_ISA_ROOMS AND BANYAN_ABOVE_AVX2 AND NOT BANYAN_SANITIZE)
    # One label: a list would be taken apart, and ENVIRONMENT behind it be lost.
    gtest_discover_tests(${target} TEST_PREFIX "${BANYAN_TEST_PREFIX}${room} (avx2): "
      TEST_LIST ${target}_avx2_list DISCOVERY_TIMEOUT 120
      PROPERTIES TIMEOUT 600 LABELS ${room}-avx2 ENVIRONMENT BANYAN_ISA=avx2)
  endif()
endfunction()

# banyan_journeys(): a program for each tests/NAME_test.cc. These see the whole, by its library and
# as the user does: BANYAN_PROGRAM is the path of banyan.
function(banyan_journeys)
  file(GLOB tests CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/*_test.cc)
  foreach(test ${tests})
    get_filename_component(name ${test} NAME_WE)
    set(target journey_${name})
    add_executable(${target} ${test})
    add_dependencies(${target} banyan)
    target_link_libraries(${target} PRIVATE banyan_cli banyan_test_support banyan_warnings)
    target_compile_definitions(${target} PRIVATE BANYAN_PROGRAM="$<TARGET_FILE:banyan>"
      BANYAN_TOOLS="${CMAKE_SOURCE_DIR}/tools")
    banyan_register_tests(${target} journeys)
  endforeach()
endfunction()

# What looks at the sources rather than at what was built from them.
if(NOT BANYAN_SANITIZE)
  find_package(Python3 3.9 REQUIRED COMPONENTS Interpreter)
  add_test(NAME "tools: rooms import what docs/rooms.md lets them"
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/check_rooms.py)
  add_test(NAME "tools: sources are formatted" COMMAND ${CMAKE_SOURCE_DIR}/tools/format --check)
  set_tests_properties("tools: sources are formatted" PROPERTIES SKIP_RETURN_CODE 77)
  add_test(NAME "tools: unit tests"
    COMMAND ${Python3_EXECUTABLE} -m unittest discover -s ${CMAKE_SOURCE_DIR}/tools -p "*_test.py")
  set_tests_properties("tools: unit tests" PROPERTIES TIMEOUT 120)
  # This one needs what was built, all of it.
  add_test(NAME "library: installed for C, C++ and Python"
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tests/install_test.py ${CMAKE_BINARY_DIR})
  set_tests_properties("library: installed for C, C++ and Python" PROPERTIES
    TIMEOUT 600 SKIP_RETURN_CODE 77)
endif()
