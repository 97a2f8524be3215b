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
