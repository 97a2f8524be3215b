"""Writes what the Hugging Face tokenizers package (and transformers) make of thousands of random strings.

    python tests/text/tokenizer_reference.py OUTPUT [--folder DIR]... [--seed N] [--count N] [--variants A,B]

OUTPUT gets one folder a variant (tokenizer.json, for folder variants also their other files) and cases.jsonl:
    {"tokenizer": path}                          the lines that follow are of this file,
    {"folder": path}                             or of this folder, as AutoTokenizer loads it;
    {"text", "ids", "plain", "all", "skip"}      ids with and without special tokens, decode() of the ids with them,
                                                 special tokens kept and skipped (null: it panicked);
                                                 {"text", "error"} when encode() raised;
    {"decode": ids, "all", "skip"}               random ids;
    {"sweep": [first, last, before, after], "ids"}  a text of a run of code points;
    {"batch": [[text, pair or null], ...], "special": add_special_tokens, "encodings": rows of ids, type_ids,
     attention_mask and special_tokens_mask (null: an error)}.
tests/text/tokenizer_reference.cpp compares. SHARDPIPE_FUZZ_SCALE multiplies the number of strings.
"""

import argparse
import functools
import json
import os
import pathlib
import random
import sys

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["RUST_BACKTRACE"] = "0"  # the package panics on some inputs, which is caught

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import tokenizer_models

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + REST
QWEN2 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + REST
# o200k (GPT-4o): letters by case, marks; possessive and nested classes as other published files have them.
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]++[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
KIMI = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}&&[^\p{Han}]]+|[[:punct:]&&[^-]]|\p{^L}{2,3}+|\w+\b|\h|\S"

SCRIPTS = [
    "The quick brown fox jumps over the lazy dog. It's what they'll've said; we're don't I'm you'd HE'S",
    "Füße, garçon, naïve Ångström — «été» “quoted” ‘single’ …",
    "Быстрая коричневая лиса прыгает через ленивую собаку",
    "中文字符混合 日本語のテキスト、カタカナ 한국어 텍스트",
    "النص العربي من اليمين עברית मानक हिन्दी ไทย ភាសាខ្មែរ தமிழ்",
    "def f(x):\n    return {k: v for k, v in x.items() if v != 0x1F}  # comment\n\tif (a && b) { c[i++] = d->e; }",
    "1234567890 3.14159 1,000,000 ١٢٣ ²³¼ Ⅳ 一二三 1e-10 0xDEADBEEF",
    "https://example.org/path?x=1&y=%20#frag user@mail.test $HOME/.config/*.json",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 😀😃 🇩🇪🇫🇷 ❤️ ☕︎",
    "e\u0301 a\u030a\u0323 \u1100\u1161\u11a8 ﬁ ﬂ Ⅷ ㎏ ｆｕｌｌ İstanbul ǅ ß ẞ Σίσυφος",
    "\r\n\r\n\n\n   \t \t  \u00a0\u2003\u3000 \u200b\u200d\ufeff \x00\x01\x1f\x7f\x85",
    "<|endoftext|><s>Hello</s> <mask> [MASK] <|im_start|>user\nHi<|im_end|>\n <|im_start|>",
]
CORPUS = SCRIPTS * 6
PIECES = [
    *[w for line in SCRIPTS for w in line.split()],
    *" \n\t\r'\"-_.,:;!?/\\()[]{}<>|&^%$#@~`+=*",
    *["  ", "   ", "\n\n", "\r\n", "'s", "'LL", "'Re", " '", "''", "…", "\u00a0", "\u2028", "\u3000", "\u200d", "\ufe0f"],
    *["\u0301", "\u0323", "\u0338", "\u0345", "\u3099", "\u1161", "\u11a8", "\u094d", "\U0001d165", "\u0f71\u0f80"],
    *["K", "ſ", "İ", "ı", "ΐ", "ﬃ", "Å", "가", "각", "が", "ạ̈", "ffi", "½", "①", "𝟘", "𝒜"],
]
# Planes and blocks by weight: everything, but unassigned planes rarely.
RANGES = [(0x20, 0x7E)] * 6 + [(0, 0x2FF)] * 4 + [(0x300, 0xFFF)] * 4 + [(0x1000, 0x2FFF)] * 4 + [(0x3000, 0xD7FF)] * 3
RANGES += [(0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0x10000, 0x11FFF), (0x1F000, 0x1FFFF), (0x20000, 0x323AF)]
RANGES += [(0xE0000, 0xE01FF), (0x323B0, 0x10FFFF)]


