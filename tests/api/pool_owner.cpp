// An ordinary program with a pool of workers: pool_owner PROGRAM MODEL. Prints its own id and theirs, then waits.
#include <unistd.h>

#include <cstdio>

#include "shardpipe/worker_pool.h"

int main(int, char** argv) {
  shardpipe::WorkerPoolOptions options;
  options.program = argv[1];
  const shardpipe::WorkerPool pool(argv[2], options);
  std::printf("%d", ::getpid());
  for (const pid_t worker : pool.process_ids()) {
    std::printf(" %d", worker);
  }
  std::printf("\n");
  std::fflush(stdout);
  ::pause();
}
