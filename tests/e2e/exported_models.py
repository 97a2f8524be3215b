"""Models that tests/e2e exports and runs: each a Case, with enough rows for uneven microbatches and a loss."""

import pathlib
import sys

import torch
from torch.export import Dim

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "frontend/pt2"))
import export_models  # noqa: E402

torch.set_num_threads(1)
F = torch.nn.functional
BATCH = Dim("batch", min=1, max=64)
SEQUENCE = Dim("seq", min=3, max=32)


class Case:
    """`count`: loss elements of a microbatch, or None for a sum. `repeated`: parameters that are used several times."""

    def __init__(self, module, inputs, dynamic, count=len, repeated=(), constants=None):
        self.module, self.inputs, self.dynamic, self.count = module, inputs, dynamic, count
        self.repeated, self.constants = set(repeated), constants or {}


def rows(part):
    return len(next(iter(part.values())))


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 16), torch.nn.ReLU(inplace=True), torch.nn.Linear(16, 4), torch.nn.Linear(4, 4)
        )

    def forward(self, x, target):
        logits = self.layers(x)
        return {"logits": logits, "loss": F.cross_entropy(logits, target, ignore_index=3)}


def mlp():
    target = torch.randint(4, (11,))
    target[:5] = 3  # the first of three microbatches counts almost nothing
    return Case(
        Mlp(), {"x": torch.randn(11, 8), "target": target}, {"x": {0: BATCH}, "target": {0: BATCH}},
        count=lambda part: int((part["target"] != 3).sum()))


