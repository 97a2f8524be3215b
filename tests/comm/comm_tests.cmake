# The program that plays the ranks of the multi-process tests; comm_tests and the soak runs start it.
add_executable(comm_rank_player
  "${CMAKE_CURRENT_LIST_DIR}/rank_player.cpp" "${CMAKE_CURRENT_LIST_DIR}/rank_player_bench.cpp"
  "${CMAKE_CURRENT_LIST_DIR}/rank_player_c10d.cpp")
shardpipe_compile_options(comm_rank_player)
target_include_directories(comm_rank_player PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
target_link_libraries(comm_rank_player PRIVATE shardpipe_comm)
shardpipe_reuse_torch_pch(comm_rank_player)
if(TARGET comm_tests)
  add_dependencies(comm_tests comm_rank_player)
  target_compile_definitions(comm_tests PRIVATE
    SHARDPIPE_RANK_PLAYER="$<TARGET_FILE:comm_rank_player>" SHARDPIPE_PYTHON="${SHARDPIPE_PYTHON}")
endif()

# What needs GPUs: `ctest -C gpu -L gpu`, never part of the rest.
if(SHARDPIPE_CUDA)
  add_executable(comm_gpu_check "${CMAKE_CURRENT_LIST_DIR}/nccl_check.cpp")
  shardpipe_compile_options(comm_gpu_check)
  target_include_directories(comm_gpu_check PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
  target_link_libraries(comm_gpu_check PRIVATE shardpipe_comm GTest::gmock GTest::gtest_main)
  shardpipe_reuse_torch_pch(comm_gpu_check)
  add_test(NAME comm_gpu_check CONFIGURATIONS gpu COMMAND comm_gpu_check)
  set_tests_properties(comm_gpu_check PROPERTIES LABELS gpu)
else()
  add_custom_target(comm_gpu_check
    COMMAND "${CMAKE_COMMAND}" -E echo "error: ${TORCH_DIR} is a LibTorch without CUDA; give TORCH_DIR=<one for CUDA>"
    COMMAND "${CMAKE_COMMAND}" -E false VERBATIM)
endif()
