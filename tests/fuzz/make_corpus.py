"""Writes the seeds of the fuzz targets: small real files of torch, safetensors and tokenizers, and templates.

    python tests/fuzz/make_corpus.py [TARGET...]

They go to corpus/<target>/seed-*, which is kept in the repository; inputs that once broke a reader stand beside them
under other names and stay. Small files matter: a fuzzer runs them hundreds of times a second.
"""

import hashlib
import io
import json
import random
import struct
import sys
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import safetensors.torch
import tokenizers
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "text"))
import chat_fuzz  # noqa: E402
import chat_language  # noqa: E402
import chat_templates  # noqa: E402
import charsmap  # noqa: E402
import tokenizer_models  # noqa: E402

warnings.filterwarnings("ignore")
torch.manual_seed(0)
MAX_BYTES = 16 << 10


def saved(value, **options) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def state_dictionaries() -> list[bytes]:
    a = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    complex_view = torch.tensor([1 + 2j, 3 - 4j]).conj()
    types = [torch.float8_e5m2, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.uint16, torch.float16]
    values = [
        module.state_dict(),
        {"model": {"a": a, "b": a.t(), "c": a[1:, 1:]}, "epoch": 3, "lr": 0.1, "name": "x", "none": None},
        {str(dtype): torch.zeros(3).to(dtype) for dtype in types},
        OrderedDict(p=torch.nn.Parameter(a), q=torch.nn.Buffer(a), conj=complex_view, neg=torch._neg_view(a)),
        {"set": {1, 2}, "frozen": frozenset([3]), "size": a.size(), "device": torch.device("cpu"), "big": 1 << 80,
         "bytes": b"abc", "list": [1, [2, (3,)]], "complex": 1j, "dtype": torch.float32, "minus": -5, "a": a},
    ]
    files = [saved(value) for value in values]
    return files + [saved(values[1], pickle_protocol=protocol) for protocol in (3, 4, 5)]


def pickles() -> list[bytes]:
    return [next(archive.read(n) for n in archive.namelist() if n.endswith("data.pkl"))
            for archive in map(zipfile.ZipFile, map(io.BytesIO, state_dictionaries()))]


def zips() -> list[bytes]:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = b"a comment"
        archive.writestr("x/a", "aaaa" * 20)
        with archive.open("x/b", "w", force_zip64=True) as record:
            record.write(b"data")
    return [state_dictionaries()[0], stream.getvalue(), saved({}), b"PK\5\6" + bytes(18)]


def safetensors_files() -> list[bytes]:
    def raw(header: str, data: bytes = b"") -> bytes:
        return struct.pack("<Q", len(header)) + header.encode() + data

    tensors = {"model.embed": torch.ones(3, 4), "ids": torch.arange(3), "mask": torch.ones(2, 2, dtype=torch.bool),
               "scale": torch.ones((), dtype=torch.float16), "none": torch.empty(0, 4, dtype=torch.bfloat16)}
    return [
        safetensors.torch.save(tensors, {"format": "pt"}), safetensors.torch.save({"x": torch.zeros(2)}), raw("{}"),
        raw('{"__metadata__":null,"a":{"later":[{"x":1.5}],"dtype":"F4","shape":[2],"data_offsets":[0,1]}}', b"1"),
        raw('{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]},"b":{"dtype":"C64","shape":[0,9],'
            '"data_offsets":[3,3]}}', b"123"),
    ]


def indexes() -> list[bytes]:
    names = {f"model.layers.{i}.weight": f"model-0000{i}-of-00003.safetensors" for i in range(3)}
    return [json.dumps(value).encode() for value in (
        {"metadata": {"total_size": 8}, "weight_map": names}, {"weight_map": {}},
        {"weight_map": {"x": "a.safetensors", "y": "a.safetensors"}, "other": [1, {"a": None}]})]


def json_texts() -> list[bytes]:
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 576, "rope_theta": 1e5, "tie": True, "x": None,
              "rope_scaling": {"factor": 8.0, "type": "llama3"}, "text": "\u00e9\n\t\"\\ \U0001f600"}
    return [json.dumps(config, indent=1).encode(), json.dumps(config, ensure_ascii=False).encode(),
            b'[1, -2, 3.5e-7, "a", [], {}, [[[[]]]], 18446744073709551615, "\\ud83d\\ude00"]',
            b'{"a": 1, /* two */ "b": 2 // end\n}']


def exported_programs() -> list[bytes]:
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)
            self.register_buffer("constant", torch.ones(2), persistent=False)

        def forward(self, x, scale: float):
            return {"y": self.linear(x) * scale + self.constant, "n": x.shape[0]}

    class Empty(torch.nn.Module):
        def forward(self, x):
            return x + 1

    files = []
    dimension = torch.export.Dim("batch", max=64)
    for net, inputs, dims in (
        (Net(), (torch.ones(3, 2), 0.5), {"x": {0: dimension}, "scale": None}), (Empty(), (torch.ones(2),), None)
    ):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.pt2")
            torch.export.save(torch.export.export(net, inputs, dynamic_shapes=dims), path)
            files.append(without_stack_traces(path))
    return files


