"""Makes files with torch.save and lists what they hold, for torch_reference.cpp.

    python torch_reference.py FOLDER

FOLDER/manifest.json: {"read": {file: {name: {dtype, shape, strides, data}}}, "shared": {file: [[names of one storage]]},
"refused": {file: [parts of the message]}, "models": {folder: the same as "read"}}.
"""

import argparse
import collections
import io
import json
import os
import pathlib
import shutil
import sys
import zipfile

import numpy
import torch

NEW_DTYPES = [
    torch.float8_e5m2, torch.float8_e4m3fn, torch.float8_e5m2fnuz, torch.float8_e4m3fnuz, torch.float8_e8m0fnu,
    torch.uint16, torch.uint32, torch.uint64, torch.complex32,
]  # fmt: skip
OLD_DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip


def raw_bytes(tensor):
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return bytes(tensor.flatten().view(torch.uint8).tolist()).hex() if tensor.numel() else ""


def describe(tensors):
    return {
        name: {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "strides": list(tensor.stride()),
            "data": raw_bytes(tensor),
        }
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor)
    }


def tensors_of(dtype):
    size = torch.empty(0, dtype=dtype).element_size()
    data = torch.tensor([i * 37 % 251 for i in range(24 * size)], dtype=torch.uint8)
    whole = (data % 2).bool() if dtype == torch.bool else data.view(dtype)
    return whole


class Custom:
    def __init__(self):
        self.x = 1


class Command:
    def __reduce__(self):
        return os.system, ("touch executed",)


