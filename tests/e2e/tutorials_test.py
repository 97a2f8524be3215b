"""Tutorials of other systems, as their readers would follow them here: BERT over two ranks, from the folder and with parallel layers
written by hand (neuronx-distributed); a llama over 2 x 2 ranks by a plan that is the reverse of the usual one (PiPPy)."""

import json
import os
import pathlib
import shutil
import unittest

import torch
import transformers
from safetensors.torch import load_file, save_file

import bert_folder
import generate_test
import shardpipe_cli as cli

PROGRAM = os.environ["SHARDPIPE_NEURONX_EXAMPLE"]


class Scratch(cli.ScratchTest):
    def logits(self):
        return load_file(self.root / "out.safetensors")["logits"]

    def expect_near(self, actual, module, inputs, case):
        """In float32 as far from float64 as PyTorch itself, but for the order of sums."""
        plain = module(**inputs).logits.detach()
        exact = module.double()(**inputs).logits.detach()
        module.float()
        bound = 8 * max((plain - exact).abs().max().item(), 1.2e-7 * exact.abs().max().item())
        self.assertEqual(actual.shape, exact.shape, case)
        self.assertLessEqual((actual - exact).abs().max().item(), bound, case)
        self.assertTrue(torch.equal(actual.argmax(-1), exact.argmax(-1)), case)


class Bert(Scratch):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = cls.root / "bert"
        cls.model = bert_folder.make(cls.folder, "BertForSequenceClassification", num_hidden_layers=2)
        torch.save({"model": cls.model.state_dict()}, cls.root / "bert.pt")
        tokenizer = transformers.AutoTokenizer.from_pretrained(cls.folder)
        texts = (["the cat sat on the mat", "a dog ran"], ["the dog sat", "a big cat ran!"])
        encoded = tokenizer(*texts, padding="max_length", max_length=24, return_token_type_ids=True, return_tensors="pt")
        cls.inputs = {name: encoded[name].contiguous() for name in ("input_ids", "attention_mask", "token_type_ids")}
        save_file(cls.inputs, cls.root / "in.safetensors")

    def expect_answer(self, case):
        self.expect_near(self.logits(), self.model, self.inputs, case)
        (self.root / "out.safetensors").unlink()

    def example(self, *arguments):
        cli.execute(PROGRAM, *arguments, check=0)

    def call(self, artefact, case):
        self.example("call", artefact, self.root / "in.safetensors", self.root / "out.safetensors")
        self.expect_answer(case)

    def test_the_folder_compiled_for_two_ranks(self):
        source = self.root / "source"
        shutil.copytree(self.folder, source)
        cli.run("compile", "--model", source, "--tp", 2, "--output", self.root / "made", check=0)
        shutil.rmtree(source)
        self.call((self.root / "made").rename(self.root / "elsewhere"), "folder")

    def test_layers_written_by_hand(self):
        config = self.folder / "config.json"
        for checkpoint in (self.root / "bert.pt", self.folder / "model.safetensors"):
            for ranks in (1, 2):
                cli.run(
                    "launch", "--nproc", ranks, "--", PROGRAM, "eager", config, checkpoint, self.root / "in.safetensors",
                    self.root / "out.safetensors", check=0)
                self.expect_answer((checkpoint, ranks))
        gone = self.root / "gone.pt"
        shutil.copy(self.root / "bert.pt", gone)
        self.example("compile", config, gone, self.root / "by_hand")
        gone.unlink()
        self.call(self.root / "by_hand", "by hand")
        # As the layers say: heads of each rank, and what the planner makes of the rest.
        for rank in range(2):
            held = load_file(self.root / "by_hand" / f"weights/rank-{rank}.safetensors")
            layer = "bert.encoder.layer.0.attention"
            self.assertEqual(held[f"{layer}.self.query.weight"].shape, (16, 32))
            self.assertEqual(held[f"{layer}.self.value.bias"].shape, (16,))
            self.assertEqual(held[f"{layer}.output.dense.weight"].shape, (32, 16))
            self.assertEqual(held[f"{layer}.output.dense.bias"].shape, (32,))

    def test_a_checkpoint_of_another_model(self):
        state = dict(self.model.state_dict())
        state["bert.encoder.layer.1.attention.self.query.weight"] = torch.zeros(32, 31)
        torch.save({"model": state}, self.root / "bad.pt")
        status, _, err, _ = cli.run(
            "launch", "--nproc", 2, "--", PROGRAM, "eager", self.folder / "config.json", self.root / "bad.pt",
            self.root / "in.safetensors", self.root / "none")
        self.assertEqual(status, 3, err)
        self.assertIn('has shape [32, 31] in', err)


class Llama2D(Scratch):
    """The page pins down_proj by columns and gate_proj by rows, which meets in neither; attention is left to the planner."""

    PLAN = {
        "model.layers.*.mlp.down_proj": "colwise",
        "model.layers.*.mlp.gate_proj": "rowwise",
        "model.layers.*.mlp.up_proj": "colwise",
    }

    def test_forward_and_generate(self):
        model = generate_test.tiny("llama", 3)
        folder = self.root / "llama"
        model.save_pretrained(folder)
        rows = torch.randint(2, 90, (3, 6), generator=torch.Generator().manual_seed(5))
        save_file({"input_ids": rows}, self.root / "ids.safetensors")
        (self.root / "plan.json").write_text(json.dumps(self.PLAN))
        expected, margins = generate_test.reference(model, rows.tolist(), 8)
        mesh = ["--pp", 2, "--tp", 2]
        for case in (["--tp-plan", self.root / "plan.json"], ["--split", "balanced"]):
            with self.subTest(case=case):
                cli.run(
                    "run", "--model", folder, "--inputs", self.root / "ids.safetensors", "--outputs", self.root / "out.safetensors",
                    "--threads", 1, *mesh, *case, check=0)
                self.expect_near(self.logits(), model, {"input_ids": rows}, case)
                answer = cli.generate(
                    folder, "--input-ids", self.root / "ids.safetensors", "--max-new-tokens", 8, "--threads", 1, *mesh, *case)
                self.assertEqual(cli.token_ids(answer), expected, f"margins {min(map(min, margins))}")
        _, out, _, _ = cli.run("plan", "--model", folder, *mesh, "--tp-plan", self.root / "plan.json", "--json", check=0)
        dims = {weight["name"]: weight.get("dim") for weight in json.loads(out)["weights"]}
        for name, dim in (("down", 0), ("gate", 1), ("up", 0)):
            self.assertEqual(dims[f"model.layers.1.mlp.{name}_proj.weight"], dim)


if __name__ == "__main__":
    unittest.main()
