"""`shardpipe run` on programs from torch.export: outputs and gradients of every layout equal Python's on the same
microbatches, bit for bit; bad requests end with the right status and one line."""

import json
import os
import pathlib
import tempfile
import unittest

import torch
from safetensors.torch import load_file, save_file

import shardpipe_cli as cli

torch.set_num_threads(1)
F = torch.nn.functional
BATCH = torch.export.Dim("batch", min=1, max=64)


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 16), torch.nn.ReLU(inplace=True), torch.nn.Linear(16, 4), torch.nn.Linear(4, 4)
        )

    def forward(self, x, target):
        logits = self.layers(x)
        return {"logits": logits, "loss": F.cross_entropy(logits, target, ignore_index=3)}


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


def examples():
    torch.manual_seed(0)
    batch = {0: BATCH}
    target = torch.randint(4, (11,))
    target[:5] = 3  # the first of three microbatches counts almost nothing
    yield "mlp", Mlp(), {"x": torch.randn(11, 8), "target": target}, {"x": batch, "target": batch}, "x"
    images = {"x": torch.randn(7, 3, 6, 6), "target": torch.randn(7, 4)}
    yield "cnn_eval", Cnn().eval(), images, {"x": batch, "target": batch}, "x"
    yield "cnn_train", Cnn().train(), images, {"x": batch, "target": batch}, "x"
    sequence = {0: BATCH, 1: torch.export.Dim("seq", min=3, max=32)}
    ids = torch.randint(20, (6, 9))
    yield "tied", Tied(), {"input_ids": ids, "labels": ids}, {"input_ids": sequence, "labels": sequence}, "input_ids"
    yield "toy", Toy(), {"x": torch.randn(10, 8), "y": torch.randn(10, 8)}, {"x": batch, "y": batch}, "x"
    import transformers

    config = transformers.GPT2Config(n_layer=4, n_head=2, n_embd=16, vocab_size=40, n_positions=32, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False)
    ids = torch.randint(40, (5, 8))
    inputs = {"input_ids": ids, "labels": ids}
    yield "gpt2", transformers.GPT2LMHeadModel(config).eval(), inputs, {"input_ids": sequence, "labels": sequence}, "input_ids"


def weights(name, inputs, parts):
    """Of each microbatch's loss in that of the whole batch."""
    if name == "mlp":
        counts = [int((part["target"] != 3).sum()) for part in parts]
    elif name == "toy":
        return [1.0] * len(parts)
    else:
        counts = [len(next(iter(part.values()))) for part in parts]
    return [count / sum(counts) for count in counts]


