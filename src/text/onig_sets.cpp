#include "text/onig_sets.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cctype>

namespace shardpipe::text {
namespace {

// Bodies of PCRE2 classes. Unicode 16 finds more marks alphabetic than PCRE2's Unicode 14: the ranges behind the
// property.
constexpr const char* kAlphabetic =
    R"(\p{Alphabetic}\x{363}-\x{36F}\x{C04}\x{F82}\x{F83}\x{1DD3}-\x{1DE6}\x{11080}\x{11081})";
constexpr const char* kAlphanumeric =
    R"(\p{Alphabetic}\p{Nd}\x{363}-\x{36F}\x{C04}\x{F82}\x{F83}\x{1DD3}-\x{1DE6}\x{11080}\x{11081})";
constexpr const char* kSpace =
    R"(\x09-\x0D\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
constexpr const char* kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Outside of classes Oniguruma has a table of its own below U+0100: superscripts and fractions are word characters.
constexpr const char* kBareWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
constexpr const char* kHexDigit = "0-9A-Fa-f";

struct Named {
  const char* name;  // lower case, without spaces, hyphens and underscores
  const char* body;
};

constexpr auto kPosix = std::to_array<Named>({
    {"alpha", kAlphabetic},
    {"alphabetic", kAlphabetic},
    {"alnum", kAlphanumeric},
    {"ascii", R"(\x00-\x7F)"},
    {"blank", R"(\p{Zs}\x09)"},
    {"cntrl", R"(\p{Cc})"},
    {"digit", R"(\p{Nd})"},
    {"graph", R"(\p{L}\p{M}\p{N}\p{P}\p{S}\p{Cf}\p{Co})"},
    {"lower", R"(\p{Lowercase})"},
    {"print", R"(\p{L}\p{M}\p{N}\p{P}\p{S}\p{Cf}\p{Co}\p{Zs})"},
    {"punct", R"(\p{P}\p{S})"},
    {"space", kSpace},
    {"upper", R"(\p{Uppercase})"},
    {"word", kWord},
    {"xdigit", kHexDigit},
});

// Properties that only Oniguruma knows by their long names.
constexpr auto kProperties = std::to_array<Named>({
    {"letter", R"(\p{L})"},
    {"uppercaseletter", R"(\p{Lu})"},
    {"lowercaseletter", R"(\p{Ll})"},
    {"titlecaseletter", R"(\p{Lt})"},
    {"casedletter", R"(\p{L&})"},
    {"lc", R"(\p{L&})"},
    {"modifierletter", R"(\p{Lm})"},
    {"otherletter", R"(\p{Lo})"},
    {"mark", R"(\p{M})"},
    {"combiningmark", R"(\p{M})"},
    {"nonspacingmark", R"(\p{Mn})"},
    {"spacingmark", R"(\p{Mc})"},
    {"enclosingmark", R"(\p{Me})"},
    {"number", R"(\p{N})"},
    {"decimalnumber", R"(\p{Nd})"},
    {"letternumber", R"(\p{Nl})"},
    {"othernumber", R"(\p{No})"},
    {"punctuation", R"(\p{P})"},
    {"connectorpunctuation", R"(\p{Pc})"},
    {"dashpunctuation", R"(\p{Pd})"},
    {"openpunctuation", R"(\p{Ps})"},
    {"closepunctuation", R"(\p{Pe})"},
    {"initialpunctuation", R"(\p{Pi})"},
    {"finalpunctuation", R"(\p{Pf})"},
    {"otherpunctuation", R"(\p{Po})"},
    {"symbol", R"(\p{S})"},
    {"mathsymbol", R"(\p{Sm})"},
    {"currencysymbol", R"(\p{Sc})"},
    {"modifiersymbol", R"(\p{Sk})"},
    {"othersymbol", R"(\p{So})"},
    {"separator", R"(\p{Z})"},
    {"spaceseparator", R"(\p{Zs})"},
    {"lineseparator", R"(\p{Zl})"},
    {"paragraphseparator", R"(\p{Zp})"},
    {"other", R"(\p{C})"},
    {"control", R"(\p{Cc})"},
    {"format", R"(\p{Cf})"},
    {"privateuse", R"(\p{Co})"},
    {"unassigned", R"(\p{Cn})"},
    {"whitespace", kSpace},
});

template <size_t N>
const char* find_body(const std::array<Named, N>& table, std::string_view name) {
  std::string key;
  for (const char c : name) {
    if (c != ' ' && c != '_' && c != '-') {
      key.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    }
  }
  const auto row = std::find_if(table.begin(), table.end(), [&](const Named& r) { return key == r.name; });
  return row == table.end() ? nullptr : row->body;
}

bool is_script(std::string_view name) {
  const std::string pattern = R"(\p{sc:)" + std::string(name) + "}";
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF, &error, &offset, nullptr);
  const bool found = code != nullptr;
  pcre2_code_free(code);
  return found;
}

// Takes a leading ^ off.
bool is_negated(std::string_view& name) {
  const bool negated = name.starts_with('^');
  name.remove_prefix(negated ? 1 : 0);
  return negated;
}

}  // namespace

std::string in_brackets(const CharSet& set) {
  return (set.negated ? "[^" : "[") + set.body + "]";
}

CharSet word_set() {
  return {kBareWord};
}

std::optional<CharSet> shorthand_set(char letter) {
  const bool negated = std::isupper(static_cast<unsigned char>(letter)) != 0;
  switch (std::tolower(static_cast<unsigned char>(letter))) {
    case 's':
      return CharSet{kSpace, negated};
    case 'w':
      return CharSet{kWord, negated};
    case 'd':
      return CharSet{R"(\p{Nd})", negated};
    case 'h':
      return CharSet{kHexDigit, negated};
    default:
      return std::nullopt;
  }
}

std::optional<CharSet> posix_set(std::string_view name) {
  const bool negated = is_negated(name);
  const char* body = find_body(kPosix, name);
  return body == nullptr ? std::nullopt : std::optional(CharSet{body, negated});
}

CharSet property_set(std::string_view name) {
  const bool negated = is_negated(name);
  const char* body = find_body(kPosix, name);
  body = body == kWord ? kBareWord : body;  // only [:word:] leaves them out
  body = body != nullptr ? body : find_body(kProperties, name);
  if (body != nullptr) {
    return {body, negated};
  }
  // PCRE2 takes the name of a script for Script_Extensions unless told otherwise.
  const std::string script = is_script(name) ? "sc:" : "";
  return {R"(\p{)" + script + std::string(name) + "}", negated};
}

}  // namespace shardpipe::text
