"""What the `safetensors` and `transformers` packages make of generated files, for checkpoint_reference.cpp.

make FOLDER   writes FOLDER/files/*.safetensors (valid, invalid, mutated) and FOLDER/models/* (tiny random checkpoints),
              and FOLDER/manifest.json: what the packages read from each.
check FOLDER  reads FOLDER/written/*.safetensors, written by Shardpipe from the valid files, and compares them.
"""

import json
import pathlib
import random
import shutil
import struct
import sys

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

MUTATIONS = 1500

# Where Shardpipe is stricter than the package, on purpose: see parse_header.
STRICTER = {
    "name_twice": "appears twice",
    "info_as_list": "must be an object",
    "dtype_as_object": "must be a string",
    "65_dims": "64 dimensions",
}

SIZES = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
    "U16": 16, "U8": 8, "BOOL": 8, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def pack(header, data=b"", pad=b""):
    if not isinstance(header, (str, bytes)):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    header += pad
    return struct.pack("<Q", len(header)) + header + data


def info(dtype="F32", shape=(1,), offsets=(0, 4), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def raw_info(**fields):
    """A tensor's description in which some fields are JSON text as given."""
    values = {"dtype": '"F32"', "shape": "[1]", "data_offsets": "[0,4]"} | fields
    return "{" + ",".join(f'"{key}":{value}' for key, value in values.items()) + "}"


def hand_made():
    four = b"\0\1\2\3"
    one = {"a": info()}
    text = raw_info()
    nested = lambda n: '{"a":' + raw_info(x="[" * n + "]" * n) + "}"
    cases = {
        "empty": pack({}),
        "metadata_only": pack({"__metadata__": {"a": "b"}}),
        "metadata_null": pack({"__metadata__": None}),
        "metadata_number": pack({"__metadata__": {"a": 1}}),
        "metadata_list": pack({"__metadata__": []}),
        "metadata_key_twice": pack('{"__metadata__":{"a":"b","a":"c"}}'),
        "metadata_twice": pack('{"__metadata__":{"a":"b"},"__metadata__":{"a":"c"}}'),
        "metadata_like_a_tensor": pack({"__metadata__": info()}, four),
        "name_twice": pack('{"a":%s,"a":%s}' % (text, text), four),
        "name_twice_elsewhere": pack('{"a":%s,"a":%s}' % (text, raw_info(data_offsets="[4,8]")), four * 2),
        "field_twice": pack('{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', four),
        "unknown_field": pack({"a": info(more=[{"x": [1.5]}])}, four),
        "unknown_fields_twice": pack('{"a":{"x":1,"x":{"x":2},"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', four),
        "escaped_field": pack('{"a":{"\\u0064type":"F32","shape":[1],"data_offsets":[0,4]}}', four),
        "list": pack([]),
        "number": pack("3"),
        "leading_space": pack(" \n{}"),
        "trailing_space": pack("{} \t\r\n"),
        "trailing_nul": pack("{}\0\0"),
        "trailing_text": pack("{}{}"),
        "byte_order_mark": pack(b"\xef\xbb\xbf{}"),
        "comment": pack("{} //"),
        "info_as_list": pack({"a": ["F32", [1], [0, 4]]}, four),
        "info_as_long_list": pack({"a": ["F32", [1], [0, 4], 3]}, four),
        "info_number": pack({"a": 3}),
        "info_null": pack({"a": None}),
        "dtype_as_object": pack({"a": info({"F32": None})}, four),
        "dtype_lower": pack({"a": info("f32")}, four),
        "dtype_number": pack({"a": info(3)}, four),
        "dtype_c128": pack({"a": info("C128", (1,), (0, 16))}, four * 4),
        "dtype_missing": pack({"a": {"shape": [1], "data_offsets": [0, 4]}}, four),
        "shape_missing": pack({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, four),
        "offsets_missing": pack({"a": {"dtype": "F32", "shape": [1]}}, four),
        "65_dims": pack({"a": info(shape=[1] * 65)}, four),
        "64_dims": pack({"a": info(shape=[1] * 64)}, four),
        "scalar": pack({"a": info(shape=())}, four),
        "utf8_bad": pack(b'{"\xff":%s}' % text.encode(), four),
        "utf8_overlong": pack(b'{"\xc0\xaf":%s}' % text.encode(), four),
        "utf8_surrogate": pack(b'{"\xed\xa0\x80":%s}' % text.encode(), four),
        "surrogate": pack('{"\\ud800":%s}' % text, four),
        "surrogate_pair": pack('{"\\ud83d\\ude00":%s}' % text, four),
        "name_nul": pack('{"\\u0000":%s}' % text, four),
        "name_control": pack('{"a\nb":%s}' % text, four),
        "name_empty": pack({"": info()}, four),
        "name_unicode": pack('{"\u00e9\u4e2d":%s}' % text, four),
        "nested_125": pack(nested(125), four),
        "nested_126": pack(nested(126), four),
        "number_overflow": pack('{"a":%s}' % raw_info(x="1e999"), four),
        "misaligned": pack({"a": info("U8", (1,), (0, 1)), "b": info(offsets=(1, 5))}, four * 2)[:-3],
        "misaligned_by_header": pack(one, four, pad=b" " * 3),
        "misaligned_f64": pack({"a": info(), "b": info("F64", (1,), (4, 12))}, four * 3),
        "reversed": pack({"a": info(shape=(0,), offsets=(4, 0))}, four),
        "zero_in_the_middle": pack(
            {"a": info(), "b": info(shape=(0,), offsets=(4, 4)), "c": info(offsets=(4, 8))}, four * 2
        ),
        "zero_at_the_end": pack({"a": info(), "b": info(shape=(0,), offsets=(4, 4))}, four),
        "zero_at_the_start": pack({"a": info(), "b": info(shape=(0,), offsets=(0, 0))}, four),
        "zero_inside": pack({"a": info(shape=(2,), offsets=(0, 8)), "b": info(shape=(0,), offsets=(4, 4))}, four * 2),
        "out_of_order": pack({"b": info(offsets=(4, 8)), "a": info()}, four * 2),
        "overlap": pack({"a": info(), "b": info()}, four),
        "hole": pack({"a": info(), "b": info(offsets=(8, 12))}, four * 3),
        "hole_at_the_start": pack({"a": info(offsets=(4, 8))}, four * 2),
        "trailing_bytes": pack(one, four + b"x"),
        "truncated": pack(one, four[:3]),
        "overflow": pack({"a": info(shape=(2**62, 8), offsets=(0, 0))}),
        "overflow_then_zero": pack({"a": info(shape=(2**62, 8, 0), offsets=(0, 0))}),
        "zero_then_overflow": pack({"a": info(shape=(0, 2**62, 8), offsets=(0, 0))}),
        "huge_then_zero": pack({"a": info(shape=(2**62, 0), offsets=(0, 0))}),
        "extent_2_63": pack({"a": info(shape=(2**63, 0), offsets=(0, 0))}),
        "extent_2_64": pack({"a": info(shape=(2**64, 0), offsets=(0, 0))}),
        "offset_huge": pack({"a": info(offsets=(0, 2**64 - 1))}, four),
        "length_0": struct.pack("<Q", 0),
        "length_huge": struct.pack("<Q", 2**64 - 1) + b"{}",
        "length_past_end": struct.pack("<Q", 3) + b"{}",
        "too_short": b"\1\0\0",
        "no_bytes": b"",
        "f4_odd": pack({"a": info("F4", (3,), (0, 2))}, four[:2]),
        "f4_odd_rows": pack({"a": info("F4", (2, 3), (0, 3))}, four[:3]),
        "f4_scalar": pack({"a": info("F4", (), (0, 0))}),
        "bool_other_bytes": pack({"a": info("BOOL", (4,), (0, 4))}, four),
    }
    numbers = {"float": "1.0", "exponent": "1e0", "minus": "-1", "minus_0": "-0", "text": '"1"', "true": "true"}
    for name, value in numbers.items():
        cases["extent_" + name] = pack('{"a":%s}' % raw_info(shape=f"[{value}]"), four)
        cases["offset_" + name] = pack('{"a":%s}' % raw_info(data_offsets=f"[0,{value}]"), four)
    for name, value in {"null": "null", "number": "4", "one": "[4]", "three": "[0,4,4]", "none": "[]"}.items():
        cases["shape_is_" + name] = pack('{"a":%s}' % raw_info(shape=value), four)
        cases["offsets_are_" + name] = pack('{"a":%s}' % raw_info(data_offsets=value), four)
    for dtype, bits in SIZES.items():
        size = 8 * bits // 8
        data = bytes(i % 2 if dtype == "BOOL" else i * 37 % 256 for i in range(size))
        cases["dtype_" + dtype] = pack({"a": info(dtype, (2, 4), (0, size))}, data)
    return cases


def saved_by_the_package(folder):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "model.weight": torch.randn(3, 5, generator=generator),
        "ids": torch.arange(7),
        "half": torch.randn(4, generator=generator).half(),
        "bfloat": torch.randn(2, 2, generator=generator).bfloat16(),
        "mask": torch.tensor([True, False, True]),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.empty(0, 3),
        "bytes": torch.arange(5, dtype=torch.uint8),
    }
    save_file(tensors, folder / "saved.safetensors", {"format": "pt", "note": "a \"b\"\n"})


def mutate(valid, randomness):
    """Damages a header as a tree, so that most files are JSON and differ in what the format asks for."""
    length = struct.unpack("<Q", valid[:8])[0]
    header = json.loads(valid[8 : 8 + length])
    data = valid[8 + length :]
    for _ in range(randomness.randint(1, 2)):
        name = randomness.choice([key for key in header if isinstance(header[key], dict)])
        entry = header[name]
        shape, offsets = entry.get("shape"), entry.get("data_offsets")
        kind = randomness.randrange(9)
        if kind == 0 and isinstance(shape, list) and shape:
            shape[randomness.randrange(len(shape))] += randomness.choice([-1, 1, 2**32, 2**61])
        elif kind == 1 and isinstance(offsets, list) and offsets:
            offsets[randomness.randrange(len(offsets))] += randomness.choice([-8, -4, -1, 1, 4, 8])
        elif kind == 2:
            entry["dtype"] = randomness.choice(list(SIZES))
        elif kind == 3 and isinstance(shape, list):
            entry["shape"] = randomness.choice([shape + [1], shape[::-1], [], [0]])
        elif kind == 4:
            header["copy of " + name] = dict(entry)
        elif kind == 5:
            del header[name]
            if not header:
                break
        elif kind == 6:
            count = randomness.randint(1, 4)
            data = data + b"x" * count if randomness.random() < 0.5 else data[:-count]
        elif kind == 7:
            values = [None, 3, -1, 1.0, "F32", [], [0], [0, 0], {}, True]
            entry[randomness.choice(["dtype", "shape", "data_offsets", "x"])] = randomness.choice(values)
        else:
            items = list(header.items())
            randomness.shuffle(items)
            header = dict(items)
    return pack(header, data, pad=b" " * randomness.randrange(4))


def dtype_name(tensor):
    return str(tensor.dtype).removeprefix("torch.")


def hexadecimal(tensor):
    return bytes(tensor.contiguous().flatten().view(torch.uint8).tolist()).hex() if tensor.numel() else ""


def describe(tensors):
    return {
        name: {"dtype": dtype_name(tensor), "shape": list(tensor.shape), "data": hexadecimal(tensor)}
        for name, tensor in tensors.items()
    }


def read(path):
    """The package's decision: every tensor and the metadata, or None when it refuses the file or one of its tensors."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return {"tensors": describe(tensors), "metadata": file.metadata() or {}}
    except (SafetensorError, RuntimeError, ValueError, TypeError, OSError):
        return None


def make_files(folder):
    folder.mkdir(parents=True)
    saved_by_the_package(folder)
    cases = hand_made()
    valid = (folder / "saved.safetensors").read_bytes()
    randomness = random.Random(1)
    for i in range(MUTATIONS):
        cases[f"mutated_{i}"] = mutate(valid, randomness)
    for name, content in cases.items():
        (folder / f"{name}.safetensors").write_bytes(content)
    result = {}
    for name in ["saved", *cases]:
        result[name] = {"read": read(folder / f"{name}.safetensors"), "stricter": STRICTER.get(name)}
    return result


def make_models(folder):
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model, LlamaConfig, LlamaForCausalLM, LlamaModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    llama = dict(
        vocab_size=32, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16,
    )  # fmt: skip
    gpt2 = dict(vocab_size=32, n_positions=16, n_embd=8, n_layer=2, n_head=2)
    llama_tied = [["model.embed_tokens.weight", "lm_head.weight"]]
    gpt2_tied = [["transformer.wte.weight", "lm_head.weight"]]
    result = {}

    def edit(name, change):
        """Rewrites the checkpoint's one file with its tensors changed."""
        path = folder / name / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file({key: value.clone() for key, value in tensors.items()}, path, {"format": "pt"})

    def case(name, model_class, tied=(), ignored=(), dtype=torch.float32):
        model, loading = model_class.from_pretrained(folder / name, dtype=dtype, output_loading_info=True)
        assert not loading["missing_keys"] and not loading["mismatched_keys"], (name, loading)
        wanted = dict(model.state_dict())
        # Which of the tied names transformers really made one parameter.
        pointers = {key: value.data_ptr() for key, value in wanted.items()}
        kept = [group for group in tied if len({pointers[key] for key in group}) == 1]
        result[name] = {
            "wanted": describe(wanted),
            "tied": list(tied),
            "tied_by_content": kept,
            "ignored": list(ignored),
            "surplus": sorted(loading["unexpected_keys"]),
            "dtype": str(dtype).removeprefix("torch."),
        }

    def save(name, model, **options):
        model.save_pretrained(folder / name, **options)

    save("llama_tied", LlamaForCausalLM(LlamaConfig(**llama, tie_word_embeddings=True)))
    assert "lm_head.weight" not in load_file(folder / "llama_tied/model.safetensors")
    case("llama_tied", LlamaForCausalLM, llama_tied)
    save("llama_untied", LlamaForCausalLM(LlamaConfig(**llama, tie_word_embeddings=False)))
    case("llama_untied", LlamaForCausalLM)
    save("llama_sharded", LlamaForCausalLM(LlamaConfig(**llama, tie_word_embeddings=True)), max_shard_size="2KB")
    assert len(list((folder / "llama_sharded").glob("*.safetensors"))) > 2
    case("llama_sharded", LlamaForCausalLM, llama_tied)
    save("llama_bfloat16", LlamaForCausalLM(LlamaConfig(**llama, tie_word_embeddings=True)).bfloat16())
    case("llama_bfloat16", LlamaForCausalLM, llama_tied)
    save("llama_to_half", LlamaForCausalLM(LlamaConfig(**llama, tie_word_embeddings=True)))
    case("llama_to_half", LlamaForCausalLM, llama_tied, dtype=torch.float16)
    save("llama_base", LlamaModel(LlamaConfig(**llama, tie_word_embeddings=True)))
    case("llama_base", LlamaForCausalLM, llama_tied)
    # As LLaMA files of transformers 4 are: a rotary table in each layer. transformers 5 drops those silently.
    save("llama_rotary", LlamaForCausalLM(LlamaConfig(**llama, tie_word_embeddings=False)))
    edit("llama_rotary", lambda tensors: tensors.update(
        {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(2) for i in range(2)}
    ))  # fmt: skip
    case("llama_rotary", LlamaForCausalLM, ignored=["*.rotary_emb.inv_freq"])
    save("llama_surplus", LlamaForCausalLM(LlamaConfig(**llama, tie_word_embeddings=False)))
    edit("llama_surplus", lambda tensors: tensors.update({"model.extra.weight": torch.ones(2), "junk": torch.ones(1)}))
    case("llama_surplus", LlamaForCausalLM)

    embedding, head = llama_tied[0]
    for name, change in {
        "llama_only_head": lambda tensors: tensors.update({head: tensors.pop(embedding)}),
        "llama_twice": lambda tensors: tensors.update({head: tensors[embedding].clone()}),
        "llama_twice_differing": lambda tensors: tensors.update({head: tensors[embedding] + 1}),
    }.items():
        save(name, LlamaForCausalLM(LlamaConfig(**llama, tie_word_embeddings=True)))
        edit(name, change)
        case(name, LlamaForCausalLM, llama_tied)

    save("gpt2", GPT2LMHeadModel(GPT2Config(**gpt2)))
    assert "transformer.wte.weight" in load_file(folder / "gpt2/model.safetensors")
    case("gpt2", GPT2LMHeadModel, gpt2_tied)
    save("gpt2_bare", GPT2Model(GPT2Config(**gpt2)))
    assert "wte.weight" in load_file(folder / "gpt2_bare/model.safetensors")
    case("gpt2_bare", GPT2LMHeadModel, gpt2_tied)
    # As the published gpt2: no prefix, and the causal mask of each layer.
    masks = {}
    for i in range(2):
        masks[f"h.{i}.attn.bias"] = torch.ones(16, 16).tril().view(1, 1, 16, 16)
    save("gpt2_bare_masks", GPT2Model(GPT2Config(**gpt2)))
    edit("gpt2_bare_masks", lambda tensors: tensors.update(masks))
    case("gpt2_bare_masks", GPT2LMHeadModel, gpt2_tied, ["*.attn.bias"])
    save("gpt2_into_base", GPT2LMHeadModel(GPT2Config(**gpt2)))
    case("gpt2_into_base", GPT2Model)
    return result


def make(folder):
    shutil.rmtree(folder, ignore_errors=True)
    manifest = {"files": make_files(folder / "files"), "models": make_models(folder / "models")}
    accepted = sum(case["read"] is not None for case in manifest["files"].values())
    assert 100 < accepted < len(manifest["files"]) - 100, accepted
    (folder / "written").mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def check(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    compared = 0
    for name, case in manifest["files"].items():
        if case["read"] is None or case["stricter"]:
            continue
        expected = case["read"]
        actual = read(folder / "written" / f"{name}.safetensors")
        if name == "bool_other_bytes":  # Shardpipe makes them 0 and 1
            expected["tensors"]["a"]["data"] = "00010101"
        if actual != expected:
            sys.exit(f"{name}: written by Shardpipe {actual}, expected {expected}")
        compared += 1
    print(f"{compared} files written by Shardpipe read back equal")


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](pathlib.Path(sys.argv[2]))
