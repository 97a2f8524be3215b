# Comparison of src/checkpoint with the Python packages safetensors and transformers: Python writes
# files and what it reads from them, our readers compare and write them again, Python reads those.
add_executable(checkpoint_reference_tests "${CMAKE_CURRENT_LIST_DIR}/checkpoint_reference.cpp")
shardpipe_compile_options(checkpoint_reference_tests)
target_include_directories(checkpoint_reference_tests PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
target_link_libraries(checkpoint_reference_tests PRIVATE shardpipe_checkpoint GTest::gtest)
shardpipe_reuse_torch_pch(checkpoint_reference_tests)

set(script "${CMAKE_CURRENT_LIST_DIR}/safetensors_reference.py")
set(folder "${CMAKE_CURRENT_BINARY_DIR}/checkpoint_reference")
add_test(NAME checkpoint_reference.make COMMAND "${SHARDPIPE_PYTHON}" "${script}" make "${folder}")
add_test(NAME checkpoint_reference.compare COMMAND checkpoint_reference_tests "${folder}")
add_test(NAME checkpoint_reference.check COMMAND "${SHARDPIPE_PYTHON}" "${script}" check "${folder}")
set_tests_properties(checkpoint_reference.make PROPERTIES FIXTURES_SETUP checkpoint_files)
set_tests_properties(
  checkpoint_reference.compare PROPERTIES FIXTURES_REQUIRED checkpoint_files FIXTURES_SETUP checkpoint_written)
set_tests_properties(checkpoint_reference.check PROPERTIES FIXTURES_REQUIRED "checkpoint_files;checkpoint_written")
foreach(step make compare check)
  set_tests_properties(checkpoint_reference.${step} PROPERTIES TIMEOUT 300 LABELS reference)
endforeach()

# Files of torch.save, which Python writes and our reader reads.
add_executable(torch_reference_tests "${CMAKE_CURRENT_LIST_DIR}/torch_reference.cpp")
shardpipe_compile_options(torch_reference_tests)
target_include_directories(torch_reference_tests PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
target_link_libraries(torch_reference_tests PRIVATE shardpipe_checkpoint GTest::gtest)
shardpipe_reuse_torch_pch(torch_reference_tests)

set(folder "${CMAKE_CURRENT_BINARY_DIR}/torch_reference")
add_test(NAME torch_reference.make
  COMMAND "${SHARDPIPE_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/torch_reference.py" "${folder}")
add_test(NAME torch_reference.compare COMMAND torch_reference_tests "${folder}")
set_tests_properties(torch_reference.make PROPERTIES FIXTURES_SETUP torch_files TIMEOUT 300 LABELS reference)
set_tests_properties(torch_reference.compare PROPERTIES FIXTURES_REQUIRED torch_files TIMEOUT 300 LABELS reference)
