"""Options of `shardpipe run` on programs from torch.export, against Python: launchers, weights beside the program, rules
for inputs and outputs, half precision, values that are no tensors, and what each rank holds."""

import sys
import unittest

import torch
from safetensors.torch import load_file, save_file

import shardpipe_cli as cli
from exported import ExportedTest
from exported_models import BATCH, Case, Mlp, Toy, rows

F = torch.nn.functional


class Rules(torch.nn.Module):
    """Every way to join: a scale that each microbatch needs whole, outputs of all kinds."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(3))

    def forward(self, x, columns, scale):
        h = x
        for layer in self.layers:
            h = torch.tanh(layer(h)) * scale
        return {"h": h, "turned": h.t() @ h, "peak": h.amax(0), "outer": columns * 2, "rows": x.shape[0]}


class Numbers(torch.nn.Module):
    """Numbers that follow from the data, made in the first stage and used in the last; a length that nobody knows."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 4)
        self.middle = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(2))
        self.last = torch.nn.Linear(4, 4)

    def forward(self, x, keep):
        count = keep.sum().item()
        torch._check(count >= 0)
        torch._check(count < keep.shape[0])
        factor = x.abs().max().item()
        kept = x[keep]
        h = self.first(x)
        for layer in self.middle:
            h = torch.relu(layer(h))
        return {"h": self.last(h) * factor + count, "kept": self.last(kept) + h.sum(), "count": count}


