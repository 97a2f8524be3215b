"""`shardpipe verify`: every family and export is the same in every layout, and a stage that is not is named."""

import json
import pathlib
import shutil
import sys
import tempfile
import unittest

import torch
import transformers
from safetensors.torch import load_file, save_file

import shardpipe_cli as cli
from exported import ExportedTest
from exported_models import CASES

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "frontend" / "hf"))
import forward_reference  # noqa: E402
import reference  # noqa: E402

DEPTHS = (1, 2, 3, 4) if cli.SCALE > 1 else (3,)
GENERATIVE = ("llama-gqa", "gpt2", "mistral", "qwen2", "opt", "bloom", "gpt-neo", "codegen")
FORWARD = ("bert", "bert-classes", "bert-masked-lm", "t5")


def verify(model, *arguments, check=0):
    """The report, or the error's text where the layout differs or is refused."""
    _, out, err, _ = cli.run("verify", "--model", model, "--threads", 1, "--json", *arguments, check=check)
    return json.loads(out) if check < 2 else err, err


def save_llama(folder):
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, tie_word_embeddings=False)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


class Verify(ExportedTest):
    MODELS = tuple(CASES)

    def expect_equal(self, model, *arguments, stages=None):
        report, err = verify(model, *arguments)
        self.assertEqual((report["equal"], report["summary"], err), (True, "", ""), f"{report} {err}")
        if stages is not None:
            self.assertEqual([s["stage"] for s in report["stages"]], list(range(stages)))
            for stage in report["stages"]:
                # More stages than operators that use weights: one may have none that others need.
                self.assertTrue(stage["values"] or not stage["first_module"], stage)
                self.assertTrue(stage["equal"] and stage["largest_difference"] == 0 == stage["bound"], stage)
        return report

    def test_exports(self):
        for name in self.MODELS:
            for pp in DEPTHS:
                with self.subTest(model=name, pp=pp):
                    model = self.root / f"{name}.pt2"
                    self.expect_equal(model, "--pp", pp, "--split", "balanced", stages=pp)

    def test_given_inputs_and_schedules(self):
        for schedule, stages in (("interleaved", 4), ("zb-v", 4), ("1f1b", 2)):
            with self.subTest(schedule=schedule):
                self.expect_equal(
                    self.root / "unet.pt2", "--inputs", self.root / "unet.safetensors", "--pp", 2, "--split", "balanced",
                    "--schedule", schedule, stages=stages)  # fmt: skip

    def families(self):
        for name in GENERATIVE:
            base, changes = reference.VARIANTS[name]
            values = {**base, **changes}
            config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
            yield name, transformers.AutoModelForCausalLM.from_config(config)
        for name in FORWARD:
            class_name, values = forward_reference.VARIANTS[name]
            values = dict(values)
            config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
            yield name, getattr(transformers, class_name)(config)

    def test_families(self):
        ids = self.root / "ids.safetensors"
        save_file({"input_ids": torch.randint(3, 40, (3, 7))}, ids)
        for name, model in self.families():
            folder = self.root / name
            model.save_pretrained(folder)
            for pp in DEPTHS:
                layout = ("--pp", pp, "--split", "balanced")
                with self.subTest(family=name, pp=pp):
                    self.expect_equal(folder, *layout, stages=pp)
                    if not name.startswith("bert"):
                        report = self.expect_equal(folder, *layout, "--input-ids", ids, "--max-new-tokens", 4)
                        self.assertEqual(report["prompts"], 3)
                        self.assertGreaterEqual(report["tokens"], 3)
                        self.assertEqual(report["largest_logprob_difference"], 0)

    def test_the_demo_model(self):
        self.expect_equal(cli.DEMO_MODEL, "--pp", 2, stages=2)
        _, out, _, _ = cli.run("verify", "--model", cli.DEMO_MODEL, "--pp", 3, "--prompt", "Once upon a time", check=0)
        self.assertEqual(out, "8 tokens of 1 prompts: equal, and so are their log probabilities\n")

    def test_a_corrupted_stage_is_named(self):
        good, bad = self.root / "good", self.root / "bad"
        save_llama(good)
        ids = self.root / "two.safetensors"
        save_file({"input_ids": torch.randint(0, 64, (2, 5))}, ids)
        for layer, stage in ((1, 0), (2, 1), (5, 2)):
            shutil.rmtree(bad, ignore_errors=True)
            shutil.copytree(good, bad)
            weights = load_file(bad / "model.safetensors")
            weights[f"model.layers.{layer}.mlp.down_proj.weight"][3, 4] += 1
            save_file(weights, bad / "model.safetensors", metadata={"format": "pt"})
            with self.subTest(layer=layer):
                report, err = verify(bad, "--pp", 3, "--reference", good, check=1)
                self.assertFalse(report["equal"])
                self.assertEqual([s["equal"] for s in report["stages"]], [s < stage for s in range(3)])
                self.assertIn(f"stage {stage} on rank {stage} (", report["summary"])
                self.assertEqual(err, f"error[internal]: {report['summary']}; hint: the layout does not compute what one process does\n")
        weights["lm_head.weight"] = weights["lm_head.weight"].flip(0)
        save_file(weights, bad / "model.safetensors", metadata={"format": "pt"})
        report, err = verify(bad, "--pp", 2, "--reference", good, "--input-ids", ids, check=1)
        self.assertIn("token 1 of prompt 1 is ", err)
        self.assertEqual(report["token_difference"], report["summary"])
        self.expect_equal(bad, "--pp", 3, stages=3)

    def test_artefacts(self):
        model, artefact = self.root / "whole", self.root / "artefact"
        save_llama(model)
        ids = self.root / "three.safetensors"
        save_file({"input_ids": torch.randint(0, 64, (3, 5))}, ids)
        cli.run("compile", "--model", model, "--pp", 3, "--schedule", "looped-bfs", "--threads", 1, "--output", artefact, check=0)
        self.expect_equal(artefact, stages=6)
        self.expect_equal(artefact, "--reference", model, stages=6)
        self.expect_equal(artefact, "--input-ids", ids)
        weights = artefact / "weights" / "rank-1.safetensors"
        content = bytearray(weights.read_bytes())
        content[-100:] = bytes(100)
        weights.write_bytes(content)
        report, _ = verify(artefact, "--reference", model, check=1)
        self.assertIn(" on rank 1 (", report["summary"])
        _, err = verify(artefact, "--verify-files", check=3)
        self.assertIn("rank-1.safetensors", err)
        _, _, err, _ = cli.run("plan", "--model", artefact, check=2)
        self.assertIn("is an artefact, which is planned", err)

    def test_errors(self):
        _, err = verify(cli.DEMO_MODEL, "--prompt", "a", "--inputs", self.root / "mlp.safetensors", check=2)
        self.assertIn("--inputs goes with a batch of tensors", err)
        _, err = verify(self.root / "mlp.pt2", "--prompt", "a", check=2)
        self.assertIn("error[usage]", err)
        _, err = verify(self.root / "mlp.pt2", "--pp", 99, check=2)
        self.assertEqual(err.count("\n"), 1, err)


if __name__ == "__main__":
    unittest.main()
