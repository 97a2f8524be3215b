# kernels_bench: each kernel with its part of the machine's limit. Included by bench/CMakeLists.txt, which has found
# google-benchmark.
add_executable(kernels_bench "${CMAKE_CURRENT_LIST_DIR}/kernels_bench.cpp")
shardpipe_compile_options(kernels_bench)
target_link_libraries(kernels_bench PRIVATE shardpipe_kernels benchmark::benchmark)
shardpipe_reuse_torch_pch(kernels_bench)
