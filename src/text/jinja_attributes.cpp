#include "text/jinja_attributes.h"

#include "text/jinja_budget.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace shardpipe::text::jinja {

Value generate(const Value& source, Step step) {
  return make_iterator(
      [source, step = std::move(step), open = Value::IteratorPtr()]() mutable {
        open = open ? open : iterate(source);
        charge(1);
        return step(*open);
      },
      source.depth());
}

AttributeGetter::AttributeGetter(const Value& attribute, bool ignores_case, std::optional<Value> otherwise)
    : ignores_case_(ignores_case), otherwise_(std::move(otherwise)) {
  if (attribute.text() == nullptr) {
    if (!attribute.is_none()) {
      parts_.push_back(attribute);
    }
    return;
  }
  for (const std::string& part : split(*attribute.text(), ".", -1)) {
    const auto index = is_all(part, CharacterClass::digit) ? parse_integer(part, 10) : std::nullopt;
    parts_.push_back(index ? Value(*index) : Value(part));
  }
}

Value AttributeGetter::operator()(Value item) const {
  for (const Value& part : parts_) {
    item = get_item(item, part);
    if (otherwise_ && item.is_undefined()) {
      item = *otherwise_;
    }
  }
  return ignores_case_ && item.text() != nullptr ? Value(lower(*item.text())) : item;
}

}  // namespace shardpipe::text::jinja
