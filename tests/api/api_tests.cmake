# The program that plays the ranks of module_test.cpp.
add_executable(api_module_player "${CMAKE_CURRENT_LIST_DIR}/module_player.cpp")
shardpipe_compile_options(api_module_player)
target_link_libraries(api_module_player PRIVATE shardpipe_api)
shardpipe_reuse_torch_pch(api_module_player)
add_dependencies(api_tests api_module_player)
target_compile_definitions(api_tests PRIVATE SHARDPIPE_MODULE_PLAYER="$<TARGET_FILE:api_module_player>")
set_tests_properties(api_tests PROPERTIES PROCESSORS 2)