class Run(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.root = pathlib.Path(cls.temporary.name)
        cls.models = {}
        for name, module, inputs, dynamic, first in examples():
            sample = {key: value[:4].clone() for key, value in inputs.items()}
            kwargs = {"dynamic_shapes": dynamic}
            program = torch.export.export(module, (), sample, **kwargs)
            torch.export.save(program, cls.root / f"{name}.pt2")
            save_file({key: value.clone() for key, value in inputs.items()}, cls.root / f"{name}.safetensors")
            cls.models[name] = (program, inputs, first)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def python(self, name, chunks):
        """Outputs and gradients of the exported program on the same microbatches."""
        program, inputs, first = self.models[name]
        import copy

        module = copy.deepcopy(program).module()
        split = {key: value.tensor_split(chunks) for key, value in inputs.items()}
        parts = [{key: split[key][m] for key in inputs} for m in range(chunks)]
        outputs = []
        loss = 0.0
        for part, weight in zip(parts, weights(name, inputs, parts)):
            out = module(**part)
            outputs.append({key: value.detach() if torch.is_tensor(value) else value for key, value in out.items()})
            if weight:
                loss += weight * out["loss"].double().item()
                out["loss"].backward(torch.tensor(weight))
        gradients = {key: value.grad for key, value in module.named_parameters(remove_duplicate=False) if value.grad is not None}
        return outputs, loss, gradients

    def shardpipe(self, name, *arguments, check=0, **options):
        folder = self.root / "answers"
        folder.mkdir(exist_ok=True)
        _, out, err, _ = cli.run(
            "run", "--model", self.root / f"{name}.pt2", "--inputs", self.root / f"{name}.safetensors", "--outputs", folder / "out.safetensors",
            "--threads", 1, "--json", *arguments, check=check, **options,
        )
        return json.loads(out) if check == 0 else err

    def compare(self, name, pp, chunks, split, tied=()):
        expected, loss, gradients = self.python(name, chunks)
        layout = ["--pp", pp, "--chunks", chunks, "--split", split, "--kernels", "reference"]
        grads = self.root / "answers" / "grads.safetensors"
        report = self.shardpipe(name, *layout, "--loss", "loss", "--grads", grads)
        self.assertEqual(report["layout"], {"pp": pp, "tp": 1, "dp": 1, "chunks": chunks})
        got = load_file(self.root / "answers" / "out.safetensors")
        for key in expected[0]:
            if key == "loss":
                self.assertAlmostEqual(got[key].item(), loss, delta=1e-5 * abs(loss), msg=(name, pp, chunks))
            elif torch.is_tensor(expected[0][key]):
                self.assertTrue(torch.equal(got[key], torch.cat([part[key] for part in expected])), (name, key, pp, chunks))
        actual = load_file(grads)
        self.assertEqual(set(actual), set(gradients))
        for key, gradient in gradients.items():
            if chunks > 1 and key in tied:
                torch.testing.assert_close(actual[key], gradient, msg=lambda text: f"{name} {key} {pp} {chunks}: {text}")
            else:
                self.assertTrue(torch.equal(actual[key], gradient), (name, key, pp, chunks))

    def test_layouts(self):
        twice = {"toy": {"mm", "lin.weight", "lin.bias"}, "tied": {"embed.weight", "head.weight"}, "gpt2": {"transformer.wte.weight", "lm_head.weight"}}
        for name in self.models:
            for pp, chunks, split in ((1, 1, "even"), (1, 3, "even"), (2, 3, "even"), (3, 5, "balanced"), (4, 1, "even"), (4, 5, "even")):
                with self.subTest(model=name, pp=pp, chunks=chunks, split=split):
                    if name == "toy" and split == "even":
                        split = "balanced"
                    self.compare(name, pp, chunks, split, twice.get(name, ()))

    def test_forward_alone(self):
        """Without gradients, with the machine's own kernels, and with what the batch is when nothing is asked for."""
        for name in ("mlp", "cnn_eval", "tied"):
            program, inputs, _ = self.models[name]
            with torch.no_grad():
                whole = program.module()(**inputs)["logits"]
            self.shardpipe(name, "--pp", 1, "--kernels", "reference")
            self.assertTrue(torch.equal(load_file(self.root / "answers" / "out.safetensors")["logits"], whole))
            report = self.shardpipe(name, "--pp", 2)
            self.assertEqual(report["layout"]["chunks"], 2)
            torch.testing.assert_close(load_file(self.root / "answers" / "out.safetensors")["logits"], whole, rtol=1e-4, atol=1e-5)

    def test_report(self):
        report = self.shardpipe("tied", "--pp", 2, "--chunks", 100)
        self.assertEqual([output["name"] for output in report["outputs"]], ["logits", "loss", "length"])
        self.assertEqual(report["outputs"][0], {"name": "logits", "dtype": "float32", "shape": [6, 9, 20]})
        self.assertEqual(report["layout"]["chunks"], 6)
        self.assertEqual([rank["rank"] for rank in report["ranks"]], [0, 1])
        self.assertTrue(all(rank["parameter_bytes"] > 0 for rank in report["ranks"]))
        self.assertEqual(load_file(self.root / "answers" / "out.safetensors")["length"].item(), 9)

    def test_launchers(self):
        self.shardpipe("mlp", "--pp", 2, "--chunks", 2)
        expected = load_file(self.root / "answers" / "out.safetensors")["logits"]
        target = self.root / "launched.safetensors"
        command = [cli.PROGRAM, "run", "--model", self.root / "mlp.pt2", "--inputs", self.root / "mlp.safetensors", "--outputs", target, "--pp", 2, "--chunks", 2, "--threads", 1]
        cli.run("launch", "--nproc", 2, "--", *command, check=0)
        self.assertTrue(torch.equal(load_file(target)["logits"], expected))

    def test_bad_requests(self):
        grads = ["--grads", self.root / "g.safetensors"]
        inputs = self.root / "bad.safetensors"
        mlp = self.models["mlp"][1]
        save_file({**mlp, "y": torch.ones(3)}, inputs)
        short = self.root / "short.safetensors"
        save_file({"x": mlp["x"], "target": mlp["target"][:3]}, short)
        damaged = self.root / "damaged.safetensors"
        damaged.write_bytes(inputs.read_bytes()[:100])
        cases = [
            (2, r"no input \"y\": it has x, target", ["--inputs", inputs]),
            (2, r"the batch is 11 in the input \"\w+\" and 3|the batch is 3 in", ["--inputs", short]),
            (3, r"damaged\.safetensors", ["--inputs", damaged]),
            (3, r"nowhere\.safetensors", ["--inputs", self.root / "nowhere.safetensors"]),
            (1, r"--outputs .*/no/such/out\.safetensors cannot be written", ["--outputs", self.root / "no/such/out.safetensors"]),
            (2, r"no output \"los\"; |no output \"los\"", ["--loss", "los", *grads]),
            (2, r"the loss \"logits\" is float32\[", ["--loss", "logits", *grads]),
            (2, r"--loss and --grads go together", ["--loss", "loss"]),
            (2, r"no input \"xx\"", ["--chunk", "xx=0"]),
            (2, r"--chunk x=-1: the rule must be", ["--chunk", "x=-1"]),
            (2, r"--chunk is given \"x\", must be NAME=RULE", ["--chunk", "x"]),
            (2, r"--merge logits=first: the rule must be", ["--merge", "logits=first"]),
            (2, r"\"x\" has no dimension 5", ["--chunk", "x=5"]),
            (2, r"no module of the model; hint: the nearest are layers", ["--cuts", "layer.0"]),
            (2, r"--memory is \"lots\"", ["--memory", "lots"]),
            (2, r"holds \d+ bytes of weights, --memory is 10; hint: .*would|holds \d+ bytes of weights, --memory is 10; hint: ", ["--memory", 10]),
            (2, r"an exported program has the types it was exported with", ["--dtype", "bfloat16"]),
        ]
        base = {"--inputs": self.root / "mlp.safetensors", "--outputs": self.root / "o.safetensors"}
        for status, pattern, arguments in cases:
            given = {**base, **dict(zip(arguments[::2], arguments[1::2]))}
            flat = [item for pair in given.items() for item in pair]
            with self.subTest(arguments=arguments):
                got, out, err, _ = cli.run("run", "--model", self.root / "mlp.pt2", "--pp", 2, *flat)
                lines = [line for line in err.splitlines() if line]
                self.assertEqual(got, status, err)
                self.assertEqual(len(lines), 1, err)
                self.assertRegex(lines[0], pattern)
                self.assertEqual(out, "")
        self.assertFalse((self.root / "o.safetensors").exists())
        got, _, err, _ = cli.run("generate", "--model", self.root / "mlp.pt2", "--prompt", "x")
        self.assertEqual(got, 2)
        self.assertIn("is an exported program, which has no caches to generate with", err)


if __name__ == "__main__":
    unittest.main()
