"""Exports small models with torch.export and runs the exported programs, for exported_compare.cpp.

    python export_models.py OUTPUT

For every case OUTPUT/<case>/ gets model.pt2 and reference.safetensors:
    in.<name>      an input, under the name that forward gives it
    out.<name>     an output of ep.module() for those inputs, under its name
    after.<name>   a buffer that the call changed
    grad.<name>    gradient of out.<first output>.sum() for a parameter, if the case asks for gradients
and, where the case has a second set of inputs (other sizes), in2.<name> and out2.<name>.
One thread, so that sums have one order. OUTPUT/done holds the hash of this script: nothing is done when it is the same.
"""

import hashlib
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.export import Dim, export
from torch.nn import functional as F
from torch.utils._pytree import tree_map

warnings.filterwarnings("ignore")
torch.set_num_threads(1)

CASES: dict = {}


def case(function):
    CASES[function.__name__] = function
    return function


class Case:
    """Inputs are {name: tensor} in the order of forward's parameters; `call` turns them into forward's arguments."""

    def __init__(self, model, inputs, dynamic=None, second=None, grad=True, call=None, decompose=False, strict=False,
                 seed=None, program=None):
        self.__dict__.update(locals())


def flatten(value, path=""):
    if isinstance(value, torch.Tensor):
        return {path or "0": value}
    if isinstance(value, bool):
        return {path: torch.tensor(value)}
    if isinstance(value, int):
        return {path: torch.tensor(value)}
    if isinstance(value, float):
        return {path: torch.tensor(value, dtype=torch.float64)}
    if value is None or isinstance(value, str):
        return {}
    items = value.items() if hasattr(value, "items") else ((str(i), item) for i, item in enumerate(value))
    result = {}
    for key, item in items:
        result.update(flatten(item, f"{path}.{key}" if path else str(key)))
    return result


def functional_gradients(program, args, kwargs) -> dict:
    """Of a decomposed program: module() writes the new buffers over the old ones, which breaks its own backward."""
    outputs = program.graph_module(*program._graph_module_flat_inputs(args, kwargs))
    first = next(i for i, spec in enumerate(program.graph_signature.output_specs) if spec.kind.name == "USER_OUTPUT")
    named = {key: value for key, value in program.named_parameters() if value.requires_grad}
    gradients = torch.autograd.grad(outputs[first].sum(), list(named.values()), allow_unused=True)
    return {f"grad.{key}": value for key, value in zip(named, gradients) if value is not None}


def save(name: str, made: Case, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    args, kwargs = made.call(made.inputs) if made.call else ((), made.inputs)
    program = made.program or export(made.model, args, kwargs, dynamic_shapes=made.dynamic, strict=made.strict)
    if made.decompose:
        program = program.run_decompositions()
    torch.export.save(program, folder / "model.pt2")
    tensors = {}
    for inputs, tag in ((made.inputs, ""), (made.second, "2")):
        if inputs is None:
            continue
        tensors.update({f"in{tag}.{key}": value.clone() for key, value in flatten(inputs).items()})
        module = program.module()
        before = {key: value.clone() for key, value in module.named_buffers()}
        if made.grad and not tag and made.decompose:
            fresh = tree_map(torch.clone, inputs)
            tensors.update(functional_gradients(program, *(made.call(fresh) if made.call else ((), fresh))))
        args, kwargs = made.call(inputs) if made.call else ((), inputs)
        if made.seed is not None:
            torch.manual_seed(made.seed)
        if made.grad and not tag and not made.decompose:
            outputs = flatten(module(*args, **kwargs))
            next(iter(outputs.values())).sum().backward()
            for key, parameter in module.named_parameters(remove_duplicate=False):
                if parameter.grad is not None:
                    tensors[f"grad.{key}"] = parameter.grad.detach().clone()
        else:
            with torch.no_grad():
                outputs = flatten(module(*args, **kwargs))
        tensors.update({f"out{tag}.{key}": value.detach() for key, value in outputs.items()})
        if not tag:
            for key, value in module.named_buffers():
                if not torch.equal(value, before[key]):
                    tensors[f"after.{key}"] = value.clone()
        with torch.no_grad():  # the second run starts from the saved buffers
            for key, value in module.named_buffers():
                value.copy_(before[key])
    contiguous = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    save_file(contiguous, folder / "reference.safetensors")


# ---------------------------------------------------------------- plain modules


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16), nn.LayerNorm(16)) for _ in range(3))
        self.head = nn.Linear(16, 5)
        self.scale = nn.Parameter(torch.ones(5), requires_grad=False)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x) * self.scale


