# A stand-in for CUDA on a LibTorch without it: loaded into a program (LD_PRELOAD, or linked), it makes devices
# cuda:0, cuda:1, … of the host's memory. A LibTorch with CUDA has the real one.
if(EXISTS "${TORCH_DIR}/lib/libtorch_cuda.so")
  return()
endif()

file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/*.cpp")
file(GLOB tests CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/*_test.cpp")
list(REMOVE_ITEM sources ${tests})
add_library(shardpipe_fake_cuda SHARED ${sources})
shardpipe_compile_options(shardpipe_fake_cuda)
set_target_properties(shardpipe_fake_cuda PROPERTIES
  DEFINE_SYMBOL "" LIBRARY_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}")
target_link_libraries(shardpipe_fake_cuda PRIVATE shardpipe::torch)
target_compile_definitions(shardpipe_fake_cuda PRIVATE FMT_HEADER_ONLY=1)  # as the precompiled header
shardpipe_reuse_torch_pch(shardpipe_fake_cuda)

add_executable(fake_cuda_tests ${tests})
shardpipe_compile_options(fake_cuda_tests)
target_compile_definitions(fake_cuda_tests PRIVATE FMT_HEADER_ONLY=1)
target_link_libraries(fake_cuda_tests PRIVATE shardpipe_fake_cuda shardpipe::torch GTest::gmock GTest::gtest_main)
shardpipe_reuse_torch_pch(fake_cuda_tests)
add_test(NAME fake_cuda_tests COMMAND fake_cuda_tests)
set_tests_properties(fake_cuda_tests PROPERTIES LABELS unit)

# And one for NCCL between its devices, in a folder of its own: who has that in LD_LIBRARY_PATH has NCCL.
find_package(Threads REQUIRED)
add_library(shardpipe_fake_nccl SHARED "${CMAKE_CURRENT_LIST_DIR}/../fake_nccl/fake_nccl.cpp")
shardpipe_compile_options(shardpipe_fake_nccl)
set_target_properties(shardpipe_fake_nccl PROPERTIES
  DEFINE_SYMBOL "" OUTPUT_NAME nccl SUFFIX ".so.2" LIBRARY_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}/fake_nccl")
target_link_libraries(shardpipe_fake_nccl PRIVATE Threads::Threads)

# A program of its own: what is linked with the stand-in has its devices.
add_executable(comm_device_tests "${CMAKE_CURRENT_SOURCE_DIR}/comm/device_tensors.cpp")
shardpipe_compile_options(comm_device_tests)
target_include_directories(comm_device_tests PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
target_link_libraries(comm_device_tests PRIVATE shardpipe_fake_cuda shardpipe_comm GTest::gmock GTest::gtest_main)
shardpipe_reuse_torch_pch(comm_device_tests)
add_test(NAME comm_device_tests COMMAND comm_device_tests)
set_tests_properties(comm_device_tests PROPERTIES LABELS unit)
