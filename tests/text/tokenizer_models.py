"""Tokenizers of the other models (WordPiece, Unigram, BPE with byte fallback, WordLevel), as published and at random."""

import functools
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from charsmap import compile_charsmap, nfkc_rules

BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@functools.cache
def charsmap():
    return compile_charsmap(nfkc_rules())


def template(tokenizer, single, pair):
    names = {word.split(":")[0] for word in (single + " " + pair).split() if not word.startswith("$")}
    tokens = [(name, tokenizer.token_to_id(name)) for name in sorted(names)]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=tokens)


def bert(corpus, lowercase=True, size=900):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=size, show_progress=False, special_tokens=BERT_TOKENS)
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = template(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def bert_cased(corpus):
    tokenizer = bert(corpus, lowercase=False)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(pad_id=0, pad_type_id=1, pad_to_multiple_of=8)
    return tokenizer


def bert_whitespace(corpus):
    """Short words, another prefix, no lower case, and Whitespace as the splitter."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(
        vocab_size=500, show_progress=False, special_tokens=BERT_TOKENS, continuing_subword_prefix="@@"
    )
    tokenizer.train_from_iterator(corpus, trainer)
    state = json.loads(tokenizer.to_str())
    state["model"].update(continuing_subword_prefix="@@", max_input_chars_per_word=7)
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.WordPiece(prefix="@@", cleanup=True)
    return tokenizer


def train_unigram(corpus, normalizer, pre_tokenizer, special, unk="<unk>", size=700, byte_fallback=False):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.UnigramTrainer(
        vocab_size=size, show_progress=False, special_tokens=special, unk_token=unk, max_piece_length=12
    )
    tokenizer.train_from_iterator(corpus, trainer)
    if byte_fallback:
        state = json.loads(tokenizer.to_str())
        state["model"]["vocab"] += [[f"<0x{b:02X}>", -8.5 - b / 7] for b in range(256)]
        state["model"]["byte_fallback"] = True
        tokenizer = Tokenizer.from_str(json.dumps(state))
    return tokenizer


def t5(corpus):
    pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    extra = [f"<extra_id_{i}>" for i in range(5)]
    tokenizer = train_unigram(
        corpus, normalizers.Precompiled(charsmap()), pre_tokenizer, ["<pad>", "</s>", "<unk>", *extra]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = template(tokenizer, "$A </s>", "$A </s> $B </s>")
    return tokenizer


def xlm_roberta(corpus):
    steps = [normalizers.Precompiled(charsmap()), normalizers.Replace(Regex(" {2,}"), " ")]
    pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = train_unigram(corpus, normalizers.Sequence(steps), pre_tokenizer, special)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = template(tokenizer, "<s> $A </s>", "<s> $A </s> </s> $B </s>")
    tokenizer.enable_truncation(20)
    return tokenizer


def albert(corpus):
    steps = [
        normalizers.Replace("``", '"'),
        normalizers.Replace("''", '"'),
        normalizers.NFKD(),
        normalizers.StripAccents(),
        normalizers.Lowercase(),
        normalizers.Precompiled(charsmap()),
    ]
    pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer = train_unigram(corpus, normalizers.Sequence(steps), pre_tokenizer, ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = template(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    return tokenizer


def unigram_bytes(corpus):
    """Unknown characters as bytes; Nmt; the space only before the first part."""
    steps = [normalizers.Nmt(), normalizers.NFKC()]
    pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer = train_unigram(corpus, normalizers.Sequence(steps), pre_tokenizer, ["<unk>", "<s>", "</s>"], byte_fallback=True)
    tokenizer.add_tokens(["fox", AddedToken("lazy", normalized=False)])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def unigram_no_unknown(corpus):
    """Without unk_id: a text that needs it is refused. Scores with more digits than a double holds."""
    tokenizer = train_unigram(corpus, None, pre_tokenizers.Metaspace(prepend_scheme="never"), ["<unk>"])
    state = json.loads(tokenizer.to_str())
    state["model"]["unk_id"] = None
    for i, entry in enumerate(state["model"]["vocab"]):
        entry[1] = entry[1] - i * 1.0000000000000002e-5
    state["model"]["vocab"] += [["the", -0.1], ["▁", -3], ["qu", -12345678901234567890123.5], ["ab", -1e-320], ["bc", -2.5e0]]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    return tokenizer


def llama2(corpus, pre_tokenizer=None, normalizer=None):
    """BPE with byte fallback and Metaspace, trained on the text with its spaces replaced."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=special, limit_alphabet=150)
    tokenizer.train_from_iterator(corpus, trainer)
    state = json.loads(tokenizer.to_str())
    state["model"].update(byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    state["added_tokens"] = state["added_tokens"][:3]
    state["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(state))
    if pre_tokenizer is None and normalizer is None:
        normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.post_processor = template(tokenizer, "<s> $A", "<s> $A <s>:1 $B:1")
    return tokenizer


def mistral(corpus):
    tokenizer = llama2(corpus, pre_tokenizers.Metaspace(prepend_scheme="first", split=False))
    tokenizer.add_special_tokens(["[INST]", "[/INST]"])
    return tokenizer


def metaspace_first_after_normalizer(corpus):
    """Where the text begins when the normalizer drops or joins its first characters."""
    steps = [normalizers.Strip(), normalizers.Replace("qu", "k"), normalizers.Replace(Regex(r"\p{P}"), ""), normalizers.StripAccents()]
    steps += [normalizers.NFD(), normalizers.BertNormalizer(lowercase=False)]
    splits = [pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace(prepend_scheme="first")]
    return llama2(corpus, pre_tokenizers.Sequence(splits), normalizers.Sequence(steps))


def word_level(corpus):
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    trainer = trainers.WordLevelTrainer(vocab_size=200, show_progress=False, special_tokens=["<unk>", "<s>"])
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def clip(corpus):
    """BPE whose words end in a suffix, with the decoder that reads it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False, special_tokens=["<unk>"], end_of_word_suffix="</w>")
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return tokenizer


def ctc(corpus):
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(["<pad>", "|", " ", "<unk>", *"abcdefghijklmnop'.?,"])}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "|")
    tokenizer.pre_tokenizer = pre_tokenizers.FixedLength(length=1)
    tokenizer.decoder = decoders.CTC(pad_token="<pad>", word_delimiter_token="|", cleanup=True)
    return tokenizer


VARIANTS = [
    bert, bert_cased, bert_whitespace, t5, xlm_roberta, albert, unigram_bytes, unigram_no_unknown, llama2, mistral,
    metaspace_first_after_normalizer, word_level, clip, ctc,
]  # fmt: skip
# What stands around each code point in the sweep of a variant.
SWEEPS = {bert: [("a", "b")], t5: [("ª", "a"), ("", "\u0301")], unigram_bytes: [("a", "")], metaspace_first_after_normalizer: [("", "")]}


def random_normalizer(rng):
    choices = [
        lambda: normalizers.BertNormalizer(*(rng.random() < 0.5 for _ in range(2)), rng.choice([None, True, False]), rng.random() < 0.5),
        normalizers.NFC, normalizers.NFD, normalizers.NFKC, normalizers.NFKD, normalizers.Lowercase, normalizers.StripAccents, normalizers.Nmt,
        lambda: normalizers.Strip(rng.random() < 0.5, rng.random() < 0.5),
        lambda: normalizers.Replace(rng.choice([" ", "e", "''", "é", "▁"]), rng.choice(["", "▁", "xy", " "])),
        lambda: normalizers.Replace(Regex(rng.choice([r"\s+", r" {2,}", r"\p{M}", r"\d", r"(?<=a)b", r"[^\w\s]"])), rng.choice(["", " ", "▁"])),
        lambda: normalizers.Prepend(rng.choice(["▁", " ", "xy"])),
        lambda: normalizers.Precompiled(charsmap()),
    ]  # fmt: skip
    steps = [rng.choice(choices)() for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    return None if not steps else steps[0] if len(steps) == 1 else normalizers.Sequence(steps)


BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]


def random_pre_tokenizer(rng, schemes):
    choices = [
        pre_tokenizers.BertPreTokenizer, pre_tokenizers.Whitespace, pre_tokenizers.WhitespaceSplit,
        *[lambda: pre_tokenizers.Metaspace(rng.choice("▁▁_"), rng.choice(schemes), rng.random() < 0.6)] * 3,
        lambda: pre_tokenizers.Punctuation(rng.choice(BEHAVIORS)),
        lambda: pre_tokenizers.Digits(rng.random() < 0.5),
        lambda: pre_tokenizers.CharDelimiterSplit(rng.choice(" e,é")),
        lambda: pre_tokenizers.FixedLength(rng.randrange(1, 9)),
        lambda: pre_tokenizers.Split(rng.choice([" ", "e", "th"]), rng.choice(BEHAVIORS), rng.random() < 0.3),
        lambda: pre_tokenizers.Split(Regex(rng.choice([r"\s+", r"\p{L}+", r"[aeiou]", r"\w+|\s"])), rng.choice(BEHAVIORS), rng.random() < 0.3),
    ]  # fmt: skip
    steps = [rng.choice(choices)() for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    return None if not steps else steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


def random_decoder(rng):
    choices = [
        lambda: decoders.WordPiece(rng.choice(["##", "", "a"]), rng.random() < 0.5),
        lambda: decoders.Metaspace(rng.choice("▁▁_"), rng.choice(["always", "never", "first"]), rng.random() < 0.5),
        decoders.ByteFallback, decoders.Fuse,
        lambda: decoders.BPEDecoder(rng.choice(["</w>", "e", "▁"])),
        lambda: decoders.CTC(rng.choice(["<pad>", "e"]), rng.choice(["|", "▁"]), rng.random() < 0.5),
        lambda: decoders.Replace(rng.choice(["▁", "e", "##"]), rng.choice(["", " "])),
    ]  # fmt: skip
    steps = [rng.choice(choices)() for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    return None if not steps else steps[0] if len(steps) == 1 else decoders.Sequence(steps)


def random_post_processor(rng, tokenizer):
    sep, cls = [(name, tokenizer.token_to_id(name)) for name in ("</s>", "<s>")]
    choices = [
        lambda: processors.BertProcessing(sep, cls),
        lambda: processors.RobertaProcessing(sep, cls, rng.random() < 0.5, rng.random() < 0.5),
        lambda: processors.ByteLevel(trim_offsets=False),
        lambda: template(
            tokenizer,
            rng.choice(["<s> $A </s>", "$A:3 </s>:2", "$A", "</s> $A <s> </s>"]),
            rng.choice(["<s> $A </s> $B:1 </s>:1", "$B </s>:4 $A", "$A:2 $B:5", "<s>:1 $A:1 </s>:1 </s> $B"]),
        ),
    ]
    steps = [rng.choice(choices)() for _ in range(rng.choice([0, 1, 1, 2]))]
    return None if not steps else steps[0] if len(steps) == 1 else processors.Sequence(steps)


def random_tokenizer(rng, corpus):
    """Any components around a model that is trained with them."""
    special = ["<unk>", "<pad>", "<s>", "</s>"]
    kind = rng.choice(["BPE", "WordPiece", "Unigram", "WordLevel"])
    options = {"show_progress": False, "special_tokens": special, "vocab_size": rng.choice([80, 300, 700])}
    if kind == "BPE":
        prefix = {"continuing_subword_prefix": rng.choice(["##", "@@"])} if rng.random() < 0.3 else {}
        suffix = {"end_of_word_suffix": "</w>"} if rng.random() < 0.3 else {}
        flags = {"unk_token": rng.choice([None, "<unk>"]), "fuse_unk": rng.random() < 0.5, "ignore_merges": rng.random() < 0.3}
        model = models.BPE(**prefix, **suffix, **flags)
        trainer = trainers.BpeTrainer(**options, **prefix, **suffix, limit_alphabet=rng.choice([40, 500]))
    elif kind == "WordPiece":
        model, trainer = models.WordPiece(unk_token="<unk>", max_input_chars_per_word=rng.choice([3, 100])), trainers.WordPieceTrainer(**options)
    elif kind == "Unigram":
        model, trainer = models.Unigram(), trainers.UnigramTrainer(**options, unk_token="<unk>", max_piece_length=rng.choice([3, 16]))
    else:
        model, trainer = models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(**options)
    tokenizer = Tokenizer(model)
    if (normalizer := random_normalizer(rng)) is not None:
        tokenizer.normalizer = normalizer
    # Where one character became several, the package takes each of them for the start of the text; we only the first.
    # That shows when another pre-tokenizer parts them before "first" is asked for.
    schemes = ["always", "never", "first"] if normalizer is None else ["always", "never"]
    if (pre_tokenizer := random_pre_tokenizer(rng, schemes)) is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    elif kind != "BPE":
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # whole lines are too long to train on
    tokenizer.train_from_iterator(corpus[:12], trainer)
    if kind in ("BPE", "Unigram") and rng.random() < 0.5:
        state = json.loads(tokenizer.to_str())
        state["model"]["byte_fallback"] = True
        vocab = state["model"]["vocab"]
        for b in range(256 if rng.random() < 0.7 else 190):
            if kind == "BPE":
                vocab[f"<0x{b:02X}>"] = len(vocab)
            else:
                vocab.append([f"<0x{b:02X}>", -10.25])
        tokenizer = Tokenizer.from_str(json.dumps(state))
    if (decoder := random_decoder(rng)) is not None:
        tokenizer.decoder = decoder
    if (post_processor := random_post_processor(rng, tokenizer)) is not None:
        tokenizer.post_processor = post_processor
    for _ in range(rng.randrange(3)):
        flags = {name: rng.random() < 0.3 for name in ("single_word", "lstrip", "rstrip", "normalized")}
        tokenizer.add_tokens([AddedToken(rng.choice(["fox", "<mask>", "été", "in ", "▁the", "E"]), **flags)])
    return tokenizer


def random_lengths(rng):
    """Options of enable_truncation and enable_padding, each or None."""
    truncation, padding = None, None
    if rng.random() < 0.7:
        truncation = {
            "max_length": rng.choice([4, 5, 7, 8, 12, 20, 60]),
            "stride": rng.choice([0, 0, 0, 1, 3]),
            "strategy": rng.choice(["longest_first", "longest_first", "only_first", "only_second"]),
            "direction": rng.choice(["left", "right", "right"]),
        }
    if rng.random() < 0.7:
        padding = {
            "direction": rng.choice(["left", "right"]),
            "pad_id": rng.randrange(5),
            "pad_type_id": rng.randrange(3),
            "pad_token": "<pad>",
            "length": rng.choice([None, None, 10, 33]),
            "pad_to_multiple_of": rng.choice([None, None, 8, 5]),
        }
    return truncation, padding


def folder_variants(corpus):
    """Folders of the classes that set up their own tokenizer: (name, tokenizer, tokenizer_config.json, config.json)."""
    plain = bert(corpus)
    limits = {"model_max_length": 12}
    yield "bert", plain, {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **limits}, {"model_type": "bert"}
    yield "bert_cased", plain, {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False, "padding_side": "left"}, {"model_type": "bert"}
    yield "bert_options", plain, {"strip_accents": False, "tokenize_chinese_chars": False, "mask_token": "<m>", **limits}, {"model_type": "bert"}
    yield "bert_new_sep", plain, {"tokenizer_class": "BertTokenizer", "sep_token": {"__type": "AddedToken", "content": "<sep>", "lstrip": True}}, {"model_type": "bert"}
    yield "distilbert", plain, {"tokenizer_class": "DistilBertTokenizer", "truncation_side": "left", **limits}, {"model_type": "distilbert"}
    yield "bert_generic", bert_cased(corpus), {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", **limits}, {"model_type": "modernbert"}
    seq2seq = t5(corpus)
    extra = [f"<extra_id_{i}>" for i in range(100)]
    yield "t5", seq2seq, {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "additional_special_tokens": extra, **limits}, {"model_type": "t5"}
    yield "t5_bare", seq2seq, {"tokenizer_class": "T5TokenizerFast"}, {"model_type": "t5"}
    yield "t5_extra", seq2seq, {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "extra_special_tokens": ["<extra_id_1>", "<x>"]}, {"model_type": "t5"}
    yield "xlm_roberta", xlm_roberta(corpus), {"tokenizer_class": "XLMRobertaTokenizer", **limits}, {"model_type": "xlm-roberta"}
    yield "albert", albert(corpus), {"tokenizer_class": "AlbertTokenizer", "model_max_length": 10}, {"model_type": "albert"}
    yield "albert_cased", albert(corpus), {"do_lower_case": False, "keep_accents": True}, {"model_type": "albert"}
    spaces = llama2(corpus)
    yield "llama2", spaces, {"tokenizer_class": "LlamaTokenizer", "legacy": False, "pad_token": "<unk>", **limits}, {"model_type": "llama"}
    yield "llama2_legacy", spaces, {"tokenizer_class": "LlamaTokenizerFast", "legacy": True, "pad_token": "</s>", "add_bos_token": True, "add_eos_token": True}, {"model_type": "llama"}
    yield "llama2_no_space", spaces, {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}, {"model_type": "llama"}
    yield "mistral", mistral(corpus), {"tokenizer_class": "LlamaTokenizer", "pad_token": None}, {"model_type": "mistral"}
    yield "tinyllama_generic", spaces, {"tokenizer_class": "PreTrainedTokenizerFast", "padding_side": "right", "pad_token": "</s>"}, {"model_type": "llama"}
