# What the machine offers to make builds faster, and the Python of the tests.
#   SHARDPIPE_CCACHE  compile through ccache (default: where it is installed)
#   SHARDPIPE_MOLD    link with mold (default: where the compiler accepts it)
#   SHARDPIPE_PYTHON  interpreter that has the packages of tools/requirements-*.txt
include(CheckLinkerFlag)

find_program(SHARDPIPE_CCACHE_PROGRAM ccache)
mark_as_advanced(SHARDPIPE_CCACHE_PROGRAM)
if(SHARDPIPE_CCACHE_PROGRAM)
  set(ccache_default ON)
endif()
option(SHARDPIPE_CCACHE "Compile through ccache" ${ccache_default})
if(SHARDPIPE_CCACHE AND SHARDPIPE_CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # ccache refuses translation units with a precompiled header unless told that its times and macros do not matter.
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env
    "CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime" "${SHARDPIPE_CCACHE_PROGRAM}")
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-fpch-preprocess)
  endif()
endif()

check_linker_flag(CXX -fuse-ld=mold SHARDPIPE_HAS_MOLD)
option(SHARDPIPE_MOLD "Link with mold" ${SHARDPIPE_HAS_MOLD})
if(SHARDPIPE_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

set(python_default "${PROJECT_SOURCE_DIR}/.venv/bin/python")
if(NOT EXISTS "${python_default}")
  set(python_default python3)
endif()
set(SHARDPIPE_PYTHON "${python_default}" CACHE FILEPATH "Python of the tests")
