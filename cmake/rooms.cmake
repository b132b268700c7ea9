# One library for each room, from the files in its folder; tests beside the code (x_test.cc) become
# one test program for each room. A room links only the rooms that docs/rooms.md lets it import.
#
#   banyan_room(NAME [ROOMS room..] [LIBS lib..])
function(banyan_room name)
  cmake_parse_arguments(ROOM "" "" "ROOMS;LIBS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")

  add_library(banyan_${name} STATIC ${sources})
  target_include_directories(banyan_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_compile_features(banyan_${name} PUBLIC cxx_std_20)
  target_link_libraries(banyan_${name} PRIVATE banyan_warnings)
  foreach(room ${ROOM_ROOMS})
    target_link_libraries(banyan_${name} PUBLIC banyan_${room})
  endforeach()
  target_link_libraries(banyan_${name} PUBLIC ${ROOM_LIBS})

  if(tests AND BANYAN_TESTS)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE banyan_${name} banyan_test_support banyan_warnings)
    banyan_register_tests(${name}_test ${name})
  endif()
endfunction()