@case
def mlp():
    batch = Dim("batch", min=1, max=64)
    return Case(Mlp(), {"x": torch.randn(4, 16)}, {"x": {0: batch}}, second={"x": torch.randn(7, 16)})


@case
def mlp_strict():
    return Case(Mlp(), {"x": torch.randn(4, 16)}, {"x": {0: Dim("batch", min=1, max=64)}}, strict=True)


@case
def mlp_bfloat16():
    return Case(Mlp().to(torch.bfloat16), {"x": torch.randn(4, 16, dtype=torch.bfloat16)}, {"x": {0: Dim("batch")}})


class Block(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels * stride, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels * stride)
        self.conv2 = nn.Conv2d(channels * stride, channels * stride, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels * stride)
        self.down = nn.Conv2d(channels, channels * stride, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.down(x)
        return F.relu(y)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.layers = nn.ModuleList([Block(8, 1), Block(8, 2), Block(16, 2)])
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet(train, decompose=False):
    dynamic = {"x": {0: Dim("batch", min=2, max=64)}}
    return Case(ResNet().train(train), {"x": torch.randn(4, 3, 16, 16)}, dynamic, decompose=decompose,
                second={"x": torch.randn(3, 3, 16, 16)})  # fmt: skip


@case
def resnet_train():
    return resnet(True)


@case
def resnet_eval():
    return resnet(False)


@case
def resnet_train_decomposed():
    return resnet(True, True)


@case
def resnet_channels_last():
    made = resnet(False)
    made.model = made.model.to(memory_format=torch.channels_last)
    return made


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        widths = (4, 8, 16)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip((3,) + widths, widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in ((16, 8), (8, 4)))
        self.merge = nn.ModuleList(nn.Conv2d(c, c // 2, 3, padding=1) for c in (16, 8))
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image):
        skips = []
        x = image
        for i, conv in enumerate(self.down):
            x = torch.tanh(conv(x))
            if i < 2:
                skips.append(x)
                x = F.avg_pool2d(x, 2)
        for up, merge in zip(self.up, self.merge):
            x = torch.cat([up(x), skips.pop()], 1)
            x = F.silu(merge(x))
        return self.head(self.norm(x)) + image[:, :2]


@case
def unet():
    return Case(UNet(), {"image": torch.randn(2, 3, 16, 16)}, {"image": {0: Dim("batch")}},
                second={"image": torch.randn(5, 3, 16, 16)})  # fmt: skip


class Pippy(nn.Module):
    """A parameter used twice, a skip connection, a value that depends on a size."""

    def __init__(self):
        super().__init__()
        self.mm_param = nn.Parameter(torch.randn(12, 12) / 4)
        self.mm_param2 = nn.Parameter(torch.randn(12, 12) / 4)
        self.register_buffer("moved", torch.randn(12))
        self.lin = nn.Linear(12, 12)

    def forward(self, x, y=None):
        x = torch.mm(x, self.mm_param)
        if y is not None:
            x = x + y
        skip = x
        x = torch.relu(x) + self.moved
        x = torch.mm(x, self.mm_param)
        x = self.lin(x) / x.shape[0]
        x = torch.relu(x) + skip
        x = torch.mm(x, self.mm_param2)
        x = self.lin(x)
        return x, x.shape[0] * 2, skip


@case
def pippy():
    b = Dim("b", min=1, max=1000)
    return Case(Pippy(), {"x": torch.randn(6, 12), "y": torch.randn(6, 12)}, {"x": {0: b}, "y": {0: b}},
                second={"x": torch.randn(9, 12), "y": torch.randn(9, 12)})  # fmt: skip


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 8)
        self.lstm = nn.LSTM(8, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, ids):
        x, (h, c) = self.lstm(self.embed(ids))
        return {"tags": self.head(x), "state": {"h": h, "c": c}, "best": self.head(x).argmax(-1)}


@case
def lstm():
    return Case(Tagger(), {"ids": torch.randint(0, 30, (3, 7))}, {"ids": {0: Dim("b", min=1)}},
                second={"ids": torch.randint(0, 30, (2, 7))})  # fmt: skip


class Cond(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.b = nn.Linear(6, 6)

    def forward(self, x, k):
        def yes(x, k):
            with torch.no_grad():
                shift = self.b(x).mean(0)
            return torch.cond(k.sum() > 100, lambda x: x * 2, lambda x: x + shift, (self.a(x),))

        def no(x, k):
            return self.b(x) + x.shape[0]

        return torch.cond(x.sum() > 0, yes, no, (x, k)) + 1


def cond(value, k):
    x = torch.randn(3, 6)
    x = x.abs() * (1 if value else -1)
    return Case(Cond(), {"x": x, "k": torch.tensor([k])}, {"x": {0: Dim("b")}, "k": None},
                second={"x": -x, "k": torch.tensor([k])})  # fmt: skip


@case
def cond_true():
    return cond(True, 3)


@case
def cond_nested():
    return cond(True, 300)


@case
def cond_false():
    return cond(False, 3)


class Nested(nn.Module):
    def forward(self, batch, extra, factor, flag=True, mode="sum", n=3):
        a, b = extra
        x = batch["x"] * factor + a[:, None]
        y = batch["more"]["y"]
        total = x.sum(1, keepdim=True) if mode == "sum" and flag else x
        best, where = torch.topk(x, n)
        return {"loss": (x * y).mean(), "pair": (x - b, [total, None, 7, 0.5, "text", True]), "where": where,
                "count": x.shape[0] + y.shape[1] * 2, "half": x.shape[0] / 2}  # fmt: skip


@case
def nested():
    b = Dim("b", min=2, max=50)

    def call(inputs):
        batch = {"x": inputs["batch"]["x"], "more": {"y": inputs["batch"]["more"]["y"]}}
        return (batch, [inputs["extra"]["0"], inputs["extra"]["1"]], 2), {"flag": True, "mode": "sum"}

    def make(n):
        batch = {"x": torch.randn(n, 5), "more": {"y": torch.randn(n, 5)}}
        return {"batch": batch, "extra": {"0": torch.randn(n), "1": torch.randn(5)}}

    dynamic = {"batch": {"x": {0: b}, "more": {"y": {0: b}}}, "extra": [{0: b}, None], "factor": None, "flag": None,
               "mode": None}  # fmt: skip
    return Case(Nested(), make(4), dynamic, second=make(9), call=call, grad=False)


class Sizes(nn.Module):
    """Arithmetic on sizes, dtypes that promote, lists with holes."""

    def forward(self, x, i):
        s, t = x.shape
        half = t // 2
        y = x[:, :half] * 1.5 + (s % 3) - t**2 / 7
        z = x.new_full((max(s, t), min(s, 5)), s * 2.5)
        w = i + 1
        w2 = i * 0.5
        picked = x[:, torch.arange(half)] + x[i[:2] % s].sum()
        parts = torch.split(x, [1, t - 1], dim=1)
        chunks = torch.chunk(x, 2, 1)
        values, indices = x.max(dim=1)
        u = torch.ones(s, 3, dtype=torch.bool) | True
        return (y, z, w, w2, picked, parts[1].contiguous(), chunks[0].contiguous(), values, indices, u, x.unsqueeze(0).expand(2, s, t) * -1,
                math_int(s, t), torch.where(x > 0, x, float("-inf")).masked_fill(x < -1, 3))  # fmt: skip


def math_int(s, t):
    return torch.sym_max(s, t) - torch.sym_min(s, 4) + (s + t) // 3


@case
def sizes():
    s = Dim("s", min=2, max=64)
    return Case(Sizes(), {"x": torch.randn(6, 8), "i": torch.tensor([1, 2, 3])}, {"x": {0: s, 1: Dim.AUTO}, "i": None}, grad=False,
                second={"x": torch.randn(11, 8), "i": torch.tensor([5, 0, 2])})  # fmt: skip


class Derived(nn.Module):
    def forward(self, x, y, z):
        return x.repeat_interleave(2, 0) + y, z[1:] * x[:, 0]


@case
def derived():
    n = Dim("n", min=2, max=20)

    def make(n):
        return {"x": torch.randn(n, 4), "y": torch.randn(2 * n, 4), "z": torch.randn(n + 1)}

    return Case(Derived(), make(3), {"x": {0: n}, "y": {0: 2 * n}, "z": {0: n + 1}}, second=make(5), grad=False)


class Mutating(nn.Module):
    """Buffers that count and average, an input that is written in place, a lifted constant, a counter of integers."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("cache", torch.zeros(8, 4), persistent=False)

    def forward(self, x, position):
        x.mul_(2)
        self.steps += 1
        self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        self.cache.index_copy_(0, position, x.detach())
        return self.lin(x) + self.mean + self.cache.sum(0) + torch.tensor([1.0, 2.0, 3.0, 4.0]), self.steps.clone()


@case
def mutating():
    return Case(Mutating(), {"x": torch.randn(3, 4), "position": torch.tensor([5, 0, 2])}, {"x": {0: Dim("n", max=8)}, "position": {0: Dim("n", max=8)}},
                second={"x": torch.randn(2, 4), "position": torch.tensor([7, 1])})  # fmt: skip


@case
def mutating_decomposed():
    made = mutating()
    made.decompose = True
    return made


class Regions(nn.Module):
    """no_grad and autocast regions, nested and next to each other."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 8)
        self.b = nn.Linear(8, 8)
        self.c = nn.Linear(8, 8)

    def forward(self, x):
        with torch.no_grad():
            gate = torch.sigmoid(self.c(x))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.b(torch.relu(self.a(x)))
            with torch.autocast("cpu", enabled=False):
                y = self.c(y.float())
            with torch.no_grad():
                gate = gate * torch.tanh(self.a(gate))
            y = self.a(y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.a(y) + self.b(y)
        with torch.autocast("cuda", dtype=torch.float16):
            y = self.b(y.float())
        return y * gate


@case
def regions():
    return Case(Regions(), {"x": torch.randn(5, 8)}, {"x": {0: Dim("b")}}, second={"x": torch.randn(2, 8)})


@case
def dropout():
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.4), nn.Linear(6, 6)).train()
    return Case(model, {"input": torch.randn(4, 6)}, {"input": {0: Dim("b")}}, seed=123)


class Names(nn.Module):
    """An input and a parameter of one name; views of one storage; a tensor of no elements; a transposed weight."""

    def __init__(self):
        super().__init__()
        both = torch.randn(6, 4)
        self.weight = nn.Parameter(both[:3])
        self.other = nn.Parameter(both[3:])
        self.turned = nn.Parameter(torch.randn(4, 5).t())
        self.register_buffer("nothing", torch.zeros(0, 4))
        self.register_buffer("flags", torch.tensor([True, False, True]))

    def forward(self, weight):
        x = weight @ self.weight.t() + (weight @ self.other.t()) * self.flags
        return torch.cat([weight, self.nothing]) @ self.turned.t(), x


@case
def names():
    return Case(Names(), {"weight": torch.randn(2, 4)}, {"weight": {0: Dim("b")}})


# ---------------------------------------------------------------- transformers


def text_case(model, inputs, dynamic=None, **more):
    batch, seq = Dim("batch", min=1, max=16), Dim("seq", min=2, max=32)
    dynamic = dynamic or {key: {0: batch, 1: seq} for key in inputs}
    vocab = model.config.vocab_size
    second = {key: torch.randint(0, vocab, (3, 9)) if value.dtype == torch.int64 and "mask" not in key else torch.ones(3, 9, dtype=value.dtype)
              for key, value in inputs.items()}  # fmt: skip

    def call(inputs):
        return (), {**inputs, "use_cache": False}

    return Case(model.eval(), inputs, {**dynamic, "use_cache": None},
                second=more.pop("second", second), call=call, **more)  # fmt: skip


def ids(vocab=64, shape=(2, 6)):
    return {"input_ids": torch.randint(0, vocab, shape)}


def llama_model(**more):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=64, max_position_embeddings=64, **more))  # fmt: skip


