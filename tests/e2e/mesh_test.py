"""--tp and --dp: `generate` and `run` on meshes of 2, 4 and 6 ranks against Hugging Face and PyTorch; pins; what is refused."""

import copy
import json
import unittest

import torch
from safetensors.torch import load_file

import generate_test
import shardpipe_cli as cli
from exported import ExportedTest
from exported_models import make

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


class Run(ExportedTest):
    MODELS = ("mlp", "gpt2", "cnn_eval", "tied")

    def exact(self, name):
        """Outputs, loss and gradients of the uncut batch in float64."""
        case = self.cases[name]
        module = copy.deepcopy(case.module).double()
        inputs = {key: value.double() if value.is_floating_point() else value for key, value in case.inputs.items()}
        out = module(**inputs, **case.constants)
        out["loss"].backward()
        gradients = {key: value.grad for key, value in module.named_parameters(remove_duplicate=False) if value.grad is not None}
        return out["logits"].detach(), out["loss"].item(), gradients

    def expect_near(self, actual, plain, exact, what):
        own = (plain.double() - exact).abs().max().item()
        bound = MARGIN * max(own, torch.finfo(plain.dtype).eps * exact.abs().max().item())
        self.assertEqual(actual.shape, exact.shape, what)
        self.assertLessEqual((actual.double() - exact).abs().max().item(), bound, what)

    def test_every_mesh(self):
        grads = self.root / "grads.safetensors"
        for name in self.MODELS:
            logits, loss, gradients = self.exact(name)
            parts, _, plain, _ = self.python(name, 1)
            for ranks in (2, 4, 6) if name in ("mlp", "gpt2") else (4,):
                for pp, tp, dp in meshes(ranks):
                    if pp > 3:
                        continue
                    with self.subTest(model=name, pp=pp, tp=tp, dp=dp):
                        report = self.shardpipe(name, *options(pp, tp, dp), "--loss", "loss", "--grads", grads)
                        self.assertEqual(report["layout"], {"pp": pp, "tp": tp, "dp": dp, "chunks": report["layout"]["chunks"]})
                        got = self.outputs()
                        self.expect_near(got["logits"], parts[0]["logits"], logits, "logits")
                        self.assertAlmostEqual(got["loss"].item(), loss, delta=1e-5 * abs(loss))
                        self.assertAlmostEqual(report["loss"], loss, delta=1e-5 * abs(loss))
                        actual = load_file(grads)
                        self.assertEqual(set(actual), set(plain))
                        for key in plain:
                            self.expect_near(actual[key], plain[key], gradients[key], key)

    def test_more_replicas_than_rows(self):
        """11 rows on 16 replicas: five of them idle."""
        logits, _, _ = self.exact("mlp")
        self.shardpipe("mlp", "--dp", 16, timeout=300)
        self.expect_near(self.outputs()["logits"], self.python("mlp", 1)[0][0]["logits"], logits, "logits")

    def test_states_are_those_of_the_whole_batch(self):
        """Running statistics: the batch is not cut over replicas, and the state is the one process's."""
        self.export("cnn", make("cnn"))
        answers = []
        for layout in (options(1, 1, 1), options(1, 1, 2), options(2, 2, 2)):
            state = self.root / "state.safetensors"
            self.shardpipe("cnn", *layout, "--save-state", state)
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
        self.assertEqual({key: json.loads(out)["layout"][key] for key in ("pp", "tp", "dp")}, {"pp": 2, "tp": 2, "dp": 2})


if __name__ == "__main__":
    unittest.main()
