#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"
#include "text/onig_pattern.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace shardpipe::text {
namespace {

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using CompileContext = std::unique_ptr<pcre2_compile_context, Deleter<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Deleter<pcre2_jit_stack_free>>;

std::string message(int error) {
  std::string text(256, '\0');
  const int length = pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(text.data()), text.size());
  text.resize(length > 0 ? static_cast<size_t>(length) : 0);
  return text;
}

// One search after another through one text.
class Matcher {
 public:
  Matcher(const pcre2_code* code, std::string_view pattern, std::string_view text)
      : code_(code),
        pattern_(pattern),
        text_(text),
        data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)) {}

  // The first match at or after `from`; false when there is none.
  bool find(size_t from, size_t& begin, size_t& end) {
    int result = match(from);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT && stack_ == nullptr) {
      // The machine stack that JIT code uses by default is 32 KiB; long runs may need more.
      stack_.reset(pcre2_jit_stack_create(256 << 10, 256 << 20, nullptr));
      pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
      result = match(from);
    }
    if (result == PCRE2_ERROR_NOMATCH) {
      return false;
    }
    if (result < 0) {
      throw_usage("pattern {:?} gives up on a text of {} bytes: {}", pattern_, text_.size(), message(result));
    }
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_.get());
    begin = offsets[0];
    end = offsets[1];
    return true;
  }

 private:
  int match(size_t from) {
    return pcre2_match(
        code_, reinterpret_cast<PCRE2_SPTR>(text_.data()), text_.size(), from, PCRE2_NO_UTF_CHECK, data_.get(),
        context_.get());
  }

  const pcre2_code* code_;
  std::string_view pattern_;
  std::string_view text_;
  MatchData data_;
  MatchContext context_;
  JitStack stack_;
};

}  // namespace

struct Regex::Code {
  std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>> code;
  std::string pattern;  // as compiled, for messages
  bool literal;
};

Regex Regex::compile(const std::string& pattern, unsigned options, const std::string& where) {
  const CompileContext context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->code.reset(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options | PCRE2_UTF, &error, &offset,
      context.get()));
  if (code->code == nullptr) {
    throw_input("pattern {:?} does not compile, {}: {}", pattern, where, message(error));
  }
  // Without JIT (an architecture that PCRE2 has none for) pcre2_match interprets.
  pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE);
  code->pattern = pattern;
  code->literal = (options & PCRE2_LITERAL) != 0;
  return Regex(std::move(code));
}

Regex Regex::pattern(std::string_view onig, const std::string& where) {
  return compile(pcre2_pattern(onig), PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, where);
}

Regex Regex::literal(std::string_view text) {
  return compile(std::string(text), PCRE2_LITERAL, "a literal");
}

std::vector<Segment> Regex::segments(std::string_view text) const {
  std::vector<Segment> out;
  if (text.empty()) {
    out.push_back({0, 0, false});
    return out;
  }
  // A literal's characters need no properties.
  const std::string replaced = code_->literal ? "" : with_stand_ins(text);
  Matcher matcher(code_->code.get(), code_->pattern, replaced.empty() ? text : replaced);
  size_t covered = 0;
  size_t from = 0;
  bool matched = false;
  size_t begin = 0;
  size_t end = 0;
  while (from <= text.size() && matcher.find(from, begin, end)) {
    if (begin == end && matched && covered == end) {
      // No empty match right behind a match: the search goes on one character further.
      from += from < text.size() ? char_length(text[from]) : 1;
      continue;
    }
    if (covered != begin) {
      out.push_back({covered, begin, false});
    }
    out.push_back({begin, end, true});
    covered = end;
    from = end;
    matched = true;
  }
  if (covered != text.size()) {
    out.push_back({covered, text.size(), false});
  }
  return out;
}

std::vector<Segment> segments(std::string_view text, const std::function<bool(char32_t)>& predicate) {
  std::vector<Segment> out;
  if (text.empty()) {
    out.push_back({0, 0, false});
    return out;
  }
  size_t covered = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t next = i + char_length(text[i]);
    if (predicate(code_point_at(text, i))) {
      if (covered != i) {
        out.push_back({covered, i, false});
      }
      out.push_back({i, next, true});
      covered = next;
    }
    i = next;
  }
  if (covered != text.size()) {
    out.push_back({covered, text.size(), false});
  }
  return out;
}

}  // namespace shardpipe::text
