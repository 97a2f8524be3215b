# The program that plays the ranks of module_test.cpp.
add_executable(api_module_player "${CMAKE_CURRENT_LIST_DIR}/module_player.cpp")
shardpipe_compile_options(api_module_player)
target_link_libraries(api_module_player PRIVATE shardpipe_api)
shardpipe_reuse_torch_pch(api_module_player)
add_dependencies(api_tests api_module_player)
target_compile_definitions(api_tests PRIVATE SHARDPIPE_MODULE_PLAYER="$<TARGET_FILE:api_module_player>")
set_tests_properties(api_tests PROPERTIES PROCESSORS 2)
# The ranks of parallel_layers_test.cpp, a program of gtest itself.
add_executable(api_layers_player "${CMAKE_CURRENT_LIST_DIR}/layers_player.cpp")
shardpipe_compile_options(api_layers_player)
target_include_directories(api_layers_player PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
target_link_libraries(api_layers_player PRIVATE shardpipe_api GTest::gmock GTest::gtest)
shardpipe_reuse_torch_pch(api_layers_player)
add_dependencies(api_tests api_layers_player)
target_compile_definitions(api_tests PRIVATE SHARDPIPE_LAYERS_PLAYER="$<TARGET_FILE:api_layers_player>")
# The owner that worker_pool_test.cpp kills, and the program that pools start.
add_executable(api_pool_owner "${CMAKE_CURRENT_LIST_DIR}/pool_owner.cpp")
shardpipe_compile_options(api_pool_owner)
target_link_libraries(api_pool_owner PRIVATE shardpipe_api)
add_dependencies(api_tests api_pool_owner shardpipe_cli)
target_compile_definitions(api_tests PRIVATE
  SHARDPIPE_POOL_OWNER="$<TARGET_FILE:api_pool_owner>" SHARDPIPE_TEST_PROGRAM="$<TARGET_FILE:shardpipe_cli>")