@case
def llama():
    return text_case(llama_model(), ids())


@case
def llama_decomposed():
    return text_case(llama_model(), ids(), decompose=True)


@case
def llama_bfloat16():
    return text_case(llama_model().to(torch.bfloat16), ids())


@case
def llama_autocast():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = llama_model()

        def forward(self, input_ids):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.inner(input_ids=input_ids, use_cache=False)

    batch, seq = Dim("batch", min=1, max=16), Dim("seq", min=2, max=32)
    return Case(Wrapped().eval(), ids(), {"input_ids": {0: batch, 1: seq}})


@case
def llama_static_cache():
    """A cache of fixed length: buffers that the graph sees as lifted constants of the same storage and writes."""
    from transformers import GenerationConfig
    from transformers.integrations.executorch import TorchExportableModuleForDecoderOnlyLM

    model = llama_model().eval()
    model.generation_config = GenerationConfig(
        use_cache=True, cache_implementation="static", max_length=16,
        cache_config={"batch_size": 1, "max_cache_len": 16})  # fmt: skip
    seq = Dim("seq", min=1, max=15)
    inputs = {"input_ids": torch.randint(0, 64, (1, 5)), "cache_position": torch.arange(5)}
    second = {"input_ids": torch.randint(0, 64, (1, 2)), "cache_position": torch.arange(2)}
    with torch.no_grad():
        program = TorchExportableModuleForDecoderOnlyLM(model).export(
            input_ids=inputs["input_ids"], cache_position=inputs["cache_position"],
            dynamic_shapes={"input_ids": {1: seq}, "cache_position": {0: seq}}, strict=False)  # fmt: skip
    return Case(model, inputs, program=program, second=second, grad=False)


