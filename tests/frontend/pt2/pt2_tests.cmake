# Exported programs against Python's: Python exports models and runs them, ours compares. The exports are kept in the
# build folder as long as the script is the same.
add_executable(pt2_reference_tests "${CMAKE_CURRENT_LIST_DIR}/exported_compare.cpp" "${CMAKE_CURRENT_LIST_DIR}/archives_compare.cpp")
shardpipe_compile_options(pt2_reference_tests)
target_include_directories(pt2_reference_tests PRIVATE "${CMAKE_CURRENT_LIST_DIR}/../..")
target_link_libraries(pt2_reference_tests PRIVATE shardpipe_frontend_pt2 shardpipe_partition GTest::gmock GTest::gtest)
shardpipe_reuse_torch_pch(pt2_reference_tests)

set(folder "${CMAKE_CURRENT_BINARY_DIR}/pt2_reference")
add_test(NAME pt2_reference.make
  COMMAND "${SHARDPIPE_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/export_models.py" "${folder}")
add_test(NAME pt2_reference.compare COMMAND pt2_reference_tests "${folder}")
set_tests_properties(pt2_reference.make PROPERTIES FIXTURES_SETUP pt2_reference TIMEOUT 900 LABELS reference)
set_tests_properties(pt2_reference.compare PROPERTIES FIXTURES_REQUIRED pt2_reference TIMEOUT 600 LABELS "reference;soak")