def random_text(rng, tokens):
    kind = rng.random()
    if kind < 0.02:
        return rng.choice(SCRIPTS[10].split("\u00a0") + [" ", "\n", "a", "é", "'"]) * rng.randrange(200)
    out = []
    for _ in range(rng.randrange(1, 4 if kind < 0.3 else 30)):
        what = rng.random()
        if what < 0.45:
            out.append(rng.choice(PIECES))
        elif what < 0.6:
            out.append(" " * rng.choice([1, 1, 1, 2, 3, 8]))
        elif what < 0.72 and tokens:
            token = rng.choice(tokens)
            out.append(rng.choice([token, token, " " + token, token + " ", token * 2, token[:-1], token.upper()]))
        elif what < 0.8:
            word = rng.choice(PIECES)
            out.append(word[rng.randrange(len(word)) :] * rng.randrange(1, 5))
        elif what < 0.85:
            out.append(str(rng.randrange(10 ** rng.randrange(1, 20))))
        else:
            first, last = rng.choice(RANGES)
            for _ in range(rng.randrange(1, 4)):
                code = rng.randint(first, last)
                out.append("" if 0xD800 <= code <= 0xDFFF else chr(code))
    return "".join(out)


def train(pre_tokenizer, normalizer=None, size=900, special=(), alphabet=True, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        show_progress=False,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet else [],
        **{k: v for k, v in model.items() if k in ("continuing_subword_prefix", "end_of_word_suffix")},
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_level(prefix=False, use_regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


def split_then_bytes(pattern, behavior="isolated", invert=False):
    split = pre_tokenizers.Split(Regex(pattern), behavior, invert)
    return pre_tokenizers.Sequence([split, byte_level(use_regex=False)])


def gpt2():
    return train(byte_level(), special=["<|endoftext|>"])


def gpt2_prefix_space():
    tokenizer = train(byte_level(True), special=["<s>", "</s>", "<mask>"])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<s>"), AddedToken("</s>", rstrip=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), True, True)
    return tokenizer


def llama3():
    tokenizer = train(split_then_bytes(LLAMA3), ignore_merges=True)
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", special_tokens=[("<|begin_of_text|>", bos)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def qwen2():
    tokenizer = train(split_then_bytes(QWEN2), normalizers.NFC())
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("éte", normalized=True)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def smollm2():
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer = train(pre_tokenizers.Sequence([digits, byte_level()]), special=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return tokenizer


def added_flags():
    """Added tokens with every flag, prefixes of one another, and a normalizer that changes them."""
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer = train(byte_level(), normalizer)
    n = 0
    for single_word in (False, True):
        for lstrip in (False, True):
            for rstrip in (False, True):
                for normalized in (False, True):
                    token = AddedToken(f"Tok{n}", single_word=single_word, lstrip=lstrip, rstrip=rstrip, normalized=normalized)
                    (tokenizer.add_special_tokens if n % 3 == 0 else tokenizer.add_tokens)([token])
                    n += 1
    tokenizer.add_tokens(["the", "<mask>", AddedToken("<mask> ", normalized=False), AddedToken(" ab", rstrip=True), "ﬁx"])
    tokenizer.add_tokens([AddedToken("a", single_word=True), AddedToken("ab", lstrip=True), AddedToken("abc"), AddedToken("\n", rstrip=True)])
    tokenizer.add_special_tokens([AddedToken("İ", normalized=True), AddedToken("中", single_word=True), "<|end|>"])
    return tokenizer


def normalizers_all():
    steps = [
        normalizers.Replace("``", '"'),
        normalizers.Replace(Regex(r"\s{2,}"), " "),
        normalizers.NFD(),
        normalizers.StripAccents(),
        normalizers.NFKD(),
        normalizers.Lowercase(),
        normalizers.Strip(left=True, right=True),
        normalizers.Prepend("▁"),
        normalizers.NFC(),
    ]
    tokenizer = train(byte_level(True), normalizers.Sequence(steps))
    tokenizer.add_tokens(["Fox", AddedToken("Dog", normalized=False)])
    return tokenizer


def unicode_splits():
    """Whitespace, punctuation and digits as the Rust crates see them; no bytes, an unknown token."""
    steps = [
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Punctuation(behavior="merged_with_next"),
        pre_tokenizers.Digits(individual_digits=False),
    ]
    tokenizer = train(pre_tokenizers.Sequence(steps), alphabet=False, special=["<unk>"], unk_token="<unk>", fuse_unk=True)
    tokenizer.decoder = None
    return tokenizer


def whitespace_words():
    steps = [pre_tokenizers.Whitespace(), byte_level(use_regex=False)]
    tokenizer = train(pre_tokenizers.Sequence(steps), normalizers.StripAccents(), end_of_word_suffix="</w>", unk_token="<unk>", special=["<unk>"])
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(Regex(r"</w>"), " "), decoders.Strip(" ", 0, 1)])
    return tokenizer


def o200k():
    return train(split_then_bytes(O200K))


def kimi():
    return train(split_then_bytes(KIMI))


def split_behaviors():
    steps = [
        pre_tokenizers.Split("ee", "contiguous"),
        pre_tokenizers.Split(Regex(r"[aeiou]"), "merged_with_previous"),
        pre_tokenizers.Split(Regex(r"\p{Lu}+"), "merged_with_next"),
        pre_tokenizers.Split(Regex(r"\p{L}+|."), "removed", invert=True),
        pre_tokenizers.Split(Regex(r"x*"), "isolated"),
        pre_tokenizers.Split(Regex(r"^\w|\w$|(?=z)"), "contiguous", invert=True),
        pre_tokenizers.Punctuation(behavior="contiguous"),
        byte_level(use_regex=False),
    ]
    return train(pre_tokenizers.Sequence(steps))


def byte_fallback():
    """Llama 2's shape: no bytes in the vocabulary's characters but <0x..> tokens, and a chain of decoders."""
    tokenizer = train(None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), alphabet=False, size=400)
    state = json.loads(tokenizer.to_str())
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{b:02X}>": 3 + b for b in range(256)}}
    letters = [t for t in state["model"]["vocab"] if len(t) > 1 or t.isascii()]
    for token in letters:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [m for m in state["model"]["merges"] if all(t in vocabulary for t in (*m, "".join(m)))]
    tokenizer.model = models.BPE(vocab=vocabulary, merges=[tuple(m) for m in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A <s> $B", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


def truncated():
    tokenizer = smollm2()
    tokenizer.post_processor = processors.BertProcessing(("<|im_end|>", 2), ("<|im_start|>", 1))
    tokenizer.enable_truncation(9, stride=2, direction="left")
    tokenizer.enable_padding(direction="left", pad_id=1, pad_token="<|im_start|>", pad_to_multiple_of=4)
    return tokenizer


def truncated_right():
    tokenizer = llama3()
    tokenizer.enable_truncation(5, strategy="only_first")
    tokenizer.enable_padding(length=12, pad_id=3)
    return tokenizer


VARIANTS = [
    gpt2, gpt2_prefix_space, llama3, qwen2, smollm2, added_flags, normalizers_all, unicode_splits, whitespace_words, o200k,
    kimi, split_behaviors, byte_fallback, truncated, truncated_right,
]  # fmt: skip


# Variants that see every code point, and what stands around each.
SWEEPS = {
    qwen2: [("a", "\u0323")],
    added_flags: [("a", "\u0345Tok4")],
    normalizers_all: [("a", "\u0334")],
    unicode_splits: [("1", "")],
    whitespace_words: [("a", "")],
    o200k: [("aA", "")],
    kimi: [("-", " ")],
}


def attempt(call, *args, **options):
    """What the call returns; None when it raises (a Rust panic is no Exception)."""
    try:
        return call(*args, **options)
    except BaseException as error:  # noqa: B036
        if isinstance(error, KeyboardInterrupt):
            raise
        return None


def decoded(tokenizer, ids):
    return {
        "all": attempt(tokenizer.decode, ids, skip_special_tokens=False),
        "skip": attempt(tokenizer.decode, ids, skip_special_tokens=True),
    }


def write_case(out, tokenizer, text):
    encoding = attempt(tokenizer.encode, text)
    if encoding is None:
        case = {"text": text, "error": True}
    else:
        plain = attempt(tokenizer.encode, text, add_special_tokens=False)
        # Only one of the two may need a truncation that is refused.
        case = {"text": text, "ids": encoding.ids, "plain": None if plain is None else plain.ids, **decoded(tokenizer, encoding.ids)}
    out.write(json.dumps(case) + "\n")


def write_cases(out, tokenizer, rng, count):
    tokens = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    for _ in range(count):
        write_case(out, tokenizer, random_text(rng, tokens))
    size = tokenizer.get_vocab_size()
    for _ in range(count // 5):
        ids = [rng.randrange(size + 2) for _ in range(rng.randrange(12))]
        out.write(json.dumps({"decode": ids, **decoded(tokenizer, ids)}) + "\n")


ROW = ("ids", "type_ids", "attention_mask", "special_tokens_mask")


def write_batches(out, tokenizer, rng, count):
    """Batches of texts and pairs; truncation and padding are those of the file."""
    tokens = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    for _ in range(count):
        pairs = rng.random() < 0.6
        inputs = [[random_text(rng, tokens), random_text(rng, tokens) if pairs else None] for _ in range(rng.randrange(1, 4))]
        special = rng.random() < 0.8
        batch = [tuple(i) if pairs else i[0] for i in inputs]
        limit = getattr(tokenizer, "truncation", None)
        if special and limit and limit["max_length"] < tokenizer.num_special_tokens_to_add(pairs):
            continue  # the package's arithmetic overflows and nothing is cut; we refuse
        encodings = attempt(tokenizer.encode_batch, batch, add_special_tokens=special)
        rows = encodings and [{name: getattr(e, name) for name in ROW} for e in encodings]
        out.write(json.dumps({"batch": inputs, "special": special, "encodings": rows}) + "\n")


def write_folder(out, path, rng, count):
    folder = Folder(path)
    out.write(json.dumps({"folder": str(path)}) + "\n")
    write_cases(out, folder, rng, count)
    write_batches(out, folder, rng, count // 5)


def write_variant(out, tokenizer, path, rng, count, batches):
    tokenizer.save(str(path))
    tokenizer = Tokenizer.from_file(str(path))
    out.write(json.dumps({"tokenizer": str(path)}) + "\n")
    write_cases(out, tokenizer, rng, count)
    write_batches(out, tokenizer, rng, batches)
    return tokenizer


def write_random(out, folder, rng, count):
    """Random components around each model, with random lengths."""
    for i in range(count):
        tokenizer = attempt(tokenizer_models.random_tokenizer, rng, CORPUS)
        if tokenizer is None:
            continue  # a combination that cannot be trained
        for n in range(2):
            truncation, padding = tokenizer_models.random_lengths(rng)
            tokenizer.no_truncation()
            if truncation and truncation["max_length"] >= tokenizer.num_special_tokens_to_add(False):
                attempt(tokenizer.enable_truncation, **truncation)  # refuses what leaves no room for the text
            tokenizer.enable_padding(**padding) if padding else tokenizer.no_padding()
            write_variant(out, tokenizer, folder / f"random_{i}_{n}.json", rng, 40, 15)


def write_sweep(out, tokenizer, before, after):
    """Every code point of the planes in use, between two strings that show what kind of character it is taken for."""
    step = 128
    for first in [*range(0, 0xD800, step), *range(0xE000, 0x33480, step), *range(0xE0000, 0xE0200, step), 0x10FF80]:
        text = "".join(before + chr(c) + after for c in range(first, first + step))
        encoding = tokenizer.encode(text)
        out.write(json.dumps({"sweep": [first, first + step - 1, before, after], "ids": encoding.ids}) + "\n")


def folder_variants(base):
    """Folders whose other files matter: (name, tokenizer_config.json, config.json, further files)."""
    end = {"content": "<|im_end|>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    specials = {"bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>", "pad_token": None}
    generic = {"tokenizer_class": "PreTrainedTokenizerFast", **specials}
    yield "bare", None, {"model_type": "gpt2"}, {}
    yield "generic", generic, {"model_type": "llama"}, {}
    yield "bos_flags", {**generic, "add_bos_token": True, "add_eos_token": True, "add_prefix_space": True}, {"model_type": "llama"}, {}
    yield "split_special", {**generic, "split_special_tokens": True}, {"model_type": "llama"}, {}
    yield "extra", {**generic, "extra_special_tokens": ["ello", "<x>"], "image_token": "<img>"}, {"model_type": "llama"}, {}
    yield "additional", {**generic, "additional_special_tokens": ["qu", {"__type": "AddedToken", **end}]}, {"model_type": "llama"}, {}
    yield "decoder", {**generic, "added_tokens_decoder": {"2": end, "901": {"content": "fox", "special": False}}}, {"model_type": "llama"}, {}
    yield "gpt2", {**specials, "tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}, {"model_type": "gpt2"}, {}
    yield "gpt2_prefix", {**specials, "tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True}, {"model_type": "llama"}, {}
    yield "gpt2_by_model", {"errors": "replace"}, {"model_type": "gpt2"}, {}
    yield "gpt2_as_granite", {**specials, "tokenizer_class": "GPT2Tokenizer"}, {"model_type": "granite"}, {}
    yield "qwen2", {**generic, "tokenizer_class": "Qwen2Tokenizer"}, {"model_type": "qwen2"}, {}
    yield "qwen3", {"tokenizer_class": "Qwen2TokenizerFast", "eos_token": {"__type": "AddedToken", **end}, "bos_token": None}, {"model_type": "qwen3"}, {}
    yield "neox", {**specials, "tokenizer_class": "GPTNeoXTokenizerFast"}, {"model_type": "gpt_neox"}, {}
    yield "llama_class", {**generic, "tokenizer_class": "LlamaTokenizerFast"}, {"model_type": "llama"}, {}
    legacy = {"special_tokens_map.json": {"eos_token": end, "additional_special_tokens": ["<y>"]}, "added_tokens.json": {"lazy": 905, "<y>": 904}}
    yield "legacy", {"tokenizer_class": "PreTrainedTokenizerFast"}, {"model_type": "llama"}, legacy
    yield "no_model_type", {**generic, "bos_token": {"__type": "AddedToken", **end, "content": "<bos>"}}, None, {}


# tokenizer_config.json and config.json of folders without tokenizer.json.
BERT = ({"tokenizer_class": "BertTokenizer", "model_max_length": 16}, {"model_type": "bert"})
GPT2 = ({"tokenizer_class": "GPT2Tokenizer", "model_max_length": 16, "pad_token": "<|endoftext|>"}, {"model_type": "gpt2"})


class Folder:
    """AutoTokenizer with the methods of tokenizers.Tokenizer that are used here."""

    def __init__(self, path):
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(path)

    def encode(self, text, **options):
        ids = self.tokenizer(text, **options)["input_ids"]
        return type("Encoding", (), {"ids": ids})

    def encode_batch(self, batch, **options):
        first, second = ([b[0] for b in batch], [b[1] for b in batch]) if isinstance(batch[0], tuple) else (batch, None)
        masks = {"return_token_type_ids": True, "return_special_tokens_mask": True}
        out = self.tokenizer(first, second, padding=True, truncation=True, **masks, **options)
        return [type("Encoding", (), dict(zip(ROW, row))) for row in zip(*(out[name] for name in self.NAMES))]

    NAMES = ("input_ids", "token_type_ids", "attention_mask", "special_tokens_mask")

    def decode(self, ids, skip_special_tokens):
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)

    def get_vocab_size(self):
        return len(self.tokenizer)

    def get_added_tokens_decoder(self):
        return self.tokenizer.added_tokens_decoder


def make_folder(path, base, config, model, files, lengths=True, whole=True):
    """Without `whole` there is no tokenizer.json but the model's own files."""
    path.mkdir(parents=True, exist_ok=True)
    state = json.loads(base.to_str())
    state["truncation"] = None if not lengths else {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    state["padding"] = None if not lengths else {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 2, "pad_type_id": 0, "pad_token": "<|im_end|>"}
    if not whole:
        base.model.save(str(path))
    every = {"tokenizer.json": state if whole else None, "tokenizer_config.json": config, "config.json": model, **files}
    for name, content in every.items():
        if content is not None:
            (path / name).write_text(json.dumps(content))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--folder", type=pathlib.Path, action="append", default=[])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1500, help="strings of each variant")
    parser.add_argument("--variants", help="comma-separated; default all")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    count = max(1, int(arguments.count * float(os.environ.get("SHARDPIPE_FUZZ_SCALE", "1"))))
    wanted = arguments.variants.split(",") if arguments.variants else None
    arguments.output.mkdir(parents=True, exist_ok=True)
    with open(arguments.output / "cases.jsonl", "w") as out:
        makes = {make.__name__: (make, SWEEPS.get(make, [])) for make in VARIANTS}
        for make in tokenizer_models.VARIANTS:
            makes[make.__name__] = (functools.partial(make, CORPUS), tokenizer_models.SWEEPS.get(make, []))
        for name, (make, sweeps) in makes.items():
            if wanted and name not in wanted:
                continue
            tokenizer = write_variant(out, make(), arguments.output / f"{name}.json", rng, count, count // 10)
            for before, after in sweeps:
                write_sweep(out, tokenizer, before, after)
        if not wanted or "random" in wanted:
            write_random(out, arguments.output, rng, count // 25)
        if not wanted or "folders" in wanted:
            base = smollm2()
            for name, *files in folder_variants(base):
                path = arguments.output / f"folder_{name}"
                make_folder(path, base, *files)
                write_folder(out, path, rng, count // 10)
            for name, make, files in [("bert_vocab", tokenizer_models.bert, BERT), ("gpt2_vocab", lambda _: gpt2(), GPT2)]:
                path = arguments.output / f"folder_{name}"
                make_folder(path, make(CORPUS), *files, {}, whole=False)
                write_folder(out, path, rng, count // 10)
            for name, tokenizer, *files in tokenizer_models.folder_variants(CORPUS):
                for lengths in (False, True):
                    path = arguments.output / f"folder_{name}{'_lengths' if lengths else ''}"
                    make_folder(path, tokenizer, *files, {}, lengths=lengths)
                    write_folder(out, path, rng, count // 10)
        for path in arguments.folder:
            out.write(json.dumps({"tokenizer": str(path / "tokenizer.json")}) + "\n")
            write_cases(out, Tokenizer.from_file(str(path / "tokenizer.json")), rng, count)
            out.write(json.dumps({"folder": str(path)}) + "\n")
            write_cases(out, Folder(path), rng, count // 2)


if __name__ == "__main__":
    sys.exit(main())