@case
def gpt2_tied():
    from transformers import GPT2Config, GPT2LMHeadModel

    return text_case(GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=64)), ids())


@case
def gpt2_loss_dropout():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=64))
    made = text_case(model, {**ids(), "labels": torch.randint(0, 64, (2, 6))}, seed=123)
    made.model.train()
    return made


@case
def bert():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=64,
                        max_position_embeddings=64, num_labels=3)  # fmt: skip
    mask = torch.ones(2, 6, dtype=torch.int64)
    mask[1, 4:] = 0
    made = text_case(BertForSequenceClassification(config), {**ids(), "attention_mask": mask})
    made.call = None
    del made.dynamic["use_cache"]
    return made


@case
def t5():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=64, decoder_start_token_id=0)
    b, s, t = Dim("b", min=1, max=16), Dim("s", min=2, max=32), Dim("t", min=2, max=32)
    inputs = {**ids(), "decoder_input_ids": torch.randint(0, 64, (2, 4))}
    return text_case(T5ForConditionalGeneration(config), inputs, {"input_ids": {0: b, 1: s}, "decoder_input_ids": {0: b, 1: t}},
                     second={"input_ids": torch.randint(0, 64, (3, 5)), "decoder_input_ids": torch.randint(0, 64, (3, 7))})  # fmt: skip


