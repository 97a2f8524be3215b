# The Hugging Face families against transformers: reference.py makes checkpoints and logits, hf_transformers_compare
# compares.
if(TARGET shardpipe_frontend_hf)
  add_executable(hf_transformers_compare "${CMAKE_CURRENT_LIST_DIR}/transformers_compare.cpp")
  shardpipe_compile_options(hf_transformers_compare)
  target_include_directories(hf_transformers_compare PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_link_libraries(hf_transformers_compare PRIVATE shardpipe_frontend_hf GTest::gmock GTest::gtest)
  shardpipe_reuse_torch_pch(hf_transformers_compare)

  set(hf_reference "${PROJECT_BINARY_DIR}/tests/hf_reference")
  add_test(NAME hf_reference_data
    COMMAND "${SHARDPIPE_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/reference.py" "${hf_reference}"
            "${PROJECT_SOURCE_DIR}/models/SmolLM2-135M-Instruct")
  set_tests_properties(hf_reference_data PROPERTIES FIXTURES_SETUP hf_reference LABELS python TIMEOUT 600)
  add_test(NAME hf_transformers_compare COMMAND hf_transformers_compare "${hf_reference}")
  set_tests_properties(hf_transformers_compare PROPERTIES FIXTURES_REQUIRED hf_reference LABELS python TIMEOUT 600)
endif()