def make_read():
    cases = {}
    for dtype in OLD_DTYPES + NEW_DTYPES:
        whole = tensors_of(dtype)
        cases["dtype_" + str(dtype).removeprefix("torch.")] = {
            "whole": whole,
            "matrix": whole.view(4, 6),
            "transposed": whole.view(4, 6).t(),
            "scalar": whole[5],
            "row": whole.view(4, 6)[2],
            "column": whole.view(4, 6)[:, 1],
            "steps": whole[3::5],
            "expanded": whole[1].expand(3, 2),
            "none": whole[:0].view(0, 3),
        }
    base = torch.randn(6, 4)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    attributes = torch.nn.Parameter(torch.randn(2))
    attributes.tensor_model_parallel = True
    with_attributes = torch.randn(3)
    with_attributes.note = "text"
    cases["module"] = module.state_dict()
    cases["tied"] = collections.OrderedDict(embedding=base, head=base, part=base[1:3], other=base.clone())
    cases["parameters"] = {"a": torch.nn.Parameter(base), "b": attributes, "c": with_attributes}
    cases["lazy_bits"] = {"conj": torch.randn(3, dtype=torch.complex64).conj(), "neg": torch._neg_view(torch.randn(3))}
    cases["sparse_names"] = {f"layer.{i}.ä\n{i}": torch.full((i % 3,), float(i)) for i in range(600)}
    cases["channels_last"] = {"a": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)}
    cases["containers"] = {
        "weight": base, "none": None, "true": True, "false": False, "int": -5, "big": 2**70, "negative": -(2**40),
        "float": 2.5, "text": "x" * 300, "list": [1, [2, [3]], ()], "tuple": (1, 2, 3, 4), "set": {1, 2},
        "frozen": frozenset({3}), "bytes": b"abc" * 100, "array": bytearray(b"xy"), "complex": 1j,
        "size": torch.Size([2, 3]), "dtype": torch.float32, "device": torch.device("cpu"), "long": [0] * 3000,
        "storage": torch.ones(3).untyped_storage(), "tensors": [torch.ones(2)], 7: torch.ones(1),
    }  # fmt: skip
    state = module.state_dict()
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    training = {"epoch": 3, "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    wrapped = {"under_" + key: {**training, key: state} for key in ("model", "state_dict", "model_state_dict", "module")}
    wrapped["under_any"] = {"epoch": 1, "generator": state}
    return cases, wrapped, state


def pickled(payload):
    return b"\x80\x02" + payload + b"."


def archive(path, records, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in records.items():
            file.writestr("archive/" + name, data)


def make_refused(folder):
    refused = {}

    def save(name, value, parts, **options):
        torch.save(value, folder / name, **options)
        refused[name] = parts

    def hand_made(name, payload, parts):
        archive(folder / name, {"data.pkl": pickled(payload)})
        refused[name] = parts

    save("command.pt", {"a": torch.ones(1), "b": Command()}, ['"posix.system"', "refused"])
    save("custom.pt", {"a": torch.ones(1), "b": Custom()}, ["Custom"])
    save("namespace.pt", {"a": torch.ones(1), "args": argparse.Namespace(lr=1)}, ['"argparse.Namespace"'])
    save("numpy.pt", {"a": torch.ones(1), "b": numpy.ones(2)}, ['"numpy.'])
    save("whole_module.pt", torch.nn.Linear(2, 2), ['"torch.nn.modules.linear.Linear"', "state_dict()"])
    save("sparse.pt", {"a": torch.eye(3).to_sparse()}, ['"torch._utils._rebuild_sparse_tensor"'])
    save("quantized.pt", {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, ["_rebuild_qtensor"])
    save("meta.pt", {"a": torch.ones(2, device="meta")}, ["_rebuild_meta_tensor_no_storage"])
    save("legacy.pt", {"a": torch.ones(2)}, ["before torch 1.6", "save it again"], _use_new_zipfile_serialization=False)
    save("no_tensors.pt", {"a": 1}, ["holds no tensors"])
    save("long_name.pt", {"a" * 5000: torch.ones(2)}, ["name has 5000 bytes; at most 4096"])
    save("a_tensor.pt", torch.ones(2), ["holds no dictionary"])
    save("expanded.pt", {"a": torch.ones(1).expand(1 << 28)}, ['tensor "a"', "repeats 4 bytes to 1073741824"])
    save("two.pt", {"x": {"a": torch.ones(1)}, "y": {"a": torch.ones(1)}}, ["holds 2 dictionaries", '"x", "y"'])
    save("protocol_0.pt", {"a": torch.ones(1)}, ["damaged"], pickle_protocol=0)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), folder / "script.pt")
    refused["script.pt"] = ["is a TorchScript program"]
    hand_made("system.pt", b"cos\nsystem\nX\x04\x00\x00\x00true\x85R", ['"os.system"'])
    hand_made("not_called.pt", b"}X\x01\x00\x00\x00acbuiltins\neval\ns", ['"builtins.eval"'])
    hand_made("stack_global.pt", b"\x8c\x02os\x8c\x06system\x93", ['"os.system"'])
    hand_made("inst.pt", b"(ios\nsystem\n", ['"os.system"'])
    hand_made("newobj.pt", b"ccollections\nOrderedDict\n)\x81", ["an object of a class"])
    hand_made("nested_lists.pt", b"]" * 5000 + b"a" * 4999, ["nested deeper than 256 levels"])
    hand_made("nested_tuples.pt", b")" + b"\x85" * 5000, ["nested deeper than 256 levels"])
    hand_made("nested_dicts.pt", b"}" + b"K\x01}" * 3000 + b"s" * 3000, ["nested deeper than 256 levels"])
    good = io.BytesIO()
    torch.save({"a": torch.ones(4)}, good)
    with zipfile.ZipFile(good) as file:
        root = file.namelist()[0].split("/")[0]
        records = {name.removeprefix(root + "/"): file.read(name) for name in file.namelist()}
    archive(folder / "big_endian.pt", {**records, "byteorder": b"big"})
    refused["big_endian.pt"] = ["byte order", '"big"']
    archive(folder / "compressed.pt", records, zipfile.ZIP_DEFLATED)
    refused["compressed.pt"] = ["compress"]
    archive(folder / "short_storage.pt", {**records, "data/0": b"\0" * 15})
    refused["short_storage.pt"] = ['tensor "a"', "exceeds its record", "15 bytes"]
    archive(folder / "no_storage.pt", {"data.pkl": records["data.pkl"]})
    refused["no_storage.pt"] = ['no record "data/0"', 'tensor "a"']
    archive(folder / "no_pickle.pt", {"data/0": records["data/0"]})
    refused["no_pickle.pt"] = ["no record data.pkl"]
    return refused


def make_models(folder):
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
                        max_position_embeddings=16)  # fmt: skip
    state = BertModel(config).state_dict()
    (folder / "single").mkdir()
    torch.save(state, folder / "single/pytorch_model.bin")
    (folder / "sharded").mkdir()
    names = list(state)
    weight_map = {}
    for part in range(3):
        file = f"pytorch_model-{part + 1:05}-of-00003.bin"
        chosen = names[part::3]
        torch.save({name: state[name] for name in chosen}, folder / "sharded" / file)
        weight_map.update({name: file for name in chosen})
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "sharded/pytorch_model.bin.index.json").write_text(json.dumps(index))
    return {"single": describe(state), "sharded": describe(state)}


def main(folder):
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    (folder / "models").mkdir()
    torch.manual_seed(0)
    cases, wrapped, state = make_read()
    read = {}
    for name, tensors in cases.items():
        for protocol in (2, 3, 4, 5):
            file = f"{name}_{protocol}.pt"
            torch.save(tensors, folder / "files" / file, pickle_protocol=protocol)
            read[file] = describe({key: value for key, value in tensors.items() if isinstance(key, str)})
    for name, value in wrapped.items():
        torch.save(value, folder / "files" / f"{name}.pth")
        read[f"{name}.pth"] = describe(state)
    manifest = {
        "read": read,
        "shared": {"tied_2.pt": [["embedding", "head"]]},
        "refused": make_refused(folder / "files"),
        "models": make_models(folder / "models"),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
