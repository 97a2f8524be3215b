#include "text/model.h"

#include "base/error.h"
#include "text/bpe.h"
#include "text/fields.h"

namespace shardpipe::text {
namespace {

// Files of early versions leave the type out; only BPE has merges.
std::string model_type(const TokenizerFile& file, const Fields& fields) {
  if (fields.has("type")) {
    return fields.type();
  }
  return file.has_merges ? "BPE" : "(none)";
}

}  // namespace

std::unique_ptr<const Model> make_model(TokenizerFile& file) {
  const Fields fields(Fields(file.fields, file.where).get("model"), file.where + ": model");
  const std::string type = model_type(file, fields);
  if (type == "BPE") {
    return std::make_unique<Bpe>(fields, file);
  }
  throw_usage("{} has the unsupported type {:?}", fields.where(), type);
}

}  // namespace shardpipe::text
