"""Exports cases of exported_models.py and runs them with `shardpipe run` and in Python: what the tests of it need."""

import copy
import json
import pathlib

import torch
from safetensors.torch import load_file, save_file

import exported_models
import shardpipe_cli as cli

MOST_USES = 3  # of one parameter in a model


def flatten(value, path=""):
    """Tensors and numbers by the names that the program gives them."""
    if hasattr(value, "items"):
        return {k: v for key, item in value.items() for k, v in flatten(item, f"{path}.{key}" if path else key).items()}
    return {path: value if torch.is_tensor(value) else torch.tensor(value)}


class ExportedTest(cli.ScratchTest):
    MODELS = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cases, cls.programs, cls.answers = {}, {}, {}
        for name in cls.MODELS:
            cls.export(name, exported_models.make(name))

    @classmethod
    def export(cls, name, case):
        sample = {key: (value[:4] if case.dynamic[key] and 0 in case.dynamic[key] else value).clone() for key, value in case.inputs.items()}
        program = torch.export.export(case.module, (), {**sample, **case.constants}, dynamic_shapes=case.dynamic)
        torch.export.save(program, cls.root / f"{name}.pt2")
        save_file({key: value.clone() for key, value in case.inputs.items()}, cls.root / f"{name}.safetensors")
        cls.cases[name], cls.programs[name] = case, program

    def python(self, name, chunks):
        """Of the exported program on the same microbatches: outputs of each, the batch's loss, its gradients, and the sums
        of their addends' absolute values."""
        if (name, chunks) not in self.answers:
            case = self.cases[name]
            module = copy.deepcopy(self.programs[name]).module()
            split = {key: value.tensor_split(chunks) for key, value in case.inputs.items()}
            parts = [{key: split[key][m] for key in split} for m in range(chunks)]
            counts = [case.count(part) for part in parts] if case.count else [1] * chunks
            outputs, loss, gradients, magnitudes = [], 0.0, {}, {}
            for part, count in zip(parts, counts):
                out = module(**part, **case.constants)
                outputs.append({key: value.detach() for key, value in flatten(out).items()})
                if count:
                    weight = count / sum(counts) if case.count else 1.0
                    loss += weight * out["loss"].double().item()
                    module.zero_grad()
                    out["loss"].backward(torch.tensor(weight))
                    for key, value in module.named_parameters(remove_duplicate=False):
                        if value.grad is not None:
                            gradients[key] = gradients[key] + value.grad if key in gradients else value.grad.clone()
                            magnitudes[key] = magnitudes.get(key, 0.0) + value.grad.double().abs()
            self.answers[name, chunks] = outputs, loss, gradients, magnitudes
        return self.answers[name, chunks]

    def parts(self, name, chunks, whole=()):
        """Outputs of the exported program under no_grad on each microbatch; `whole`: inputs that are not cut."""
        case = self.cases[name]
        split = {key: [value] * chunks if key in whole else value.tensor_split(chunks) for key, value in case.inputs.items()}
        module = copy.deepcopy(self.programs[name]).module()
        with torch.no_grad():
            return [flatten(module(**{key: split[key][m] for key in split}, **case.constants)) for m in range(chunks)]

    def shardpipe(self, name, *arguments, check=0, **options):
        """The report, or the error's text where the status to end with is another one; outputs are in self.outputs()."""
        _, out, err, _ = cli.run(
            "run", "--model", self.root / f"{name}.pt2", "--inputs", self.root / f"{name}.safetensors", "--outputs", self.root / "out.safetensors",
            "--threads", 1, "--json", *arguments, check=check, **options,
        )  # fmt: skip
        return json.loads(out) if check == 0 else err

    def outputs(self):
        return load_file(self.root / "out.safetensors")

    def compare(self, name, pp, chunks, split="even", virtual=1, schedule="fill-drain"):
        """Outputs and gradients of a layout to the bit. With several microbatches the gradients of a repeated parameter are
        sums of the same addends in another order: (addends - 1) roundings of at most eps / 2 of the largest sum in each."""
        expected, loss, gradients, magnitudes = self.python(name, chunks)
        layout = ["--pp", pp, "--virtual", virtual, "--chunks", chunks, "--split", split, "--kernels", "reference", "--schedule", schedule]
        grads = self.root / "grads.safetensors"
        report = self.shardpipe(name, *layout, "--loss", "loss", "--grads", grads)
        several = {"virtual": virtual} if virtual > 1 else {}
        self.assertEqual(report["layout"], {"pp": pp, "tp": 1, "dp": 1, "chunks": chunks, **several})
        got = self.outputs()
        self.compare_outputs(name, chunks, expected)
        self.assertAlmostEqual(got["loss"].item(), loss, delta=max(1e-5, torch.finfo(got["loss"].dtype).eps) * abs(loss))
        actual = load_file(grads)
        self.assertEqual(set(actual), set(gradients))
        for key, gradient in gradients.items():
            if chunks > 1 and key in self.cases[name].repeated:
                addends = MOST_USES * chunks
                bound = (addends - 1) * torch.finfo(gradient.dtype).eps * magnitudes[key].max().item()
                self.assertLessEqual((actual[key].double() - gradient.double()).abs().max().item(), bound, key)
            else:
                self.assertTrue(torch.equal(actual[key], gradient), f"{key} {(actual[key] - gradient).abs().max()}")

    def compare_outputs(self, name, chunks, expected):
        got = self.outputs()
        self.assertEqual(set(got), set(expected[0]))
        for key in set(got) - {"loss"}:
            parts = [part[key] for part in expected]
            dim = next((d for d in range(parts[0].dim()) if parts[0].shape[d] == self.rows(name, chunks)), 0)
            self.assertTrue(torch.equal(got[key], torch.cat(parts, dim) if parts[0].dim() else parts[-1]), key)

    def rows(self, name, chunks):
        return len(next(iter(self.cases[name].inputs.values())).tensor_split(chunks)[0])
