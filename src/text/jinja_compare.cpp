// Python's ==, < and in.
#include <algorithm>

#include "base/error.h"
#include "text/jinja_budget.h"
#include "text/jinja_value.h"

namespace shardpipe::text::jinja {
namespace {

bool equal_dicts(const Dict& left, const Dict& right) {
  if (left.entries().size() != right.entries().size()) {
    return false;
  }
  return std::all_of(left.entries().begin(), left.entries().end(), [&right](const auto& entry) {
    const Value* other = right.find(entry.first);
    return other != nullptr && equal(entry.second, *other);
  });
}

// Python compares an integer with a float exactly; the long double of this platform holds every 64-bit integer.
static_assert(__LDBL_MANT_DIG__ >= 64);
long double exact(const Value& value) {
  return value.real() != nullptr ? static_cast<long double>(*value.real()) : static_cast<long double>(*value.integer());
}

// Lists and tuples order among themselves only.
bool ordered_alike(const Sequence* left, const Sequence* right) {
  return left != nullptr && right != nullptr && left->flavor == right->flavor &&
         (left->flavor == Sequence::Flavor::list || left->flavor == Sequence::Flavor::tuple);
}

}  // namespace

bool equal(const Value& left, const Value& right) {
  charge(1);
  if (left.number() && right.number()) {
    return exact(left) == exact(right);
  }
  if (left.is(right)) {
    return true;
  }
  if (left.text() != nullptr && right.text() != nullptr) {
    charge_bytes(std::min(left.text()->size(), right.text()->size()));
    return *left.text() == *right.text();
  }
  if (left.is_undefined() || left.is_none()) {
    return left.is_undefined() == right.is_undefined() && left.is_none() == right.is_none();
  }
  if (const Sequence* a = left.sequence()) {
    const Sequence* b = right.sequence();
    return b != nullptr && a->flavor == b->flavor && a->items.size() == b->items.size() &&
           std::equal(a->items.begin(), a->items.end(), b->items.begin(), equal);
  }
  return left.dict() != nullptr && right.dict() != nullptr && equal_dicts(*left.dict(), *right.dict());
}

bool less(const Value& left, const Value& right, const char* sign) {
  charge(1);
  if (left.number() && right.number()) {
    return exact(left) < exact(right);
  }
  if (left.text() != nullptr && right.text() != nullptr) {
    charge_bytes(std::min(left.text()->size(), right.text()->size()));
    return *left.text() < *right.text();  // the order of UTF-8 is the order of its code points
  }
  if (left.is_undefined() || right.is_undefined()) {
    fail_undefined(left.is_undefined() ? left : right);
  }
  const Sequence* a = left.sequence();
  const Sequence* b = right.sequence();
  if (!ordered_alike(a, b)) {
    throw_input("'{}' not supported between instances of '{}' and '{}'", sign, type_name(left), type_name(right));
  }
  for (size_t i = 0; i < std::min(a->items.size(), b->items.size()); ++i) {
    if (!equal(a->items[i], b->items[i])) {
      return less(a->items[i], b->items[i], sign);
    }
  }
  return a->items.size() < b->items.size();
}

bool contains(const Value& container, const Value& item) {
  if (const std::string* text = container.text()) {
    if (item.text() == nullptr) {
      throw_input("'in <string>' requires string as left operand, not {}", type_name(item));
    }
    charge_bytes(text->size());
    return text->find(*item.text()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) {
    return dict->find(item) != nullptr;
  }
  const auto iterator = try_iterate(container);
  if (!iterator) {
    throw_input("argument of type '{}' is not iterable", type_name(container));
  }
  while (const auto element = iterator->next()) {
    if (equal(*element, item)) {
      return true;
    }
  }
  return false;
}

}  // namespace shardpipe::text::jinja
