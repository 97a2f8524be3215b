# Chat templates against transformers and jinja2. Needs SHARDPIPE_PYTHON; SHARDPIPE_FUZZ_SCALE multiplies the random ones.
add_executable(chat_render "${CMAKE_CURRENT_LIST_DIR}/chat_render.cpp")
shardpipe_compile_options(chat_render)
target_link_libraries(chat_render PRIVATE shardpipe_text)
foreach(part templates language characters folders fuzz)
  add_test(NAME chat_reference.${part}
    COMMAND "${SHARDPIPE_PYTHON}" "${CMAKE_CURRENT_LIST_DIR}/chat_reference.py" "$<TARGET_FILE:chat_render>" ${part})
  set_tests_properties(chat_reference.${part} PROPERTIES TIMEOUT 3600 LABELS reference ENVIRONMENT "HF_HUB_OFFLINE=1")
endforeach()
