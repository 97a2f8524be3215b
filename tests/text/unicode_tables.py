"""Writes src/text/unicode_tables.cpp: what the crates of the Hugging Face tokenizers package know of each character.

    python tests/text/unicode_tables.py > src/text/unicode_tables.cpp

Run it again when the tokenizers version of the project changes. It needs only the tokenizers package and Python's
unicodedata, whose Unicode version (14.0 in Python 3.11) must be at most that of PCRE2 and utf8proc.
"""

import textwrap
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

from charsmap import compile_charsmap

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf".split()


def kept(pre_tokenizer):
    """The code points that survive a pre-tokenizer which removes."""
    found = set()
    for i in range(0, len(CODE_POINTS), 2048):
        block = CODE_POINTS[i : i + 2048]
        for _, (begin, end) in pre_tokenizer.pre_tokenize_str("".join(map(chr, block))):
            found.update(block[begin:end])
    return found


def numeric():
    found = set()
    digits = pre_tokenizers.Digits(individual_digits=True)
    for i in range(0, len(CODE_POINTS), 1024):
        block = CODE_POINTS[i : i + 1024]
        text = "".join(chr(c) + "\ue000\ue000" for c in block)  # private use: never numeric
        for _, (begin, end) in digits.pre_tokenize_str(text):
            if end - begin == 1 and begin % 3 == 0:
                found.add(block[begin // 3])
    return found


def runs(values):
    """Maximal runs of consecutive code points with one value: [first, last, value]."""
    out = []
    for c in sorted(values):
        if out and out[-1][1] == c - 1 and out[-1][2] == values[c]:
            out[-1][1] = c
        else:
            out.append([c, c, values[c]])
    return out


def stand_ins():
    category = {}
    for name in CATEGORIES:
        for c in kept(pre_tokenizers.Split(Regex(r"\p{%s}" % name), "removed", invert=True)):
            category[c] = name
    here = {c: unicodedata.category(chr(c)) for c in CODE_POINTS}
    values = {}
    for c in CODE_POINTS:
        name = category.get(c)
        if name is None or name == here[c]:
            continue
        size = len(chr(c).encode())
        assert size >= 3, hex(c)
        # Letters stand in for letters without a script of their own to lose; Han is the one that patterns name.
        han = name == "Lo" and c >= 0x2B739
        values[c] = next(
            s
            for s in CODE_POINTS
            if here[s] == name == category.get(s) and len(chr(s).encode()) == size and (s >= 0x20000 or not han)
        )
    return values


def not_normalized():
    """Characters that utf8proc orders, decomposes or composes, and the package does not."""
    nfd, nfkd = normalizers.NFD(), normalizers.NFKD()
    found = set()
    for c in CODE_POINTS:
        text = chr(c)
        ordered = unicodedata.combining(text)
        if ordered:
            # U+0334 has class 1 and U+0345 has 240, the lowest and the highest: one of them changes places.
            for probe in ("a" + text + "\u0334", "a\u0345" + text):
                if nfd.normalize_str(probe) != unicodedata.normalize("NFD", probe):
                    found.add(c)
        if nfkd.normalize_str(text) != unicodedata.normalize("NFKD", text):
            found.add(c)
        # What Python's Unicode does not know, a newer utf8proc may.
        if unicodedata.category(text) == "Cn" and nfkd.normalize_str(text) == text:
            found.add(c)
    return found


def lower():
    lowercase = normalizers.Lowercase()
    values = {}
    for c in CODE_POINTS:
        result = lowercase.normalize_str(chr(c))
        if c != 0x130 and result != chr(c).lower():
            values[c] = ord(result) - c
    return values


def bert_removes(**steps):
    """Characters of which BERT's normalizer leaves nothing."""
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    normalizer = normalizers.BertNormalizer(**{**off, **steps})
    return {c for c in CODE_POINTS if normalizer.normalize_str(chr(c)) == ""}


def joins_cluster():
    """Characters younger than Python's Unicode that belong to the grapheme cluster before them (up to 3 bytes long)."""
    normalizer = normalizers.Precompiled(compile_charsmap({"\u00aa": "x"}))
    codes = [c for c in CODE_POINTS if 0x80 <= c < 0x10000 and unicodedata.category(chr(c)) == "Cn"]
    return {c for c in codes if normalizer.normalize_str("\u00aa" + chr(c)) == "x"}


def table(kind, name, rows):
    hexadecimal = 3 if kind == "StandIn" else 2
    cells = ["{" + ", ".join(hex(v) if i < hexadecimal else str(v) for i, v in enumerate(row)) + "}" for row in rows]
    print(f"constexpr {kind} {name}Rows[] = {{")
    print(textwrap.fill(", ".join(cells), 120, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False))
    print("};")
    return f"const std::span<const {kind}> {name} = {name}Rows;"


def ranges(found):
    return [row[:2] for row in runs(dict.fromkeys(found, 0))]


def main():
    print('// Written by tests/text/unicode_tables.py; do not edit.\n#include "text/unicode_tables.h"\n')
    print("namespace shardpipe::text {\nnamespace {\n\n// clang-format off")
    removed = pre_tokenizers.Punctuation(behavior="removed")
    marks = {c for c in CODE_POINTS if normalizers.StripAccents().normalize_str(chr(c)) == ""}
    names = [
        table("CodeRange", "kNumeric", ranges(numeric())),
        table("CodeRange", "kPunctuation", ranges(set(CODE_POINTS) - kept(removed))),
        table("CodeRange", "kCombiningMarks", ranges(marks)),
        table("CodeRange", "kNotNormalized", ranges(not_normalized())),
        table("CodeRange", "kNonspacingMarks", ranges(bert_removes(strip_accents=True))),
        table("CodeRange", "kJoinsCluster", ranges(joins_cluster())),
        table("CodeRange", "kOther", ranges(bert_removes(clean_text=True) - {0, 0xFFFD})),
        table("StandIn", "kStandIns", runs(stand_ins())),
        table("LowerCase", "kLowerCase", runs(lower())),
    ]
    print("// clang-format on\n\n}  // namespace\n")
    print("\n".join(names))
    print("\n}  // namespace shardpipe::text")


if __name__ == "__main__":
    main()
