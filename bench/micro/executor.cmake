# executor_bench: what the executor adds to a node. Included by bench/CMakeLists.txt, which has found google-benchmark.
add_executable(executor_bench "${CMAKE_CURRENT_LIST_DIR}/executor_bench.cpp")
shardpipe_compile_options(executor_bench)
target_link_libraries(executor_bench PRIVATE shardpipe_graph benchmark::benchmark)
shardpipe_reuse_torch_pch(executor_bench)
