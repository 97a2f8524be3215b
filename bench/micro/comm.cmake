# comm_bench: shared memory against Gloo. Included by bench/CMakeLists.txt.
add_executable(comm_bench "${CMAKE_CURRENT_LIST_DIR}/comm_bench.cpp")
shardpipe_compile_options(comm_bench)
target_link_libraries(comm_bench PRIVATE shardpipe_comm)
shardpipe_reuse_torch_pch(comm_bench)
