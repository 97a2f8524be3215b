"""`shardpipe run` on programs from torch.export: its report, the launchers, and bad requests, which end with the right
status and one line."""

import unittest

import torch
from safetensors.torch import load_file, save_file

import shardpipe_cli as cli
from exported import ExportedTest


class Run(ExportedTest):
    MODELS = ("mlp", "cnn_eval", "tied")

    def test_forward_alone(self):
        """Without gradients, with the machine's own kernels, and with what the batch is when nothing is asked for."""
        for name in ("mlp", "cnn_eval", "tied"):
            with torch.no_grad():
                whole = self.programs[name].module()(**self.cases[name].inputs)["logits"]
            self.shardpipe(name, "--pp", 1, "--kernels", "reference")
            self.assertTrue(torch.equal(self.outputs()["logits"], whole))
            report = self.shardpipe(name, "--pp", 2)
            self.assertEqual(report["layout"]["chunks"], 2)
            torch.testing.assert_close(self.outputs()["logits"], whole, rtol=1e-4, atol=1e-5)

    def test_report(self):
        report = self.shardpipe("tied", "--pp", 2, "--chunks", 100)
        self.assertEqual([output["name"] for output in report["outputs"]], ["logits", "loss", "length"])
        self.assertEqual(report["outputs"][0], {"name": "logits", "dtype": "float32", "shape": [6, 9, 20]})
        self.assertEqual(report["layout"]["chunks"], 6)
        self.assertEqual([rank["rank"] for rank in report["ranks"]], [0, 1])
        self.assertTrue(all(rank["parameter_bytes"] > 0 for rank in report["ranks"]))
        self.assertEqual(self.outputs()["length"].item(), 9)

    def test_launchers(self):
        self.shardpipe("mlp", "--pp", 2, "--chunks", 2)
        expected = self.outputs()["logits"]
        target = self.root / "launched.safetensors"
        command = [cli.PROGRAM, "run", "--model", self.root / "mlp.pt2", "--inputs", self.root / "mlp.safetensors", "--outputs", target, "--pp", 2, "--chunks", 2, "--threads", 1]
        cli.run("launch", "--nproc", 2, "--", *command, check=0)
        self.assertTrue(torch.equal(load_file(target)["logits"], expected))

    def test_bad_requests(self):
        grads = ["--grads", self.root / "g.safetensors"]
        inputs = self.root / "bad.safetensors"
        mlp = self.cases["mlp"].inputs
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
