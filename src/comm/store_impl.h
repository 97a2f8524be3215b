#pragma once

// For the files of this folder that hand the store on to c10d.
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "comm/store.h"

namespace shardpipe::comm {

struct Store::Impl {
  c10::intrusive_ptr<c10d::Store> connection;  ///< keys as the server knows them
  c10::intrusive_ptr<c10d::Store> prefixed;    ///< the same connection, keys under `prefix`
  std::string prefix;
  std::string host;
  int port = 0;
  bool server = false;
};

}  // namespace shardpipe::comm
