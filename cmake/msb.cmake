# SPDX-License-Identifier: Apache-2.0
# Flags that every target shares, and the functions by which rooms declare their libraries, programs and tests.

# What is found from here on.
if(MSB_STATIC)
  set(CMAKE_FIND_LIBRARY_SUFFIXES .a .so)
endif()
find_library(MSB_URING uring REQUIRED)

find_package(PkgConfig REQUIRED)
find_package(doctest REQUIRED)

add_library(msb_flags INTERFACE)
target_include_directories(msb_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(msb_flags INTERFACE _GNU_SOURCE _GLIBCXX_ASSERTIONS)
target_compile_options(msb_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor
  -Wimplicit-fallthrough
  -fstack-protector-strong -fstack-clash-protection -fcf-protection -fno-strict-aliasing)
target_link_options(msb_flags INTERFACE -Wl,-z,relro,-z,now -Wl,-z,noexecstack)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # Members that are left out where others are named have the values that their types say, as they are meant to.
  target_compile_options(msb_flags INTERFACE -Wno-missing-designated-field-initializers)
endif()
if(MSB_PRECOMPILE AND CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # As clang forgets the pragmas there, by which the standard library uses what it has deprecated itself.
  target_compile_options(msb_flags INTERFACE -Wno-deprecated-declarations)
elseif(MSB_PRECOMPILE AND CMAKE_BUILD_TYPE STREQUAL "Release")
  # g++ 12 forgets of what comes from a precompiled header that it is the standard library's own.
  target_compile_options(msb_flags INTERFACE -Wno-array-bounds)
endif()
if(MSB_WERROR)
  target_compile_options(msb_flags INTERFACE -Werror)
endif()
# Of C too, which the guest's libraries are in. Empty without sanitizers.
set(msb_sanitize_options "")
if(MSB_SANITIZE STREQUAL "address")
  set(msb_sanitize_options
    -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  if(MSB_FUZZ)
    list(APPEND msb_sanitize_options -fsanitize=fuzzer-no-link)
  endif()
  target_compile_options(msb_flags INTERFACE ${msb_sanitize_options})
  target_link_options(msb_flags INTERFACE -fsanitize=address,undefined)
elseif(MSB_SANITIZE STREQUAL "thread")
  set(msb_sanitize_options -fsanitize=thread -fno-omit-frame-pointer)
  target_compile_options(msb_flags INTERFACE ${msb_sanitize_options})
  target_link_options(msb_flags INTERFACE -fsanitize=thread)
elseif(MSB_SANITIZE)
  message(FATAL_ERROR "MSB_SANITIZE is \"${MSB_SANITIZE}\" and can be address or thread; cmake --preset NAME sets it.")
else()
  target_compile_definitions(msb_flags INTERFACE $<$<CONFIG:Release>:_FORTIFY_SOURCE=2>)
endif()

add_library(msb_fmt STATIC ${CMAKE_SOURCE_DIR}/cmake/fmt.cpp)
if(MSB_SANITIZE)
  target_compile_options(msb_fmt PRIVATE -fsanitize=${MSB_SANITIZE})
endif()

# msb_program(NAME): what programs share that people start. Nothing that is linked statically is for others to use, so that a
# shared library that brings, say, libcrypto goes on to have its own.
function(msb_program name)
  target_compile_definitions(${name} PRIVATE MSB_VERSION="${PROJECT_VERSION}")
  if(MSB_STATIC)
    target_link_options(${name} PRIVATE -static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL)
  endif()
  # Sanitizers bring an allocator of their own.
  if(NOT MSB_SANITIZE)
    target_link_libraries(${name} PRIVATE mimalloc)
  endif()
endfunction()

# Precompiled headers serve targets with the same code model only, and executables have another than libraries.
function(msb_precompile name)
  add_library(${name} OBJECT ${CMAKE_SOURCE_DIR}/cmake/precompiled.cpp)
  target_link_libraries(${name} PRIVATE msb_flags)
  target_precompile_headers(${name} PRIVATE
    <algorithm> <array> <chrono> <cstdint> <cstring> <filesystem> <functional> <map> <memory> <optional> <span> <string>
    <string_view> <utility> <vector> <fmt/format.h> ${ARGN})
endfunction()
if(MSB_PRECOMPILE)
  msb_precompile(msb_precompiled)
  msb_precompile(msb_test_precompiled <fstream> <thread> <doctest/doctest.h>)
  set_target_properties(msb_test_precompiled PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(msb_test_precompiled PRIVATE -fPIE)
endif()

# msb_library(NAME SOURCES... [DEPENDS targets...] [PRECOMPILE headers...]): the static library of a room. PRECOMPILE: headers
# that most of its files include, and that take long.
function(msb_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;PRECOMPILE" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC msb_flags msb_fmt ${ARG_DEPENDS})
  if(MSB_PRECOMPILE AND ARG_PRECOMPILE)
    target_precompile_headers(${name} PRIVATE ${ARG_PRECOMPILE})
  elseif(MSB_PRECOMPILE)
    target_precompile_headers(${name} REUSE_FROM msb_precompiled)
  endif()
endfunction()

add_library(msb_doctest_main OBJECT EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/cmake/doctest_main.cpp)
target_link_libraries(msb_doctest_main PUBLIC msb_flags doctest::doctest)
add_library(msb_fuzz_seeds OBJECT EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/cmake/fuzz_seeds_test.cpp)
target_link_libraries(msb_fuzz_seeds PUBLIC msb_flags doctest::doctest)

# msb_test(NAME SOURCES... [DEPENDS targets...] [WRAP functions...]): a room's unit tests as one doctest program. The
# calls of the functions WRAP go to __wrap_FUNCTION (ld(1), --wrap).
function(msb_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;WRAP" ${ARGN})
  list(TRANSFORM ARG_WRAP PREPEND -Wl,--wrap=)
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE msb_flags msb_doctest_main ${ARG_DEPENDS})
  if(MSB_PRECOMPILE)
    target_precompile_headers(${name} REUSE_FROM msb_test_precompiled)
  endif()
  target_link_options(${name} PRIVATE ${ARG_WRAP})
  add_test(NAME ${name} COMMAND ${name})
  set_property(GLOBAL APPEND PROPERTY msb_tests ${name})
endfunction()

# Target unit-tests: all of them, and not the programs that people start.
function(msb_add_unit_tests)
  get_property(tests GLOBAL PROPERTY msb_tests)
  add_custom_target(unit-tests DEPENDS ${tests})
endfunction()

# msb_fuzz_target(NAME CORPUS DIRECTORY [ROUNDS n] SOURCES... [DEPENDS targets...] [WRAP functions...]): a libFuzzer target, whose
# seeds are in tests/corpus/DIRECTORY. With the preset fuzz it is the program NAME, which scripts/fuzz runs. In every
# preset it is the unit test NAME_test, which gives it the seeds and ROUNDS (500) small changes to each. WRAP: as of msb_test.
function(msb_fuzz_target name)
  cmake_parse_arguments(ARG "" "CORPUS;ROUNDS" "SOURCES;DEPENDS;WRAP" ${ARGN})
  if(NOT ARG_ROUNDS)
    set(ARG_ROUNDS 500)
  endif()
  set(seeds ${CMAKE_CURRENT_BINARY_DIR}/${name}_seeds.cpp)
  file(CONFIGURE OUTPUT ${seeds} CONTENT
    "extern const char* const msb_seeds = \"${CMAKE_SOURCE_DIR}/tests/corpus/${ARG_CORPUS}\";
extern const int msb_seed_rounds = ${ARG_ROUNDS};
")
  msb_test(${name}_test
    SOURCES ${ARG_SOURCES} ${seeds}
    DEPENDS msb_fuzz_seeds ${ARG_DEPENDS}
    WRAP ${ARG_WRAP})
  if(MSB_FUZZ)
    list(TRANSFORM ARG_WRAP PREPEND -Wl,--wrap=)
    add_executable(${name} ${ARG_SOURCES})
    target_link_libraries(${name} PRIVATE msb_flags ${ARG_DEPENDS})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer ${ARG_WRAP})
    set_property(GLOBAL APPEND PROPERTY msb_fuzz_targets ${name})
    set_property(GLOBAL APPEND_STRING PROPERTY msb_fuzz_list "${name} ${ARG_CORPUS}\n")
  endif()
endfunction()

# Target fuzz: all of them. The file fuzz-targets in the binary directory has a line for each: its name and its corpus.
function(msb_add_fuzz_targets)
  if(MSB_FUZZ)
    get_property(targets GLOBAL PROPERTY msb_fuzz_targets)
    get_property(list GLOBAL PROPERTY msb_fuzz_list)
    add_custom_target(fuzz DEPENDS ${targets})
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/fuzz-targets CONTENT "${list}")
  endif()
endfunction()

# Target check-headers: compiles every header of ours alone, so that each includes what it uses. That is so already for those
# which the source file of their name includes first, as clang-format has it.
function(msb_add_header_check)
  file(GLOB_RECURSE headers RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS
    base/*.hpp cli/*.hpp protocol/*.hpp protocol/*.h sandbox/*.hpp server/*.hpp virtio/*.hpp vmm/*.hpp oci/*.hpp launcher/*.hpp)
  set(sources "")
  foreach(header IN LISTS headers)
    cmake_path(REPLACE_EXTENSION header LAST_ONLY .cpp OUTPUT_VARIABLE own)
    if(EXISTS ${CMAKE_SOURCE_DIR}/${own})
      continue()
    endif()
    string(MAKE_C_IDENTIFIER ${header} id)
    set(source ${CMAKE_BINARY_DIR}/header-check/${id}.cpp)
    file(CONFIGURE OUTPUT ${source} CONTENT "#include \"${header}\"\n#include \"${header}\"\n")
    list(APPEND sources ${source})
  endforeach()
  add_library(check-headers OBJECT EXCLUDE_FROM_ALL ${sources})
  target_link_libraries(check-headers PRIVATE msb_flags doctest::doctest)
  # For cereal's RapidJSON: base/CMakeLists.txt says why.
  target_compile_options(check-headers PRIVATE
    "$<$<CXX_COMPILER_ID:Clang>:-fdelayed-template-parsing;-Wno-delayed-template-parsing-in-cxx20>")
endfunction()
