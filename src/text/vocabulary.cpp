#include "text/vocabulary.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace shardpipe::text {

size_t Vocabulary::slot(std::string_view token) const {
  const size_t mask = slots_.size() - 1;
  size_t i = std::hash<std::string_view>{}(token)&mask;
  while (slots_[i] != 0 && text(entries_[slots_[i] - 1]) != token) {
    i = (i + 1) & mask;
  }
  return i;
}

void Vocabulary::grow() {
  const size_t size = std::max<size_t>(1024, slots_.size() * 2);
  slots_.assign(size, 0);
  for (size_t i = 0; i < entries_.size(); ++i) {
    slots_[slot(text(entries_[i]))] = static_cast<uint32_t>(i + 1);
  }
}

void Vocabulary::add(std::string_view token, uint32_t id) {
  if (2 * (entries_.size() + 1) > slots_.size()) {
    grow();
  }
  const size_t i = slot(token);
  if (slots_[i] != 0) {
    entries_[slots_[i] - 1].id = id;
    return;
  }
  entries_.push_back({characters_.size(), token.size(), id});
  characters_.append(token);
  longest_ = std::max(longest_, token.size());
  slots_[i] = static_cast<uint32_t>(entries_.size());
}

void Vocabulary::index() {
  by_id_.resize(entries_.size());
  std::iota(by_id_.begin(), by_id_.end(), 0);
  const auto less = [&](uint32_t a, uint32_t b) { return entries_[a].id < entries_[b].id; };
  if (!std::is_sorted(by_id_.begin(), by_id_.end(), less)) {
    std::stable_sort(by_id_.begin(), by_id_.end(), less);
  }
}

std::optional<uint32_t> Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) {
    return std::nullopt;
  }
  const uint32_t found = slots_[slot(token)];
  return found == 0 ? std::nullopt : std::optional(entries_[found - 1].id);
}

std::optional<std::string_view> Vocabulary::token(int64_t id) const {
  const auto after = std::upper_bound(
      by_id_.begin(), by_id_.end(), id, [&](int64_t value, uint32_t i) { return value < entries_[i].id; });
  if (after == by_id_.begin() || entries_[*(after - 1)].id != id) {
    return std::nullopt;
  }
  return text(entries_[*(after - 1)]);
}

}  // namespace shardpipe::text