def without_stack_traces(path: Path) -> bytes:
    """The archive without what names the files of this machine."""
    stream = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(stream, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if "/models/" in info.filename:
                model = json.loads(data)
                for node in model["graph_module"]["graph"]["nodes"]:
                    node["metadata"].pop("stack_trace", None)
                data = json.dumps(model, separators=(",", ":")).encode()
            target.writestr(zipfile.ZipInfo(info.filename), data)
    return stream.getvalue()


def program_texts() -> list[bytes]:
    """The texts inside of an exported program; the first byte says which."""
    texts = []
    for file in exported_programs()[:1]:
        archive = zipfile.ZipFile(io.BytesIO(file))
        model = json.loads(next(archive.read(n) for n in archive.namelist() if n.endswith("models/model.json")))
        graph = model["graph_module"]
        for call in graph["module_call_graph"]:
            signature = call["signature"]
            if signature:
                texts += [b"t" + signature["in_spec"].encode(), b"t" + signature["out_spec"].encode()]
        for node in graph["graph"]["nodes"]:
            if "nn_module_stack" in node["metadata"]:
                texts.append(b"m" + node["metadata"]["nn_module_stack"].encode())
    return texts + [
        b"s" + b"Add(Mul(Integer(2), Symbol('s70', positive=True, integer=True)), Integer(-1))",
        b"s" + b"Pow(Symbol('s0', integer=True), Integer(2))", b"z" + b"2*batch*seq+tokens+1", b"z" + b"-3*a*a",
        b"p" + b"2*s70 + s3*s4 - 1", b"p" + b"8", b"p" + b"(s0 + 1)*2",
    ]


def schedules() -> list[bytes]:
    return [b"0F0,0F1,0F2\n1F0,1F1,1F2\n2F0,2F1,2F2\n", b"0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n",
            b"0F0, ,0SEND_F0,0RECV_T0\n2RECV_F0,2F0,2SEND_T0\n1F0,,1SEND_F0\r\n", b"0F0,1F0,2F0\n"]


def chat_templates_small() -> list[bytes]:
    names = ["CHATML", "LLAMA_2", "LLAMA_3", "MISTRAL", "GEMMA", "ZEPHYR", "DEEPSEEK", "QWEN_2_5"]
    rng = random.Random(0)
    texts = [getattr(chat_templates, name) for name in names]
    texts += ["\n".join(map(str, rng.sample(list(chat_language.CASES), 25))) for _ in range(8)]
    texts += rng.sample(list(map(str, chat_language.CASES)), 20)
    texts += [chat_fuzz.Generator(seed).template() for seed in range(20)]
    return [text.encode() for text in texts]


def tokenizer_files() -> list[bytes]:
    """Random tokenizers, until each kind of each part was there."""
    rules = {"\u00e9": "e\u0301", "\ufb01": "fi", "\t": " ", "\u00ad": ""}
    tokenizer_models.charsmap = lambda: charsmap.compile_charsmap(rules)
    corpus = ["the fox in the box", "a fox, a box: e\u00e9 12", "in the \u4f60\u597d box"]
    files, kinds = [], set()
    for seed in range(400):
        rng = random.Random(seed)
        tokenizer = tokenizer_models.random_tokenizer(rng, corpus)
        truncation, padding = tokenizer_models.random_lengths(rng)
        if truncation and truncation["stride"] == 0:  # the package refuses a stride that leaves no room
            tokenizer.enable_truncation(**truncation)
        if padding:
            tokenizer.enable_padding(**padding)
        text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
        new = set(type_names(json.loads(text))) - kinds
        if new and len(text) < 9000:
            kinds |= new
            files.append(text.encode() + b"\0" + "The fox, in <s>\u00e9 b\ufb01 12!".encode())
    return files


def type_names(value, part=""):
    if isinstance(value, dict):
        if "type" in value:
            yield f"{part} {value['type']}"
        for key, item in value.items():
            yield from type_names(item, part or key)
    elif isinstance(value, list):
        for item in value:
            yield from type_names(item, part)


SEEDS = {
    "json": json_texts, "zip": zips, "safetensors": safetensors_files, "index": indexes, "pickle": pickles,
    "torch_file": state_dictionaries, "exported": exported_programs, "exported_text": program_texts,
    "schedule": schedules, "chat": chat_templates_small, "tokenizer": tokenizer_files,
}


def main() -> None:
    for target in sys.argv[1:] or SEEDS:
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed-*"):
            old.unlink()
        for seed in SEEDS[target]():
            if len(seed) <= MAX_BYTES:
                (folder / f"seed-{hashlib.sha256(seed).hexdigest()[:12]}").write_bytes(seed)
            else:
                print(f"{target}: a seed of {len(seed)} bytes is left out")
        print(target, len(list(folder.iterdir())), "files,", sum(f.stat().st_size for f in folder.iterdir()), "bytes")


if __name__ == "__main__":
    main()
