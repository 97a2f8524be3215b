# The program that plays the ranks of module_test.cpp.
add_executable(api_module_player "${CMAKE_CURRENT_LIST_DIR}/module_player.cpp")
shardpipe_compile_options(api_module_player)
target_link_libraries(api_module_player PRIVATE shardpipe_api)
shardpipe_reuse_torch_pch(api_module_player)
add_dependencies(api_tests api_module_player)
target_compile_definitions(api_tests PRIVATE SHARDPIPE_MODULE_PLAYER="$<TARGET_FILE:api_module_player>")
set_tests_properties(api_tests PROPERTIES PROCESSORS 2)
# The owner that worker_pool_test.cpp kills, and the program that pools start.
add_executable(api_pool_owner "${CMAKE_CURRENT_LIST_DIR}/pool_owner.cpp")
shardpipe_compile_options(api_pool_owner)
target_link_libraries(api_pool_owner PRIVATE shardpipe_api)
add_dependencies(api_tests api_pool_owner shardpipe_cli)
target_compile_definitions(api_tests PRIVATE
  SHARDPIPE_POOL_OWNER="$<TARGET_FILE:api_pool_owner>" SHARDPIPE_TEST_PROGRAM="$<TARGET_FILE:shardpipe_cli>")
