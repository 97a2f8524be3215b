# Tests of tools/, of the repository's structure and of the installed package: Python unittests, one ctest a file.
foreach(name check_includes setup tidy_database)
  add_test(NAME tools.${name} COMMAND "${SHARDPIPE_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/${name}_test.py")
  set_tests_properties(tools.${name} PROPERTIES TIMEOUT 120 LABELS unit)
endforeach()
add_test(NAME tools.package
  COMMAND "${SHARDPIPE_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/package_test.py" "${PROJECT_BINARY_DIR}" "${TORCH_DIR}" "${SHARDPIPE_DEMO_MODEL}")
set_tests_properties(tools.package PROPERTIES TIMEOUT 300 LABELS unit)
