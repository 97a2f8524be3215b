"""`shardpipe plan`: numbers against transformers and torch.export, a model of 405 billion parameters, pages, errors."""

import html.parser
import json
import os
import pathlib
import subprocess
import tempfile
import time
import unittest

import torch
from safetensors.torch import save_file

import browser
import shardpipe_cli as cli
from exported import ExportedTest
from generate_test import tiny

LLAMA_405B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 16384, "intermediate_size": 53248,
    "num_hidden_layers": 126, "num_attention_heads": 128, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "attention_bias": False,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "use_cache": True, "mlp_bias": False, "pretraining_tp": 1,
}  # fmt: skip


def plan(model, *arguments):
    _, out, _, _ = cli.run("plan", "--model", model, "--json", *arguments, check=0)
    return json.loads(out)


class Loads(html.parser.HTMLParser):
    """What a page would load."""

    def __init__(self, page):
        super().__init__()
        self.found, self.svgs = [], 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.svgs += tag == "svg"
        if tag in ("link", "img", "iframe", "script", "object", "embed", "audio", "video", "base"):
            self.found.append(tag)
        self.found += [name for name, _ in attributes if name in ("src", "href", "srcset", "xlink:href", "action")]


class Demo(unittest.TestCase):
    """SmolLM2: 30 layers, tied embedding."""

    HIDDEN, VOCABULARY, LAYERS = 576, 49152, 30
    KEYS, FEED_FORWARD = 192, 1536

    def layer_parameters(self):
        h = self.HIDDEN
        return h * h * 2 + 2 * h * self.KEYS + 3 * h * self.FEED_FORWARD + 2 * h

    def test_stages(self):
        for pp in range(1, 6):
            with self.subTest(pp=pp):
                report = plan(cli.DEMO_MODEL, "--pp", pp, "--batch", pp, "--prompt-tokens", 40)
                embedding = self.HIDDEN * self.VOCABULARY
                total = embedding + self.LAYERS * self.layer_parameters() + self.HIDDEN
                self.assertEqual(report["parameters"], total)
                self.assertEqual(report["dtype"], "float32")
                stages = report["stages"]
                self.assertEqual([s["stage"] for s in stages], list(range(pp)))
                self.assertEqual([s["layers"] for s in stages], [(self.LAYERS + stage) // pp for stage in range(pp)])
                self.assertEqual(stages[0]["first_layer"], "model.layers.0")
                self.assertEqual(stages[-1]["last_layer"], "model.layers.29")
                self.assertEqual(sum(s["parameters"] for s in stages), total + (embedding if pp > 1 else 0))
                for stage in stages:
                    ends = (stage["stage"] == 0) + (stage["stage"] == pp - 1)
                    own = min(ends, 1) * embedding + (self.HIDDEN if stage["stage"] == pp - 1 else 0)
                    self.assertEqual(stage["parameters"], stage["layers"] * self.layer_parameters() + own)
                    self.assertEqual(stage["parameter_bytes"], 4 * stage["parameters"])
                self.assertEqual([t["name"] for t in report["shared"]], ["model.embed_tokens.weight", "model.rotary_emb.inv_freq"] if pp > 1 else [])
                self.assertEqual([r["parameters"] for r in report["ranks"]], [s["parameters"] for s in stages])
                chain = [edge for edge in report["edges"] if edge["shape"].endswith(f"{self.HIDDEN}]")]
                self.assertTrue(chain or pp == 1)
                for edge in chain:
                    self.assertEqual((edge["shape"], edge["dtype"]), (f"[tokens, {self.HIDDEN}]", "float32"))
                    self.assertEqual(edge["steps"]["prefill"], {**edge["steps"]["prefill"], "shape": [40, self.HIDDEN], "bytes": 40 * self.HIDDEN * 4})
                    self.assertEqual(edge["steps"]["decode"]["bytes"], self.HIDDEN * 4)
                self.assertEqual(report["steps"]["prefill"]["microbatches"], pp)
                self.assertEqual([other["pp"] for other in report["alternatives"]], list(range(1, pp)))
                for name, step in report["steps"].items():
                    times = [s["steps"][name]["forward_s"] for s in stages]
                    self.assertAlmostEqual(sum(layer["steps"][name]["forward_s"] for layer in report["layers"]), sum(times))
                    self.assertAlmostEqual(step["balance"], sum(times) / pp / max(times))
                    self.assertEqual(times[step["bottleneck"]], max(times))
                    self.assertGreaterEqual(step["step_s"], max(times))
                    self.assertTrue(0 <= step["bubble"] < 1)
                self.assertAlmostEqual(report["request_s"], sum(s["step_s"] * s["count"] for s in report["steps"].values()))

    def test_flops_of_products(self):
        tokens = 40
        report = plan(cli.DEMO_MODEL, "--batch", 1, "--prompt-tokens", tokens, "--new-tokens", 1)
        self.assertEqual(list(report["steps"]), ["prefill"])
        products = self.LAYERS * 2 * tokens * (self.layer_parameters() - 2 * self.HIDDEN)
        head = 2 * self.HIDDEN * self.VOCABULARY  # of the last token only
        attention = self.LAYERS * 4 * tokens * (tokens + 1) * self.HIDDEN
        flops = report["stages"][0]["steps"]["prefill"]["flops"]
        # What is left are operators on single elements.
        self.assertGreater(flops, products + head + attention)
        self.assertLess(flops, 1.02 * (products + head + attention))

    def test_a_layout_starts_no_process_and_profiles(self):
        report = plan(cli.DEMO_MODEL, "--pp", 2, "--profile", "--split", "balanced", "--prompt-tokens", 8, "--new-tokens", 4)
        self.assertEqual(report["costs"], "profile")
        self.assertEqual(report["layout"]["split"], "balanced")
        self.assertGreater(report["steps"]["decode"]["step_s"], 1e-4)
        self.assertLess(report["steps"]["decode"]["step_s"], 10)

    def test_profile_of_a_divided_model(self):
        with tempfile.TemporaryDirectory() as folder:
            tiny("llama").save_pretrained(folder)
            for layout in (["--tp", 2], ["--pp", 2, "--tp", 2], ["--pp", 2, "--dp", 2]):
                with self.subTest(layout=layout):
                    for step in plan(folder, "--profile", "--prompt-tokens", 8, "--new-tokens", 4, *layout)["steps"].values():
                        self.assertTrue(0 < step["together"] <= 2)
                        self.assertTrue(0 < step["step_s"] < 10)

    def test_text(self):
        _, out, err, _ = cli.run("plan", "--model", cli.DEMO_MODEL, "--pp", 3, "--virtual", 2, check=0)
        self.assertEqual(err, "")
        self.assertLessEqual(max(map(len, out.splitlines())), 100)
        for part in ("model.layers.25 - model.layers.29", "[tokens, 576]", "Held by stages 0, 5: model.embed_tokens.weight", "decode", "request"):
            self.assertIn(part, out)

    def test_inputs_make_a_plan_of_run(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "ids.safetensors"
            save_file({"input_ids": torch.ones(6, 5, dtype=torch.int64)}, path)
            report = plan(cli.DEMO_MODEL, "--pp", 3, "--inputs", path)
            self.assertEqual(report["program"], "forward")
            self.assertEqual(report["steps"]["forward"]["sizes"], {"batch": 2, "seq": 5})
            self.assertEqual(report["steps"]["forward"]["microbatches"], 3)
            _, _, err, _ = cli.run("plan", "--model", cli.DEMO_MODEL, "--inputs", path, "--batch", 2, check=2)
            self.assertIn("--batch and --size are for a plan without --inputs", err)

    def test_page(self):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "plan.html"
            plan(cli.DEMO_MODEL, "--pp", 3, "--html", page)
            loads = Loads(page.read_text())
            self.assertEqual(loads.found, [])
            self.assertGreater(loads.svgs, 3)
            self.assertNotRegex(page.read_text(), r"https?://(?!www\.w3\.org)|url\(")
            for size in (browser.WIDE, browser.PHONE):
                self.assertLessEqual(browser.content_width(page, size), size[0])
            image = browser.screenshot(page, browser.WIDE, pathlib.Path(folder) / "plan.png")
            colours = {tuple(colour) for colour in image.reshape(-1, 3)[::7].tolist()}
            self.assertGreater(len(colours), 50, "the page is blank")


class Exported(ExportedTest):
    MODELS = ("unet", "tied", "mlp")

    def plan(self, name, *arguments):
        return plan(self.root / f"{name}.pt2", *arguments)

    def test_parameters_and_skip_connections(self):
        for name in self.MODELS:
            with self.subTest(name=name):
                report = self.plan(name, "--pp", 3, "--split", "balanced", "--inputs", self.root / f"{name}.safetensors")
                parameters = list(self.cases[name].module.parameters())
                self.assertEqual(report["parameters"], sum(p.numel() for p in parameters))
                self.assertEqual(report["parameter_bytes"], sum(p.numel() * 4 for p in parameters))
                twice = sum(t["bytes"] * (len(t["stages"]) - 1) for t in report["shared"])
                self.assertEqual(sum(s["weight_bytes"] for s in report["stages"]), report["stages"][0]["weight_bytes"]
                                 + sum(r["weight_bytes"] for r in report["ranks"][1:]))
                self.assertGreaterEqual(sum(s["weight_bytes"] for s in report["stages"]) - twice, report["parameter_bytes"])
        skips = [e for e in self.plan("unet", "--pp", 4)["edges"] if e["to_stage"] > e["from_stage"] + 1]
        self.assertTrue(skips)

    def test_a_program_exported_without_weights(self):
        with torch.device("meta"):
            program = torch.export.export(torch.nn.Sequential(torch.nn.Linear(8, 4)), (torch.zeros(2, 8, device="meta"),))
        torch.export.save(program, self.root / "weightless.pt2")
        report = self.plan("weightless")
        self.assertIn("no data for 2 tensors", report["missing_weights"])
        self.assertEqual(report["parameters"], 8 * 4 + 4)

    def test_sizes(self):
        report = self.plan("mlp", "--pp", 2, "--batch", 12)
        self.assertEqual(report["steps"]["forward"]["microbatches"], 2)
        (batch,) = report["steps"]["forward"]["sizes"].values()
        self.assertEqual(batch, 6)
        self.assertEqual(sum(layer["steps"]["forward"]["flops"] for layer in report["layers"] if layer["name"] == "layers.0"), 2 * 6 * 8 * 16)
        (dimension,) = report["steps"]["forward"]["sizes"]
        self.assertEqual(self.plan("mlp", "--size", f"{dimension}=5")["steps"]["forward"]["sizes"], {dimension: 5})

    def test_errors(self):
        model = self.root / "mlp.pt2"
        for arguments, pattern in (
            (["--size", "nothing=3"], r'--size names "nothing": the program has the named dimension'),
            (["--size", "3"], r'--size is given "3", must be NAME=NUMBER'),
            (["--size", "s=x"], r'--size is given "s=x", must be NAME=NUMBER'),
            (["--size", "=4"], r'--size is given "=4", must be NAME=NUMBER'),
            (["--size", "batch=0"], r"--size batch is 0, must be 1 to"),
            (["--batch", 10**9], r"--batch is 1000000000, must be 1 to"),
            (["--prompt-tokens", 10**9], r"--prompt-tokens is 1000000000, must be 1 to"),
            (["--new-tokens", 10**9], r"--new-tokens is 1000000000, must be 1 to"),
            (["--new-tokens", 0], r"--new-tokens"),
            (["--pp", 99], r"99 stages"),
            (["--memory", "1K"], r"--memory is 1000"),
        ):  # fmt: skip
            with self.subTest(arguments=arguments):
                _, out, err, _ = cli.run("plan", "--model", model, *arguments, check=2)
                self.assertRegex(err, pattern)
                self.assertEqual((out, len(err.splitlines())), ("", 1))
        _, _, err, _ = cli.run("plan", "--model", model, "--html", self.root / "no" / "page.html", check=1)
        self.assertIn("--html", err)


class WithoutWeights(unittest.TestCase):
    def test_405_billion_parameters_from_the_config_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "config.json").write_text(json.dumps(LLAMA_405B))
            start = time.monotonic()
            with subprocess.Popen(
                [cli.PROGRAM, "plan", "--model", folder, "--pp", "16", "--json"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
                report = json.loads(process.stdout.read())
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = status
            seconds = time.monotonic() - start
            self.assertEqual(status, 0)
            h, f = 16384, 53248
            layer = 2 * h * h + 2 * h * 1024 + 3 * h * f + 2 * h
            self.assertEqual(report["parameters"], 126 * layer + 2 * h * 128256 + h)
            self.assertIn("model.safetensors", report["missing_weights"])
            self.assertEqual(sum(s["parameters"] for s in report["stages"]), report["parameters"])
            self.assertLess(usage.ru_maxrss * 1024, 1e9)
            self.assertLess(usage.ru_utime + usage.ru_stime, 5, f"{seconds} s")
            _, out, _, _ = cli.run("plan", "--model", folder, "--pp", 8, check=0)
            self.assertIn("The weights are not there", out)
            _, _, err, _ = cli.run("plan", "--model", folder, "--profile", check=3)
            self.assertIn("--profile runs the layers, and the weights are missing", err)

    def test_missing_shards(self):
        with tempfile.TemporaryDirectory() as folder:
            tiny("llama").save_pretrained(folder, max_shard_size="20KB")
            shards = sorted(pathlib.Path(folder).glob("model-*.safetensors"))
            self.assertIsNone(plan(folder)["missing_weights"])
            shards[0].unlink()
            self.assertEqual(plan(folder)["missing_weights"], f"1 of the {len(shards)} files of model.safetensors.index.json")
            pathlib.Path(folder, "model.safetensors.index.json").write_text("{")
            cli.run("plan", "--model", folder, check=3)

    def test_sizes_of_generation(self):
        with tempfile.TemporaryDirectory() as folder:
            tiny("llama").save_pretrained(folder)
            _, _, err, _ = cli.run("plan", "--model", folder, "--size", "tokens=3", check=2)
            self.assertIn("inputs and sizes are those of a program other than generation", err)


if __name__ == "__main__":
    unittest.main(verbosity=2)