class Block(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(channels)
        self.conv2 = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(channels)
        self.relu = torch.nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(x + self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


class Cnn(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = torch.nn.Sequential(Block(8), Block(8))
        self.layer2 = torch.nn.Sequential(Block(8), Block(8))
        self.fc = torch.nn.Linear(8, 4)

    def forward(self, x, target):
        h = self.layer2(self.layer1(self.stem(x)))
        logits = self.fc(h.mean((2, 3)))
        return {"logits": logits, "loss": F.mse_loss(logits, target)}


def cnn(train):
    inputs = {"x": torch.randn(7, 3, 6, 6), "target": torch.randn(7, 4)}
    return Case(Cnn().train(train), inputs, {"x": {0: BATCH}, "target": {0: BATCH}}, rows)


class Layer(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, width)
        self.up = torch.nn.Linear(width, 2 * width)
        self.down = torch.nn.Linear(2 * width, width)

    def forward(self, h, mask):
        q, k, v = self.qkv(self.norm(h)).chunk(3, -1)
        h = h + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        return h + self.down(F.gelu(self.up(h)))


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(20, 16)
        self.layers = torch.nn.ModuleList(Layer(16) for _ in range(4))
        self.head = torch.nn.Linear(16, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids, labels):
        length = input_ids.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        h = self.embed(input_ids)
        for layer in self.layers:
            h = layer(h, mask)
        logits = self.head(h)
        return {"logits": logits, "loss": F.cross_entropy(logits[:, :-1].reshape(-1, 20), labels[:, 1:].reshape(-1)), "length": length}


def tied():
    ids = torch.randint(20, (6, 9))
    dynamic = {"input_ids": {0: BATCH, 1: SEQUENCE}, "labels": {0: BATCH, 1: SEQUENCE}}
    return Case(Tied(), {"input_ids": ids, "labels": ids}, dynamic, rows, {"embed.weight", "head.weight"})


class Toy(torch.nn.Module):
    """PiPPy's example: a parameter and a module used twice, a skip connection, a buffer cut to the batch."""

    def __init__(self):
        super().__init__()
        self.mm = torch.nn.Parameter(torch.randn(8, 8) / 3)
        self.mm2 = torch.nn.Parameter(torch.randn(8, 8) / 3)
        self.lin = torch.nn.Linear(8, 8)
        self.register_buffer("table", torch.randn(64, 8))

    def forward(self, x, y):
        x = x @ self.mm
        skip = x
        x = torch.relu(x + y)
        x = x @ self.mm + self.table[: x.shape[0]]
        x = torch.relu(self.lin(x)) + skip
        x = self.lin(x @ self.mm2)
        return {"out": x, "loss": F.mse_loss(x, y, reduction="sum")}


def toy():
    inputs = {"x": torch.randn(10, 8), "y": torch.randn(10, 8)}
    return Case(Toy(), inputs, {"x": {0: BATCH}, "y": {0: BATCH}}, None, {"mm", "lin.weight", "lin.bias"})


class Unet(export_models.UNet):
    def forward(self, image, target):
        mask = super().forward(image)
        return {"mask": mask, "loss": F.mse_loss(mask, target)}


def unet():
    inputs = {"image": torch.randn(7, 3, 8, 8), "target": torch.randn(7, 2, 8, 8)}
    return Case(Unet(), inputs, {"image": {0: BATCH}, "target": {0: BATCH}}, rows)


class Tagger(export_models.Tagger):
    def forward(self, ids, tags):
        out = super().forward(ids)
        return {**out, "loss": F.cross_entropy(out["tags"].flatten(0, 1), tags.flatten())}


def lstm():
    inputs = {"ids": torch.randint(30, (7, 5)), "tags": torch.randint(4, (7, 5))}
    return Case(Tagger(), inputs, {"ids": {0: BATCH}, "tags": {0: BATCH}}, rows, {"head.weight", "head.bias"})


class Branches(torch.nn.Module):
    """The branch follows from the microbatch's values; each uses a parameter that the other does not."""

    def __init__(self):
        super().__init__()
        self.inside = torch.nn.Linear(6, 6)
        self.yes = torch.nn.Linear(6, 6)
        self.no = torch.nn.Linear(6, 6)
        self.outside = torch.nn.Linear(6, 3)

    def forward(self, x, target):
        h = torch.tanh(self.inside(x))
        h = torch.cond(x.sum() > 0, lambda h: self.yes(h) * 2, lambda h: self.no(h) + h, (h,))
        logits = self.outside(torch.relu(h))
        return {"logits": logits, "loss": F.mse_loss(logits, target)}


def cond():
    x = torch.randn(7, 6).abs()
    x[3:] *= -1  # microbatches of both kinds, for 3 and for 5 of them
    return Case(Branches(), {"x": x, "target": torch.randn(7, 3)}, {"x": {0: BATCH}, "target": {0: BATCH}}, rows)


# ---------------------------------------------------------------- transformers


def causal(model, tied_names=(), count=6):
    """Labels with holes, so that the rows' losses have different numbers of elements."""
    ids = torch.randint(model.config.vocab_size, (count, 8))
    labels = ids.clone()
    labels[0, 2:] = -100
    labels[count - 1, :5] = -100
    dynamic = {"input_ids": {0: BATCH, 1: SEQUENCE}, "labels": {0: BATCH, 1: SEQUENCE}, "use_cache": None}
    return Case(
        model.eval(), {"input_ids": ids, "labels": labels}, dynamic, lambda part: int((part["labels"][:, 1:] != -100).sum()),
        tied_names, {"use_cache": False})


def gpt2():
    import transformers

    sizes = dict(n_layer=4, n_head=2, n_embd=16, vocab_size=40, n_positions=32, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    return causal(transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)), {"transformer.wte.weight", "lm_head.weight"})


def llama():
    return causal(export_models.llama_model())


def gemma2():
    return causal(export_models.gemma2().model, {"model.embed_tokens.weight", "lm_head.weight"})


def qwen3():
    return causal(export_models.qwen3().model)


def t5():
    model = export_models.t5().model
    ids = {"input_ids": torch.randint(64, (6, 7)), "labels": torch.randint(64, (6, 4))}
    ids["labels"][1, 2:] = -100
    dynamic = {"input_ids": {0: BATCH, 1: SEQUENCE}, "labels": {0: BATCH, 1: Dim("labels", min=3, max=32)}, "use_cache": None}
    tied_names = {"shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    bias = "{}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return Case(
        model, ids, dynamic, lambda part: int((part["labels"] != -100).sum()),
        tied_names | {bias.format("encoder"), bias.format("decoder")}, {"use_cache": False})


def classifier(model, inputs):
    model.config.problem_type = "single_label_classification"
    count = rows(inputs)
    inputs["labels"] = torch.randint(model.config.num_labels, (count,))
    return Case(model.eval(), inputs, {name: {0: BATCH} for name in inputs}, rows)


def vit():
    return classifier(export_models.vit().model, {"pixel_values": torch.randn(7, 3, 16, 16)})


def regnet():
    return classifier(export_models.regnet().model, {"pixel_values": torch.randn(7, 3, 32, 32)})


def bert():
    mask = torch.ones(7, 6, dtype=torch.int64)
    mask[1, 4:] = 0
    case = classifier(export_models.bert().model, {"input_ids": torch.randint(64, (7, 6)), "attention_mask": mask})
    for name in ("input_ids", "attention_mask"):
        case.dynamic[name][1] = SEQUENCE
    return case


CASES = {
    "mlp": mlp, "cnn_eval": lambda: cnn(False), "cnn_train": lambda: cnn(True), "tied": tied, "toy": toy, "unet": unet, "lstm": lstm, "cond": cond,
    "gpt2": gpt2, "llama": llama, "gemma2": gemma2, "qwen3": qwen3, "t5": t5, "vit": vit, "regnet": regnet, "bert": bert,
}  # fmt: skip


def make(name):
    torch.manual_seed(0)
    return CASES[name]()
