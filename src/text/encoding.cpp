#include "text/encoding.h"

namespace shardpipe::text {
namespace {

void keep(std::vector<int64_t>& values, size_t begin, size_t end) {
  values.resize(end);
  values.erase(values.begin(), values.begin() + static_cast<ptrdiff_t>(begin));
}

}  // namespace

Encoding Encoding::of(std::vector<int64_t> ids, int64_t type_id, bool special) {
  const size_t size = ids.size();
  return {
      std::move(ids), std::vector<int64_t>(size, type_id), std::vector<int64_t>(size, 1),
      std::vector<int64_t>(size, special ? 1 : 0)};
}

void Encoding::append(const Encoding& other) {
  ids.insert(ids.end(), other.ids.begin(), other.ids.end());
  type_ids.insert(type_ids.end(), other.type_ids.begin(), other.type_ids.end());
  attention_mask.insert(attention_mask.end(), other.attention_mask.begin(), other.attention_mask.end());
  special_tokens_mask.insert(
      special_tokens_mask.end(), other.special_tokens_mask.begin(), other.special_tokens_mask.end());
}

void Encoding::cut(size_t begin, size_t end) {
  keep(ids, begin, end);
  keep(type_ids, begin, end);
  keep(attention_mask, begin, end);
  keep(special_tokens_mask, begin, end);
}

}  // namespace shardpipe::text
