# The families against transformers: Python makes checkpoints and what transformers computes from them, ours compares.
add_executable(hf_reference_tests "${CMAKE_CURRENT_LIST_DIR}/transformers_compare.cpp")
shardpipe_compile_options(hf_reference_tests)
target_include_directories(hf_reference_tests PRIVATE "${CMAKE_CURRENT_LIST_DIR}/../..")
target_link_libraries(hf_reference_tests PRIVATE shardpipe_frontend_hf GTest::gmock GTest::gtest)
shardpipe_reuse_torch_pch(hf_reference_tests)

set(folder "${CMAKE_CURRENT_BINARY_DIR}/hf_reference")
add_test(NAME hf_reference.make
  COMMAND "${SHARDPIPE_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/reference.py" "${folder}" "${SHARDPIPE_DEMO_MODEL}")
add_test(NAME hf_reference.compare COMMAND hf_reference_tests "${folder}")
set_tests_properties(hf_reference.make PROPERTIES FIXTURES_SETUP hf_reference TIMEOUT 600 LABELS reference)
set_tests_properties(hf_reference.compare PROPERTIES FIXTURES_REQUIRED hf_reference TIMEOUT 600 LABELS reference)

# The same for programs of one forward pass.
add_executable(forward_reference_tests "${CMAKE_CURRENT_LIST_DIR}/forward_compare.cpp")
shardpipe_compile_options(forward_reference_tests)
target_include_directories(forward_reference_tests PRIVATE "${CMAKE_CURRENT_LIST_DIR}/../..")
target_link_libraries(forward_reference_tests PRIVATE shardpipe_frontend_hf GTest::gmock GTest::gtest)
shardpipe_reuse_torch_pch(forward_reference_tests)

set(folder "${CMAKE_CURRENT_BINARY_DIR}/forward_reference")
add_test(NAME forward_reference.make
  COMMAND "${SHARDPIPE_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/forward_reference.py" "${folder}")
add_test(NAME forward_reference.compare COMMAND forward_reference_tests "${folder}")
set_tests_properties(forward_reference.make PROPERTIES FIXTURES_SETUP forward_reference TIMEOUT 600 LABELS reference)
set_tests_properties(
  forward_reference.compare PROPERTIES FIXTURES_REQUIRED forward_reference TIMEOUT 600 LABELS reference
  ENVIRONMENT "OMP_NUM_THREADS=1")  # tensors of a few kilobytes