class Wide(torch.nn.Module):
    """Four layers of 16 MiB each."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(2048, 2048, bias=False) for _ in range(4))

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return {"y": x}


def half(dtype):
    torch.manual_seed(0)
    model = torch.nn.Module.to(Toy(), dtype)
    inputs = {name: torch.randn(7, 8, dtype=dtype) for name in ("x", "y")}
    return Case(model, inputs, {name: {0: BATCH} for name in inputs}, None, {"mm", "lin.weight", "lin.bias"})


class RunOptions(ExportedTest):
    MODELS = ("mlp", "gpt2")

    def run_command(self, name, out, *arguments):
        model, inputs = self.root / f"{name}.pt2", self.root / f"{name}.safetensors"
        return ["run", "--model", model, "--inputs", inputs, "--outputs", out, "--threads", 1, "--kernels", "reference", *arguments]

    def test_launchers(self):
        expected = torch.cat([part["logits"] for part in self.python("mlp", 3)[0]])
        layout = ["--pp", 2, "--chunks", 3]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2, "--no-python"]
        for launcher in ([cli.PROGRAM, "launch", "--nproc", 2, "--"], torchrun):
            with self.subTest(launcher=launcher):
                out = self.root / "launched.safetensors"
                out.unlink(missing_ok=True)
                status, _, error, _ = cli.execute(*launcher, cli.PROGRAM, *self.run_command("mlp", out, *layout))
                self.assertEqual(status, 0, error)
                self.assertTrue(torch.equal(load_file(out)["logits"], expected))
        status, _, error, _ = cli.run("launch", "--nproc", 3, "--", cli.PROGRAM, *self.run_command("mlp", self.root / "o", *layout))
        self.assertEqual(status, 2)
        self.assertIn("--pp 2 x --dp 1 x --tp 1 is 2 ranks, this job has 3", error)

    def test_weights_beside_the_program(self):
        """A program without weights, and those in a folder of either kind, its index, a file."""
        real = self.cases["gpt2"].module
        expected = torch.cat([part["logits"] for part in self.python("gpt2", 3)[0]])
        case = Case(real, self.cases["gpt2"].inputs, self.cases["gpt2"].dynamic, rows, (), {"use_cache": False})
        with torch.device("meta"):
            case.module = type(real)(real.config).eval()
        save_file({"input_ids": case.inputs["input_ids"], "labels": case.inputs["labels"]}, self.root / "weightless.safetensors")
        sample = {name: torch.zeros(4, 8, dtype=torch.int64, device="meta") for name in case.inputs}
        program = torch.export.export(case.module, (), {**sample, **case.constants}, dynamic_shapes=case.dynamic)
        torch.export.save(program, self.root / "weightless.pt2")
        real.save_pretrained(self.root / "whole")
        real.save_pretrained(self.root / "sharded", max_shard_size="20KB")
        state = real.state_dict()
        (self.root / "bin").mkdir()
        torch.save(state, self.root / "bin/pytorch_model.bin")
        torch.save({"model": state, "step": 3}, self.root / "state.pt")
        arguments = ["--pp", 2, "--chunks", 3, "--kernels", "reference"]
        for weights in ("whole", "sharded", "whole/model.safetensors", "bin", "bin/pytorch_model.bin", "state.pt"):
            with self.subTest(weights=weights):
                self.shardpipe("weightless", *arguments, "--weights", self.root / weights)
                self.assertTrue(torch.equal(self.outputs()["logits"], expected))
        self.assertRegex(self.shardpipe("weightless", *arguments, check=3), "--weights")
        self.assertRegex(self.shardpipe("weightless", *arguments, "--weights", self.root / "nowhere", check=3), "nowhere")

    def test_rules(self):
        torch.manual_seed(1)
        inputs = {"x": torch.randn(7, 6), "columns": torch.randn(5, 6), "scale": torch.rand(6)}
        self.export("rules", Case(Rules(), inputs, {"x": {0: BATCH}, "columns": None, "scale": None}, rows))
        parts = self.parts("rules", 3, whole=("columns", "scale"))
        layout = ["--pp", 3, "--chunks", 3, "--kernels", "reference"]
        self.shardpipe("rules", *layout)
        got = self.outputs()
        self.assertTrue(torch.equal(got["h"], torch.cat([part["h"] for part in parts])))
        for name in ("turned", "peak", "outer"):  # no batch in them: the last microbatch's
            self.assertTrue(torch.equal(got[name], parts[-1][name]))
        self.assertEqual(got["rows"], parts[-1]["rows"])
        merges = ["--merge", "peak=sum", "--merge", "turned=mean", "--merge", "outer=cat:1", "--merge", "h=last", "--merge", "rows=sum"]
        self.shardpipe("rules", *layout, *merges, "--chunk", "x=0", "--chunk", "scale=replicate")
        got = self.outputs()
        self.assertTrue(torch.equal(got["peak"], parts[0]["peak"] + parts[1]["peak"] + parts[2]["peak"]))
        torch.testing.assert_close(got["turned"], sum(part["turned"] * n for part, n in zip(parts, (3, 2, 2))) / 7)
        self.assertTrue(torch.equal(got["outer"], torch.cat([part["outer"] for part in parts], 1)))
        self.assertTrue(torch.equal(got["h"], parts[-1]["h"]))
        self.assertEqual(got["rows"], 7)
        self.assertRegex(self.shardpipe("rules", *layout, "--merge", "peak=cat:1", check=2), r'"peak" has shape \[6\]: no dimension 1 .*--merge peak=sum')

    def test_other_dimensions(self):
        class Columns(torch.nn.Module):
            def forward(self, x, y):
                return {"z": torch.relu(x) @ y, "x": x + 1}

        inputs = {"x": torch.randn(3, 4), "y": torch.randn(4, 7)}
        self.export("columns", Case(Columns(), inputs, {"x": None, "y": {1: BATCH}}, rows))
        parts = [self.programs["columns"].module()(x=inputs["x"], y=y) for y in inputs["y"].tensor_split(3, 1)]
        arguments = ["--pp", 2, "--split", "balanced", "--chunks", 3, "--kernels", "reference"]
        self.shardpipe("columns", *arguments, "--chunk", "x=replicate", "--chunk", "y=1", "--merge", "z=cat:1", "--merge", "x=last")
        got = self.outputs()
        self.assertTrue(torch.equal(got["z"], torch.cat([part["z"] for part in parts], 1)))
        self.assertTrue(torch.equal(got["x"], inputs["x"] + 1))

    def test_half_precision(self):
        for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
            self.export(name, half(dtype))
            for pp, chunks in ((2, 3), (3, 1)):
                with self.subTest(dtype=name, pp=pp, chunks=chunks):
                    self.compare(name, pp, chunks, "balanced")
                    self.assertEqual(self.outputs()["out"].dtype, dtype)

    def test_fewer_rows_than_chunks(self):
        _, _, error, _ = cli.run(*self.run_command("mlp", self.root / "few.safetensors", "--pp", 2, "--chunks", 40), check=0)
        self.assertRegex(error, r"^warning: \[rank 0\] --chunks 40 lowered to 11: the batch has no more rows\n$")
        expected = torch.cat([part["logits"] for part in self.python("mlp", 11)[0]])
        self.assertTrue(torch.equal(load_file(self.root / "few.safetensors")["logits"], expected))

    def test_fixed_shapes(self):
        inputs = {name: value[:4] for name, value in self.cases["mlp"].inputs.items()}
        self.export("fixed", Case(Mlp(), inputs, {"x": None, "target": None}))
        self.assertEqual(self.shardpipe("fixed", "--pp", 2)["layout"]["chunks"], 1)
        self.assertRegex(self.shardpipe("fixed", "--pp", 2, "--chunks", 2, check=2), "use --chunks 1, or a program with a dynamic batch")

    def test_numbers_across_stages(self):
        torch.manual_seed(2)
        inputs = {"x": torch.randn(9, 4), "keep": torch.tensor([True, False, True, True, False, False, True, False, False])}
        self.export("numbers", Case(Numbers(), inputs, {"x": {0: BATCH}, "keep": {0: BATCH}}, rows))
        for pp, chunks in ((1, 1), (3, 1), (4, 1), (3, 3)):
            with self.subTest(pp=pp, chunks=chunks):
                parts = self.parts("numbers", chunks)
                self.shardpipe("numbers", "--pp", pp, "--chunks", chunks, "--split", "balanced", "--kernels", "reference")
                got = self.outputs()
                for name in ("h", "kept"):
                    self.assertTrue(torch.equal(got[name], torch.cat([part[name] for part in parts])), name)
                self.assertEqual(got["count"].item(), parts[-1]["count"])

    def test_each_rank_holds_its_stage(self):
        self.export("wide", Case(Wide(), {"x": torch.randn(4, 2048)}, {"x": {0: BATCH}}, rows))
        layer = 4 * 2048 * 2048
        alone = self.shardpipe("wide", "--pp", 1, "--kernels", "reference")["ranks"][0]
        self.assertEqual(alone["parameter_bytes"], 4 * layer)
        ranks = self.shardpipe("wide", "--pp", 4, "--kernels", "reference")["ranks"]
        self.assertEqual([rank["parameter_bytes"] for rank in ranks], [layer] * 4)
        for rank in ranks:  # three layers less than the rank that has all, but for what ranks of a job need themselves
            self.assertLess(rank["peak_rss_bytes"], alone["peak_rss_bytes"] - 2 * layer)


if __name__ == "__main__":
    unittest.main()
