# Fuzz targets of the readers, built beside the project (tests/fuzz/CMakeLists.txt) and run from their corpus for some
# seconds each. By Clang with libFuzzer where the machine has it, else by the project's compiler with driver.cpp.
#   SHARDPIPE_FUZZ_CXX  the compiler (default: the first Clang that links libFuzzer, else the project's)
include(ExternalProject)

function(shardpipe_find_fuzz_compiler)
  file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/fuzz_probe.cpp"
    "#include <string>\nextern \"C\" int LLVMFuzzerTestOneInput(const char*, unsigned long n) { return std::string(n, 0)[0]; }\n")
  set(names clang++)
  foreach(version RANGE 22 14 -1)
    list(APPEND names clang++-${version})
  endforeach()
  foreach(name ${names})
    find_program(found NAMES ${name} NO_CACHE)
    if(found)
      execute_process(
        COMMAND "${found}" -std=c++20 -fsanitize=fuzzer,address,undefined fuzz_probe.cpp -o fuzz_probe
        WORKING_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}" RESULT_VARIABLE status OUTPUT_QUIET ERROR_QUIET)
      if(status EQUAL 0)
        set(SHARDPIPE_FUZZ_CXX "${found}" CACHE FILEPATH "Compiler of the fuzz targets")
        return()
      endif()
    endif()
    unset(found)
  endforeach()
  set(SHARDPIPE_FUZZ_CXX "${CMAKE_CXX_COMPILER}" CACHE FILEPATH "Compiler of the fuzz targets")
endfunction()

if(NOT SHARDPIPE_FUZZ_CXX)
  shardpipe_find_fuzz_compiler()
endif()
if(SHARDPIPE_FUZZ_CXX STREQUAL CMAKE_CXX_COMPILER AND NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  message(STATUS "Fuzz targets: no Clang with libFuzzer (packages clang, libclang-rt-dev); ${SHARDPIPE_FUZZ_CXX} with a driver of our own")
else()
  message(STATUS "Fuzz targets: libFuzzer of ${SHARDPIPE_FUZZ_CXX}")
endif()

set(folder "${PROJECT_BINARY_DIR}/fuzz")
string(REPLACE ";" "|" launcher "${CMAKE_CXX_COMPILER_LAUNCHER}")
ExternalProject_Add(shardpipe_fuzz
  SOURCE_DIR "${CMAKE_CURRENT_LIST_DIR}"
  BINARY_DIR "${folder}"
  PREFIX "${folder}/external"
  CMAKE_ARGS "-DCMAKE_CXX_COMPILER=${SHARDPIPE_FUZZ_CXX}" "-DCMAKE_CXX_COMPILER_LAUNCHER=${launcher}"
  LIST_SEPARATOR "|"
  BUILD_COMMAND "${CMAKE_COMMAND}" --build "${folder}" --parallel 2
  BUILD_ALWAYS ON
  INSTALL_COMMAND "")

# At most two at a time.
set(lock 0)
file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/*_fuzz.cpp")
foreach(source ${sources})
  get_filename_component(target "${source}" NAME)
  string(REPLACE "_fuzz.cpp" "" target "${target}")
  add_test(NAME fuzz.${target} COMMAND "${SHARDPIPE_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/run.py" "${folder}" ${target})
  set_tests_properties(fuzz.${target} PROPERTIES LABELS "fuzz;soak" RESOURCE_LOCK fuzz_${lock})
  math(EXPR lock "1 - ${lock}")
endforeach()
add_test(NAME fuzz.large COMMAND "${SHARDPIPE_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/large.py" "${folder}")
set_tests_properties(fuzz.large PROPERTIES LABELS fuzz)