@case
def gemma2():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return text_case(Gemma2ForCausalLM(Gemma2Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, vocab_size=64, max_position_embeddings=64, sliding_window=4)), ids())  # fmt: skip


@case
def qwen3():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return text_case(Qwen3ForCausalLM(Qwen3Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, vocab_size=64, max_position_embeddings=64)), ids())  # fmt: skip


@case
def vit():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=16,
                       patch_size=4, num_labels=5)  # fmt: skip
    return Case(ViTForImageClassification(config).eval(), {"pixel_values": torch.randn(2, 3, 16, 16)}, {"pixel_values": {0: Dim("batch", min=1)}},
                second={"pixel_values": torch.randn(3, 3, 16, 16)})  # fmt: skip


@case
def regnet():
    from transformers import RegNetConfig, RegNetForImageClassification

    config = RegNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], groups_width=8, num_labels=5)
    return Case(RegNetForImageClassification(config).eval(), {"pixel_values": torch.randn(2, 3, 32, 32)}, {"pixel_values": {0: Dim("batch")}})


# ---------------------------------------------------------------- files that tests look into


def save_special(output: Path) -> None:
    """Archives without reference outputs: without weights, with an operator of Python's, larger than its memory."""
    from torch._subclasses import FakeTensorMode
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = output / "special"
    folder.mkdir(parents=True, exist_ok=True)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=64)
    batch, seq = Dim("batch", min=1, max=16), Dim("seq", min=2, max=32)
    with torch.device("meta"):
        model = GPT2LMHeadModel(config).eval()
        inputs = {"input_ids": torch.zeros(2, 6, dtype=torch.int64), "use_cache": False}
        program = export(model, (), inputs, dynamic_shapes={"input_ids": {0: batch, 1: seq}, "use_cache": None})
    torch.export.save(program, folder / "meta.pt2")
    torch.manual_seed(1)
    real = GPT2LMHeadModel(config).eval()
    real.save_pretrained(folder / "weights")
    given = torch.randint(0, 64, (2, 6))
    program = export(real, (), {"input_ids": given, "use_cache": False},
                     dynamic_shapes={"input_ids": {0: batch, 1: seq}, "use_cache": None})  # fmt: skip
    with torch.no_grad():
        logits = program.module()(input_ids=given, use_cache=False).logits
    save_file({"in.input_ids": given, "out.logits": logits}, folder / "weights.safetensors")
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = llama_model().eval()
        program = export(fake, (), {"input_ids": torch.zeros(2, 6, dtype=torch.int64), "use_cache": False},
                         dynamic_shapes={"input_ids": {0: batch, 1: seq}, "use_cache": None})  # fmt: skip
        torch.export.save(program, folder / "fake.pt2")
    llama_model().save_pretrained(folder / "llama_weights")

    @torch.library.custom_op("ours::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @twice.register_fake
    def _(x):
        return torch.empty_like(x)

    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(2, 2)])
            self.mark = nn.Identity()

        def forward(self, x):
            return twice(self.layers[0](x))

    torch.export.save(export(Custom(), (torch.randn(2, 2),)), folder / "custom_op.pt2")


def main() -> None:
    output = Path(sys.argv[1])
    digest = hashlib.sha256(Path(__file__).read_bytes() + torch.__version__.encode()).hexdigest()
    done = output / "done"
    if done.exists() and done.read_text() == digest:
        return
    only = sys.argv[2:]
    for name, make in CASES.items():
        if only and name not in only:
            continue
        torch.manual_seed(0)
        made = make()
        save(name, made, output / name)
        print("exported", name, flush=True)
    if not only or "special" in only:
        save_special(output)
    if not only:
        done.write_text(digest)


if __name__ == "__main__":
    main()
