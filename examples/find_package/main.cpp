// Prints Shardpipe's version and shows that its one exception type arrives in an outside program.
#include <shardpipe/error.h>
#include <shardpipe/version.h>

#include <iostream>

int main() {
  std::cout << "shardpipe " << SHARDPIPE_VERSION << '\n';
  try {
    throw shardpipe::Error(shardpipe::ErrorCode::usage, "--pp 0, must be at least 1", "give the number of stages");
  } catch (const shardpipe::Error& error) {
    std::cout << error.what() << '\n' << "exit status " << shardpipe::exit_status(error.code()) << '\n';
  }
}
