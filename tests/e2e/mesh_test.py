"""--tp and --dp: `generate` and `run` on meshes of 2, 4 and 6 ranks against Hugging Face and PyTorch; pins; what is refused."""

import copy
import json
import pathlib
import shutil
import tempfile
import unittest

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import generate_test
import shardpipe_cli as cli
from exported import ExportedTest, flatten
from exported_models import CASES

# An error in float32 may be this many times that of PyTorch's own float32 (against float64): sums in another order.
MARGIN = 8


def meshes(ranks):
    """All (pp, tp, dp) of so many ranks but the one process."""
    return [
        (pp, tp, ranks // pp // tp) for pp in range(1, ranks + 1) for tp in range(1, ranks + 1) if ranks % (pp * tp) == 0
    ]


def options(pp, tp, dp):
    return ["--pp", pp, "--tp", tp, "--dp", dp]


class Generate(generate_test.DemoModel):
    NEW = 10

    def test_every_mesh(self):
        rows = [0, 1, 5, 9, 3]
        for ranks in (2, 4, 6):
            for pp, tp, dp in meshes(ranks):
                with self.subTest(pp=pp, tp=tp, dp=dp):
                    answer = cli.generate(
                        self.folder, *self.prompts(rows), "--max-new-tokens", self.NEW, *options(pp, tp, dp), "--threads", 1)
                    self.compare(answer, rows)
                    chunks = min(pp, (len(rows) + dp - 1) // dp)
                    self.assertEqual(answer["layout"], {"pp": pp, "tp": tp, "dp": dp, "chunks": chunks})
                    self.assertEqual([rank["rank"] for rank in answer["ranks"]], list(range(ranks)))

    def test_replicas_without_prompts(self):
        answer = cli.generate(
            self.folder, *self.prompts([1]), "--max-new-tokens", self.NEW, "--dp", 3, "--stats", "--logprobs", "--threads", 1)
        self.compare(answer, [1])
        self.assertEqual([len(rank["steps"]) for rank in answer["ranks"]], [self.NEW, 0, 0])
        alone = cli.generate(self.folder, *self.prompts([1]), "--max-new-tokens", self.NEW, "--logprobs", "--threads", 1)
        self.assertEqual(answer["outputs"], alone["outputs"])
        status, out, err, _ = cli.run(
            "generate", "--model", self.folder, *self.prompts([1, 3]), "--max-new-tokens", self.NEW, "--dp", 3, "--stats", "--threads", 1)
        self.assertEqual(status, 0, err)
        self.assertEqual(out, "".join(self.tokenizer.decode(self.expected[row], skip_special_tokens=True) + "\n" for row in (1, 3)))
        self.assertRegex(err, r"\n +2 +idle\n")


class NearExact(ExportedTest):
    """Answers of a mesh against those of the uncut batch in float64."""

    def exact(self, name):
        """Outputs and gradients of the uncut batch in float64."""
        case = self.cases[name]
        module = copy.deepcopy(case.module).double()
        inputs = {key: value.double() if value.is_floating_point() else value for key, value in case.inputs.items()}
        out = module(**inputs, **case.constants)
        out["loss"].backward()
        gradients = {key: value.grad for key, value in module.named_parameters(remove_duplicate=False) if value.grad is not None}
        return {key: value.detach() for key, value in flatten(out).items()}, gradients

    def whole_answer(self, name, *arguments, **more):
        """Outputs and gradients by name."""
        grads = self.root / "grads.safetensors"
        self.shardpipe(name, *arguments, "--loss", "loss", "--grads", grads, **more)
        return {**self.outputs(), **{f"{key} gradient": value for key, value in load_file(grads).items()}}

    def expect_near(self, actual, plain, exact, what):
        own = (plain.double() - exact).abs().max().item()
        bound = MARGIN * max(own, torch.finfo(plain.dtype).eps * exact.abs().max().item())
        self.assertEqual(actual.shape, exact.shape, what)
        self.assertLessEqual((actual.double() - exact).abs().max().item(), bound, what)

    def expect_answer(self, name, pp, tp, dp):
        """Outputs, loss and gradients of the batch on a mesh."""
        exact, gradients = self.exact(name)
        parts, _, plain, _ = self.python(name, 1)
        grads = self.root / "grads.safetensors"
        report = self.shardpipe(name, *options(pp, tp, dp), "--loss", "loss", "--grads", grads)
        self.assertEqual({key: report["layout"][key] for key in ("pp", "tp", "dp")}, {"pp": pp, "tp": tp, "dp": dp})
        got = self.outputs()
        self.assertEqual(set(got), set(parts[0]))
        for key, value in parts[0].items():
            if value.is_floating_point():
                self.expect_near(got[key], value, exact[key], key)
        actual = load_file(grads)
        self.assertEqual(set(actual), set(plain))
        for key in plain:
            self.expect_near(actual[key], plain[key], gradients[key], key)


class Run(NearExact):
    MODELS = tuple(CASES)

    def test_every_mesh(self):
        for name in ("mlp", "gpt2"):
            for ranks in (2, 4, 6):
                for pp, tp, dp in meshes(ranks):
                    if pp <= 3:
                        with self.subTest(model=name, pp=pp, tp=tp, dp=dp):
                            self.expect_answer(name, pp, tp, dp)

    def test_every_model(self):
        for name in self.MODELS:
            # What these compute for a row depends on the rows that run with it: they are not cut.
            alone = name in ("toy", "cond")
            wider = ((1, 4, 1), (1, 6, 1)) if cli.SCALE > 1 else ()
            for pp, tp, dp in ((1, 2, 1), (1, 3, 1), *wider, *(() if alone else ((2, 2, 2),))):
                with self.subTest(model=name, pp=pp, tp=tp, dp=dp):
                    self.expect_answer(name, pp, tp, dp)

    def test_more_replicas_than_rows(self):
        """11 rows on 16 replicas: five of them idle."""
        exact, _ = self.exact("mlp")
        self.shardpipe("mlp", "--dp", 16, timeout=300)
        self.expect_near(self.outputs()["logits"], self.python("mlp", 1)[0][0]["logits"], exact["logits"], "logits")

    def test_states_are_those_of_the_whole_batch(self):
        """Running statistics: the batch is not cut over replicas, and the state is the one process's."""
        answers = []
        for layout in (options(1, 1, 1), options(1, 1, 2), options(2, 2, 2)):
            state = self.root / "state.safetensors"
            self.shardpipe("cnn_train", *layout, "--save-state", state)
            answers.append((self.outputs(), load_file(state)))
        for outputs, state in answers[1:]:
            self.assertEqual(set(state), set(answers[0][1]))
            for key, value in answers[0][1].items():
                torch.testing.assert_close(state[key], value)
            torch.testing.assert_close(outputs["logits"], answers[0][0]["logits"])

    def test_refusals(self):
        plan = self.root / "plan.json"
        cases = [
            (2, r"--tp is 0, must be 1 to", ["--tp", 0]),
            (2, r"--dp is 0, must be 1 to", ["--dp", 0]),
            (2, r"--tp 17 is wider than anything to shard: no dimension of a weight is above 16", ["--tp", 17]),
            (2, r"--tp-plan pins what --tp divides, and --tp is 1", ["--tp-plan", plan], '{"layers.0": "colwise"}'),
            (3, r"nowhere\.json", ["--tp", 2, "--tp-plan", self.root / "nowhere.json"]),
            (3, r"plan\.json must hold one JSON object", ["--tp", 2, "--tp-plan", plan], "[]"),
            (3, r"plan\.json", ["--tp", 2, "--tp-plan", plan], '{"a": '),
            (2, r"\"a\" is pinned to \"sideways\", must be colwise", ["--tp", 2, "--tp-plan", plan], '{"a": "sideways"} // no'),
            (2, r"\"a\" lacks \"style\"", ["--tp", 2, "--tp-plan", plan], '{"a": {"gather_output": true}}'),
        ]
        for status, pattern, arguments, *text in cases:
            with self.subTest(arguments=arguments, text=text):
                plan.write_text(text[0] if text else "{}")
                error = self.shardpipe("mlp", *arguments, check=status)
                lines = [line for line in error.splitlines() if line]
                self.assertEqual(len(lines), 1, error)
                self.assertRegex(lines[0], pattern)

    def test_plan_tells_of_all_ranks(self):
        _, out, _, _ = cli.run("plan", "--model", self.root / "mlp.pt2", *options(2, 2, 2), "--json", check=0)
        plan = json.loads(out)
        self.assertEqual({key: plan["layout"][key] for key in ("pp", "tp", "dp")}, {"pp": 2, "tp": 2, "dp": 2})
        self.assertEqual([(rank["pp"], rank["dp"], rank["tp"]) for rank in plan["ranks"][:3]], [(0, 0, 0), (0, 0, 1), (0, 1, 0)])


class Families(unittest.TestCase):
    """Greedy tokens of every family's tiny model."""

    def test_every_family(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            generator = torch.Generator().manual_seed(5)
            for number, kind in enumerate(generate_test.TINY):
                model = generate_test.tiny(kind, number)
                model.save_pretrained(root / kind)
                rows = torch.randint(2, min(90, model.config.vocab_size), (3, 6), generator=generator)
                save_file({"input_ids": rows}, root / "ids.safetensors")
                expected, margins = generate_test.reference(model, rows.tolist(), 8)
                for pp, tp, dp in ((1, 2, 1), (1, 3, 1), (1, 4, 1), (2, 2, 1), (1, 2, 2), (1, 6, 1)):
                    with self.subTest(family=kind, pp=pp, tp=tp, dp=dp):
                        answer = cli.generate(
                            root / kind, "--input-ids", root / "ids.safetensors", "--max-new-tokens", 8, "--threads", 1,
                            *options(pp, tp, dp))
                        self.assertEqual(cli.token_ids(answer), expected, f"margins {min(map(min, margins))}")


class Shares(unittest.TestCase):
    """The widths of real models, from config.json alone."""

    MODELS = {
        "llama": dict(
            hidden_size=2048, intermediate_size=8192, num_attention_heads=32, num_key_value_heads=8, num_hidden_layers=2, vocab_size=128256),
        "qwen2": dict(
            hidden_size=896, intermediate_size=4864, num_attention_heads=14, num_key_value_heads=2, num_hidden_layers=2, vocab_size=151936),
        "bert": dict(num_hidden_layers=2),
        "gpt2": dict(n_layer=2),
        "opt": dict(num_hidden_layers=2),
        "bloom": dict(hidden_size=1024, n_head=16, n_layer=2),
        "codegen": dict(n_embd=1024, n_head=16, rotary_dim=32, n_layer=2),
        "gpt_neo": dict(hidden_size=768, num_heads=12, num_layers=2, attention_types=[[["global", "local"], 1]]),
        "t5": dict(num_layers=2, num_decoder_layers=2),
    }
    CLASSES = {"bert": "BertForMaskedLM", "t5": "T5ForConditionalGeneration"}

    def parameter_bytes(self, model, tp):
        _, out, _, _ = cli.run("plan", "--model", model, "--tp", tp, "--json", check=0)
        return [rank["parameter_bytes"] for rank in json.loads(out)["ranks"]]

    def test_parameters_are_shared_evenly(self):
        causal = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        with tempfile.TemporaryDirectory() as folder:
            for kind, values in self.MODELS.items():
                config = transformers.AutoConfig.for_model(kind, **values)
                config.architectures = [self.CLASSES.get(kind) or causal[kind]]
                config.save_pretrained(pathlib.Path(folder) / kind)
                (whole,) = self.parameter_bytes(pathlib.Path(folder) / kind, 1)
                for tp in (2, 4):
                    with self.subTest(model=kind, tp=tp):
                        parts = self.parameter_bytes(pathlib.Path(folder) / kind, tp)
                        self.assertEqual(len(parts), tp)
                        self.assertLessEqual(max(parts) * tp, 1.05 * whole)


class Artefact(cli.ScratchTest):
    """A tiny llama of 9 query and 3 key heads, compiled for a mesh."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        torch.manual_seed(3)
        config = transformers.LlamaConfig(
            vocab_size=640, hidden_size=288, intermediate_size=768, num_hidden_layers=4, num_attention_heads=9,
            num_key_value_heads=3, max_position_embeddings=64)
        transformers.LlamaForCausalLM(config).save_pretrained(cls.root / "llama")
        save_file({"input_ids": torch.randint(640, (3, 7))}, cls.root / "ids.safetensors")

    def generate(self, model, *arguments):
        answer = cli.generate(
            model, "--input-ids", self.root / "ids.safetensors", "--max-new-tokens", 6, "--logprobs", "--threads", 1, *arguments)
        return answer["outputs"], answer["ranks"]

    def test_answers_as_the_model(self):
        whole, _ = self.generate(self.root / "llama")
        for pp, tp, dp in ((1, 2, 1), (2, 3, 1), (1, 2, 2), (2, 2, 2)):
            with self.subTest(pp=pp, tp=tp, dp=dp):
                made = self.root / f"made-{pp}{tp}{dp}"
                cli.run("compile", "--model", self.root / "llama", "--output", made, *options(pp, tp, dp), check=0)
                outputs, ranks = self.generate(made)
                expected, held = self.generate(self.root / "llama", *options(pp, tp, dp))
                self.assertEqual(outputs, expected)
                self.assertEqual([rank["parameter_bytes"] for rank in ranks], [rank["parameter_bytes"] for rank in held])
                self.assertEqual([one["token_ids"] for one in outputs], [one["token_ids"] for one in whole])
                for rank in ranks:
                    with safe_open(made / f"weights/rank-{rank['rank']}.safetensors", "pt") as file:
                        sizes = sum(file.get_tensor(n).nbytes for n in file.keys() if not n.startswith("__gap."))
                    self.assertLessEqual(rank["parameter_bytes"], sizes)
                    self.assertLess(sizes, rank["parameter_bytes"] + 10000)  # buffers
        pins = self.root / "pins.json"
        pins.write_text('{"model.layers.*.mlp.up_proj": "colwise"}')
        status, _, err, _ = cli.run(
            "generate", "--model", self.root / "made-121", "--input-ids", self.root / "ids.safetensors", "--tp-plan", pins)
        self.assertEqual(status, 2)
        self.assertRegex(err, r"--tp-plan contradicts the artefact .*compiled with other pins")

    def test_pins(self):
        """The pairing of PyTorch's and Hugging Face's plans, its reverse, and one that matches nothing."""
        whole, ranks = self.generate(self.root / "llama")
        mlp = "model.layers.*.mlp."
        plans = [
            {f"{mlp}gate_proj": "colwise", f"{mlp}up_proj": "colwise", f"{mlp}down_proj": "rowwise", "lm_head": "vocab"},
            {f"{mlp}gate_proj": "rowwise", f"{mlp}up_proj": "rowwise", f"{mlp}down_proj": "colwise"},
            {f"{mlp}*": "replicate", "model.layers.*.self_attn.q_proj": {"style": "colwise", "gather_output": True},
             "model.layers.*.self_attn.o_proj": {"style": "rowwise", "input_is_parallel": False}},
        ]  # fmt: skip
        for plan in plans:
            with self.subTest(plan=plan):
                file = self.root / "plan.json"
                file.write_text(json.dumps(plan))
                outputs, parts = self.generate(self.root / "llama", "--tp", 2, "--tp-plan", file)
                self.assertEqual([one["token_ids"] for one in outputs], [one["token_ids"] for one in whole])
                self.assertLess(parts[0]["parameter_bytes"], ranks[0]["parameter_bytes"])
        file.write_text('{"nothing.*": "colwise"}')
        status, _, err, _ = cli.run(
            "generate", "--model", self.root / "llama", "--input-ids", self.root / "ids.safetensors", "--tp", 2, "--tp-plan", file)
        self.assertEqual(status, 2, err)
        self.assertIn("nothing.*", err)

    def test_plan_shows_what_lies_where(self):
        _, out, _, _ = cli.run("plan", "--model", self.root / "llama", *options(2, 2, 1), "--json", check=0)
        plan = json.loads(out)
        model = transformers.AutoModelForCausalLM.from_pretrained(self.root / "llama")
        self.assertEqual(plan["parameters"], sum(value.numel() for value in model.parameters()))
        shapes = {name: list(value.shape) for name, value in model.named_parameters()}
        self.assertEqual({weight["name"]: weight["shape"] for weight in plan["weights"]}, shapes)
        for weight in plan["weights"]:
            whole = 4 * torch.Size(weight["shape"]).numel()
            if weight["placement"] == "sharded":
                self.assertEqual(sum(weight["extents"]), weight["shape"][weight["dim"]])
                self.assertEqual(sum(weight["bytes"]), whole)
            else:
                self.assertEqual(weight["bytes"], [whole, whole])
                self.assertTrue(len(weight["shape"]) == 1 or weight["reason"], weight)
        _, ranks = self.generate(self.root / "llama", *options(2, 2, 1))
        self.assertEqual([rank["parameter_bytes"] for rank in plan["ranks"]], [rank["parameter_bytes"] for rank in ranks])
        self.assertTrue(all(one["steps"]["decode"]["bytes"] > 0 for one in plan["collectives"]))
        _, out, _, _ = cli.run("plan", "--model", self.root / "llama", *options(2, 2, 1), check=0)
        self.assertRegex(out, r"How --tp 2 divides the weights")
        self.assertRegex(out, r"4 x +model\.layers\.\*\.mlp\.down_proj\.weight +\[288, 768\] +dimension 1: 384 \+ 384")
        self.assertRegex(out, r"x +all_reduce")

    def test_verify(self):
        replicas = ["--model", self.root / "llama", "--dp", 2, "--pp", 2, "--json", "--threads", 1]
        _, out, _, _ = cli.run("verify", *replicas, check=0)
        self.assertTrue(json.loads(out)["equal"])
        _, out, _, _ = cli.run("verify", *replicas, "--input-ids", self.root / "ids.safetensors", check=0)
        self.assertTrue(json.loads(out)["equal"])

    def verify(self, *arguments, check=0):
        _, out, err, _ = cli.run("verify", "--json", "--threads", 1, *arguments, check=check)
        return json.loads(out) if check < 2 else err

    def test_verify_what_tp_divides(self):
        ids = ("--input-ids", self.root / "ids.safetensors")
        for mesh in ((1, 2, 1), (2, 2, 1), (1, 3, 2)):
            with self.subTest(mesh=mesh):
                report = self.verify("--model", self.root / "llama", *options(*mesh))
                self.assertTrue(report["equal"])
                for stage in report["stages"]:
                    self.assertGreater(stage["values"], 0)
                    self.assertTrue(0 <= stage["largest_difference"] <= stage["bound"] < 1e-3, stage)
                report = self.verify("--model", self.root / "llama", *options(*mesh), *ids)
                self.assertTrue(report["equal"] and report["tokens"], report)
                self.assertTrue(report["largest_logprob_difference"] <= report["logprob_bound"] < 1e-3, report)
        for layer, stage in ((0, 0), (3, 1)):
            other = self.root / f"other-{layer}"
            shutil.copytree(self.root / "llama", other)
            weights = load_file(other / "model.safetensors")
            weights[f"model.layers.{layer}.mlp.down_proj.weight"][:, -1] += 0.05  # a column of the last part
            save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
            report = self.verify("--model", other, "--reference", self.root / "llama", *options(2, 2, 1), check=1)
            self.assertEqual([s["equal"] for s in report["stages"]], [s < stage for s in range(2)])
            self.assertRegex(report["summary"], rf"stage {stage} on rank {stage} .* at most .* is right")
        report = self.verify("--model", other, "--reference", self.root / "llama", *options(1, 2, 1), *ids, check=1)
        self.assertFalse(report["equal"])
        made = self.root / "for-verify"
        cli.run("compile", "--model", self.root / "llama", "--output", made, "--tp", 2, check=0)
        self.assertTrue(self.verify("--model", made, "--reference", self.root / "llama", *ids)["equal"])
        err = self.verify("--model", made, check=2)
        self.assertIn("--tp 2: an artefact has only what its ranks run", err)


if __name__ == "__main__":
    unittest.main()
