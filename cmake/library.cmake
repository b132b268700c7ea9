# libbanyan.so and what is installed: the library with its C API and C++ header, a CMake package
# (find_package(banyan), banyan::banyan), a pkg-config file, and the program. All objects are those
# of the static rooms, which are position-independent: nothing is compiled twice.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

file(STRINGS ${CMAKE_SOURCE_DIR}/include/banyan/banyan.h abi_line
  REGEX "^#define BANYAN_ABI_VERSION [0-9]+$")
string(REGEX MATCH "[0-9]+$" banyan_abi "${abi_line}")

# The version script hides all but the C API, what libraries bring along too.
add_library(banyan_shared SHARED $<TARGET_OBJECTS:banyan_api>)
set_target_properties(banyan_shared PROPERTIES OUTPUT_NAME banyan EXPORT_NAME banyan
  VERSION ${PROJECT_VERSION} SOVERSION ${banyan_abi}
  LINK_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/libbanyan.map)
target_link_libraries(banyan_shared PRIVATE banyan_engine)
target_link_options(banyan_shared PRIVATE
  -Wl,--version-script=${CMAKE_CURRENT_LIST_DIR}/libbanyan.map)
target_include_directories(banyan_shared INTERFACE
  $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/banyan)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/banyanConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
# Found from where the file lies, so that the installed tree may be moved.
file(RELATIVE_PATH pkgconfig_to_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(${CMAKE_CURRENT_LIST_DIR}/banyan.pc.in ${CMAKE_BINARY_DIR}/banyan.pc @ONLY)

install(TARGETS banyan)
install(TARGETS banyan_shared EXPORT banyan)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/banyan TYPE INCLUDE)
install(EXPORT banyan NAMESPACE banyan:: FILE banyanConfig.cmake DESTINATION ${package_dir})
install(FILES ${CMAKE_BINARY_DIR}/banyanConfigVersion.cmake DESTINATION ${package_dir})
install(FILES ${CMAKE_BINARY_DIR}/banyan.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
