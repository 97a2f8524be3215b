# The tokenizer against the Python packages: one test writes the cases, one compares. Needs SHARDPIPE_PYTHON; where
# SHARDPIPE_DEMO_MODEL names a folder with a tokenizer.json, that tokenizer is compared too.
add_executable(tokenizer_reference "${CMAKE_CURRENT_LIST_DIR}/tokenizer_reference.cpp")
shardpipe_compile_options(tokenizer_reference)
target_link_libraries(tokenizer_reference PRIVATE shardpipe_text)

set(tokenizer_cases "${CMAKE_CURRENT_BINARY_DIR}/tokenizer_cases")
set(tokenizer_folders "")
if(SHARDPIPE_DEMO_MODEL AND EXISTS "${SHARDPIPE_DEMO_MODEL}/tokenizer.json")
  set(tokenizer_folders --folder "${SHARDPIPE_DEMO_MODEL}")
endif()
add_test(NAME tokenizer_reference_cases
  COMMAND "${SHARDPIPE_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/tokenizer_reference.py" "${tokenizer_cases}" ${tokenizer_folders})
add_test(NAME tokenizer_reference COMMAND tokenizer_reference "${tokenizer_cases}/cases.jsonl")
set_tests_properties(tokenizer_reference_cases PROPERTIES FIXTURES_SETUP tokenizer_cases TIMEOUT 3600 LABELS reference)
set_tests_properties(tokenizer_reference PROPERTIES FIXTURES_REQUIRED tokenizer_cases TIMEOUT 3600 LABELS reference)
