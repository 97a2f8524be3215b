"""`shardpipe compile`: what it writes answers to the bit like the model it was made of, moved and with the model removed;
every damaged, missing or mismatching piece and every option that contradicts it ends with one line and the right status."""

import copy
import json
import pathlib
import resource
import shutil
import struct
import sys
import tempfile
import unittest

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import bert_folder
import shardpipe_cli as cli
from exported import ExportedTest

torch.set_num_threads(1)
MASK = (1 << 64) - 1
PRIME = 1099511628211


def fnv1a(data):
    value = 14695981039346656037
    for byte in data:
        value = ((value ^ byte) * PRIME) & MASK
    return value


def content_hash(data):
    """base/hash.h, written again from its description."""

    def step(value, word):
        value = ((value ^ word) * PRIME) & MASK
        return value ^ (value >> 32)

    lanes = [1, 2, 3, 4]
    padded = data + b"\0" * (-len(data) % 32)
    for at in range(0, len(padded), 32):
        lanes = [step(lane, word) for lane, word in zip(lanes, struct.unpack_from("<4Q", padded, at))]
    value = step(14695981039346656037, len(data))
    for lane in lanes:
        value = step(value, lane)
    return value


def rewrite(folder, change):
    """Changes shardpipe.json as its writer would have written it."""
    path = folder / "shardpipe.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    del manifest["hash"]
    text = json.dumps(manifest, separators=(",", ":"), ensure_ascii=False)
    manifest["hash"] = f"{fnv1a(text.encode()):016x}"
    path.write_text(json.dumps(manifest))


def compile_model(model, output, *arguments):
    _, out, _, _ = cli.run("compile", "--model", model, "--output", output, "--json", *arguments, check=0)
    return json.loads(out)


def moved(artefact, to, *remove):
    """The artefact under another name, and what it was made of gone."""
    shutil.copytree(artefact, to)
    for path in (artefact, *remove):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return to


def tensor_names(path):
    with safe_open(path, "pt") as file:
        return [name for name in file.keys() if not name.startswith("__gap.")]


class Scratch(cli.ScratchTest):
    def refused(self, status, text, command, model, *arguments, env=None):
        got, out, err, _ = cli.run(command, "--model", model, *arguments, env=env)
        lines = [line for line in err.splitlines() if line]
        self.assertEqual((got, len(lines), out), (status, 1, ""), err)
        self.assertIn(text, lines[0])
        return lines[0]


class Generation(Scratch):
    PROMPTS = ["--prompt", "The capital of France is", "--prompt", "One, two, three, four, five, six,", "--prompt", "Water", "--max-new-tokens", 12]

    def answer(self, model, *arguments):
        answer = cli.generate(model, *self.PROMPTS, "--logprobs", "--threads", 1, *arguments)
        return [(output["token_ids"], output["logprobs"], output["text"]) for output in answer["outputs"]], answer["layout"]

    def test_answers_as_the_model_without_it(self):
        model = self.root / "linked"
        model.mkdir()
        for file in cli.DEMO_MODEL.iterdir():
            (model / file.name).symlink_to(file.resolve())
        layout = ["--pp", 2, "--virtual", 2]
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        report = compile_model(model, self.root / "made", *layout)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        self.assertEqual(report["programs"], ["generation", "forward", "forward_with_mask"])
        self.assertEqual(report["dtype"], "float32")
        artefact = moved(self.root / "made", self.root / "elsewhere", model)
        # Each rank's weights, a tied one once on each rank that uses it.
        names = [tensor_names(artefact / "weights" / f"rank-{rank}.safetensors") for rank in range(2)]
        tied = "model.embed_tokens.weight"
        self.assertEqual(set(names[0]) & set(names[1]), {tied})
        layers = [{int(name.split(".")[2]) for name in one if ".layers." in name} for one in names]
        self.assertEqual(layers[0] | layers[1], set(range(30)))
        self.assertFalse(layers[0] & layers[1])
        # The program and LibTorch take less than the 540 MB of weights, which were never in memory together.
        self.assertLess(peak, max(before, 450_000))

        self.assertEqual(self.answer(artefact), self.answer(cli.DEMO_MODEL, *layout))
        self.assertEqual(self.answer(artefact, "--chunks", 1)[1]["chunks"], 1)
        chat = ["--prompt", "Say hello.", "--max-new-tokens", 4, "--stop", "zzz"]
        self.assertEqual(
            cli.token_ids(cli.generate(artefact, *chat, "--chat")), cli.token_ids(cli.generate(cli.DEMO_MODEL, *chat, "--chat", *layout)))  # fmt: skip
        # Both forward programs, of two lengths.
        for length in (5, 9):
            ids = torch.arange(2 * length).reshape(2, length) + 100
            for inputs in ({"input_ids": ids}, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}):
                save_file(inputs, self.root / "in.safetensors")
                outputs = []
                for arguments in ([artefact], [cli.DEMO_MODEL, *layout]):
                    cli.run("run", "--model", *arguments, "--threads", 1, "--inputs", self.root / "in.safetensors",
                            "--outputs", self.root / "out.safetensors", check=0)  # fmt: skip
                    outputs.append(load_file(self.root / "out.safetensors"))
                self.assertEqual(list(outputs[0]), list(outputs[1]))
                self.assertTrue(all(torch.equal(outputs[0][key], outputs[1][key]) for key in outputs[0]))

        # Wrong numbers of ranks, and options that contradict it.
        prompt = ["--prompt", "a"]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--no-python", "--nproc-per-node", 3]
        for launcher in ([cli.PROGRAM, "launch", "--nproc", 3, "--"], torchrun):
            status, _, err, _ = cli.execute(*launcher, cli.PROGRAM, "generate", "--model", artefact, *prompt)
            self.assertEqual(status, 2 if launcher[0] == cli.PROGRAM else 1, err)
            self.assertIn("was compiled for 2 ranks, this job has 3; hint: start 2 processes", err)
        for text, options in [
            ("--pp 1 contradicts the artefact", ["--pp", 1]),
            ("which was compiled with --pp 2", ["--pp", 3]),
            ("--virtual 1 contradicts", ["--virtual", 1]),
            ("--split balanced contradicts the artefact", ["--split", "balanced"]),
            ("--cuts model.layers.3 contradicts", ["--cuts", "model.layers.3"]),
            ("--dtype bfloat16 contradicts the artefact", ["--dtype", "bfloat16"]),
            ("which was compiled with --dtype float32", ["--dtype", "float16"]),
            ("--kernels reference contradicts", ["--kernels", "reference"]),
            ("--profile true contradicts", ["--profile"]),
            ("--schedule 1f1b contradicts", ["--schedule", "1f1b"]),
            ("--memory is 1000", ["--memory", 1000]),
        ]:
            self.refused(2, text, "generate", artefact, *prompt, *options)
        cli.generate(artefact, *prompt, "--max-new-tokens", 1, "--pp", 2, "--virtual", 2, "--dtype", "float32", "--verify-files")


class Folders(Scratch):
    TEXTS = ["--text", "the cat sat on the mat.", "--text", "a bigger dog ran"]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = cls.root / "bert"
        bert_folder.make(cls.model, "BertForSequenceClassification", num_labels=3)
        cls.artefact = cls.root / "artefact"
        compile_model(cls.model, cls.artefact, "--pp", 2)
        cls.single = cls.root / "single"  # of one rank: one process less to start
        cls.single.mkdir()  # an empty folder is as good as none
        compile_model(cls.model, cls.single)

    def outputs(self, command, model, *arguments):
        _, out, _, _ = cli.run(command, "--model", model, "--json", "--threads", 1, *arguments, check=0)
        return json.loads(out)["outputs"]

    def test_classifies_and_fills_masks(self):
        for dtype in ([], ["--dtype", "bfloat16"]):  # copied, and converted
            made = self.root / f"made{len(dtype)}"
            compile_model(self.model, made, "--pp", 2, *dtype)
            artefact = moved(made, self.root / f"moved{len(dtype)}")
            self.assertEqual(self.outputs("classify", artefact, *self.TEXTS), self.outputs("classify", self.model, "--pp", 2, *self.TEXTS, *dtype))
        masked = self.root / "masked"
        bert_folder.make(masked, "BertForMaskedLM")
        text = ["--text", "the [MASK] sat on the mat."]
        expected = self.outputs("fill-mask", masked, "--pp", 3, *text)
        compile_model(masked, self.root / "made", "--pp", 3)
        self.assertEqual(self.outputs("fill-mask", moved(self.root / "made", self.root / "moved", masked), *text), expected)

    def test_references(self):
        model, artefact = self.root / "there", self.root / "referring"
        shutil.copytree(self.model, model)
        compile_model(model, artefact, "--pp", 2, "--references")
        self.assertFalse((artefact / "weights").exists())
        self.assertEqual(self.outputs("classify", artefact, *self.TEXTS), self.outputs("classify", self.artefact, *self.TEXTS))
        weights = model / "model.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content)
        self.refused(3, "was written since the artefact was compiled; hint: compile it again", "classify", artefact, *self.TEXTS)
        weights.write_bytes(content[:-8])
        self.refused(3, f"has {len(content) - 8} bytes, had {len(content)} when", "classify", artefact, *self.TEXTS)
        weights.unlink()
        self.refused(3, "model.safetensors, which is not there; hint: compile without --references", "classify", artefact, *self.TEXTS)

    def test_damaged_and_missing_pieces(self):
        names = sorted(str(path.relative_to(self.single)) for path in self.single.rglob("*") if path.is_file())
        self.assertLess({"tokenizer.json", "config.json", "plans/forward.txt", "weights/rank-0.safetensors"}, set(names))
        for artefact, name in [(self.artefact, "weights/rank-1.safetensors"), *((self.single, name) for name in names)]:
            for damage in ("missing", "truncated", "changed"):
                with self.subTest(name=name, damage=damage), tempfile.TemporaryDirectory() as folder:
                    bad = pathlib.Path(folder) / "bad"
                    shutil.copytree(artefact, bad)
                    path = bad / name
                    content = path.read_bytes()
                    if damage == "missing":
                        path.unlink()
                    elif damage == "truncated":
                        path.write_bytes(content[:-1])
                    else:
                        place = len(content) * 3 // 4
                        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
                    verify = ["--verify-files"] if name.startswith("weights/") else []
                    if name == "shardpipe.json" and damage == "missing":
                        self.refused(3, "no checkpoint in", "classify", bad, *self.TEXTS)
                        continue
                    line = self.refused(3, name, "classify", bad, *self.TEXTS, *verify)
                    self.assertRegex(line, "is missing: the artefact is not complete|is damaged|is of kind|not valid JSON|parse|JSON")

    def test_pieces_that_do_not_belong_together(self):
        def changed(change):
            folder = self.root / "changed"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(self.artefact, folder)
            change(folder)
            return folder

        def swap(folder):
            a, b = (folder / "weights" / f"rank-{rank}.safetensors" for rank in range(2))
            a.rename(folder / "other"), b.rename(a), (folder / "other").rename(b)
            rewrite(folder, self.take_sizes(folder))

        def other_weights(folder):  # of another layout
            compile_model(self.model, folder / "x", "--pp", 2, "--cuts", "bert.encoder.layer.0")
            for rank in range(2):
                shutil.copy(folder / "x/weights" / f"rank-{rank}.safetensors", folder / "weights")
            rewrite(folder, self.take_sizes(folder))

        def plan_version(folder):
            for path in (folder / "plans").iterdir():
                path.write_text(path.read_text().replace("shardpipe-plan ", "shardpipe-plan 9", 1))
            rewrite(folder, self.take_sizes(folder))

        def edit(change):
            return lambda folder: rewrite(folder, change)

        def by_hand(folder):
            path = folder / "shardpipe.json"
            path.write_text(path.read_text().replace('"pp": 2', '"pp": 1'))

        for text, change in [
            ("rank-0.safetensors holds the weights of rank 1", swap),
            ("rank-0.safetensors does not belong to the plans of this artefact", other_weights),
            ("is a plan of another version", plan_version),
            ("was compiled with LibTorch \"1.0\", whose operators may differ; this program has", edit(lambda m: m.update(torch="1.0"))),
            ("is of version 99, this program reads version 2; hint: compile it again", edit(lambda m: m.update(version=99))),
            ("is of kind \"cake\", not of an artefact", edit(lambda m: m.update(kind="cake"))),
            ("shardpipe.json is damaged: ", edit(lambda m: m.pop("layout"))),
            ("shardpipe.json is damaged: ", edit(lambda m: m["model"].update(dtype="float31"))),
            ("its hash does not fit its content", by_hand),
        ]:
            with self.subTest(text=text):
                self.refused(3, text, "classify", changed(change), *self.TEXTS)

    def take_sizes(self, folder):
        def change(manifest):
            for file in manifest["files"]:
                content = (folder / file["name"]).read_bytes()
                file.update(bytes=len(content), hash=f"{content_hash(content):016x}")

        return change

    def test_requests(self):
        self.refused(2, "has no program generation; it has forward, forward_with_mask", "generate", self.artefact, "--prompt", "a")
        self.refused(2, "bert is a folder with files in it; hint: name a new folder", "compile", self.model, "--output", self.model)
        self.refused(2, "config.json is a file", "compile", self.model, "--output", self.model / "config.json")
        self.refused(2, "is an artefact already; hint: compile the model", "compile", self.artefact, "--output", self.root / "again")
        self.refused(1, "cannot make the folder /proc/x", "compile", self.model, "--output", "/proc/x")
        self.refused(2, "--pp", "compile", self.model, "--pp", 99, "--output", self.root / "wide")
        self.refused(2, "no model at", "compile", self.root / "nothing", "--output", self.root / "none")
        save_file({"input_ids": torch.tensor([[2, 99]])}, self.root / "ids.safetensors")
        run = ["--inputs", self.root / "ids.safetensors", "--outputs", self.root / "o.safetensors"]
        self.refused(2, '"input_ids" holds 99; 0 to 20 are expected', "run", self.artefact, *run)
        self.refused(2, "has its weights", "run", self.artefact, *run, "--weights", self.model)
        left = [path.name for path in self.root.iterdir() if ".tmp" in path.name or path.name in ("wide", "again", "none")]
        self.assertEqual(left, [])
        empty = self.single
        self.assertEqual(self.outputs("classify", empty, *self.TEXTS), self.outputs("classify", self.model, *self.TEXTS))
        self.assertEqual(tensor_names(empty / "weights/rank-0.safetensors"), tensor_names(self.model / "model.safetensors"))


class Exported(ExportedTest):
    MODELS = ("mlp", "tied", "cnn_train", "lstm")

    def answer(self, model, *arguments, gradients):
        grads = self.root / "grads.safetensors"
        extra = ["--loss", "loss", "--grads", grads] if gradients else []
        cli.run("run", "--model", model, "--outputs", self.root / "out.safetensors", "--threads", 1, *arguments, *extra, check=0)
        return {**self.outputs(), **(load_file(grads) if gradients else {})}

    def test_answers_as_the_program_without_it(self):
        virtual, balanced = ["--pp", 2, "--virtual", 2], ["--pp", 2, "--split", "balanced"]
        for name, layout in zip(self.MODELS, (virtual, virtual, balanced, balanced), strict=True):
            inputs = self.root / f"{name}.safetensors"
            small = self.root / f"{name}-small.safetensors"
            save_file({key: value[:5].clone() for key, value in load_file(inputs).items()}, small)
            program = self.root / f"{name}.pt2"
            # Two shapes, the smaller one with gradients.
            calls = [(inputs, False), (small, True)]
            with self.subTest(name=name, layout=layout):
                expected = [self.answer(program, "--inputs", file, *layout, gradients=gradients) for file, gradients in calls]
                compile_model(program, self.root / "made", *layout, "--inputs", inputs)
                hidden = program.rename(self.root / "hidden")
                artefact = moved(self.root / "made", self.root / "moved")
                got = [self.answer(artefact, "--inputs", file, gradients=gradients) for file, gradients in calls]
                shutil.rmtree(artefact)
                hidden.rename(program)
                for one, other in zip(got, expected):
                    self.assertEqual(list(one), list(other))
                    self.assertEqual([key for key in one if one[key].numpy().tobytes() != other[key].numpy().tobytes()], [])

    def test_inputs_are_checked(self):
        artefact = self.root / "checked"
        compile_model(self.root / "mlp.pt2", artefact, "--pp", 2)
        for text, inputs in [
            ("the input \"target\" is missing", {"x": torch.zeros(4, 8)}),
            ("the input \"x\" has shape [4, 7], the model takes [x_dim0, 8]", {"x": torch.zeros(4, 7), "target": torch.zeros(4, dtype=torch.int64)}),
            ("is 65, the program was exported for", {"x": torch.zeros(65, 8), "target": torch.zeros(65, dtype=torch.int64)}),
        ]:
            save_file(inputs, self.root / "bad.safetensors")
            status, _, err, _ = cli.run("run", "--model", artefact, "--chunks", 1, "--inputs", self.root / "bad.safetensors", "--outputs", self.root / "o")
            self.assertEqual(status, 2, err)
            self.assertIn(text, err)
        status, _, err, _ = cli.run("generate", "--model", artefact, "--prompt", "x")
        self.assertEqual(status, 2)
        self.assertIn("is an exported program, which has no caches to generate with", err)

    def test_state_between_calls(self):
        module = copy.deepcopy(self.programs["cnn_train"]).module()
        inputs = self.cases["cnn_train"].inputs
        state = self.root / "state.safetensors"
        compile_model(self.root / "cnn_train.pt2", self.root / "stateful", "--pp", 2, "--kernels", "reference")
        file = ["--inputs", self.root / "cnn_train.safetensors", "--outputs", self.root / "out.safetensors", "--threads", 1]
        for call in range(3):
            with torch.no_grad():
                expected = module(**inputs)
            cli.run("run", "--model", self.root / "stateful", *file, "--save-state", state, *(["--state", state] if call else []), check=0)
            self.assertTrue(torch.equal(self.outputs()["logits"], expected["logits"]))
        kept = load_file(state)
        buffers = {name: value for name, value in module.named_buffers() if name in kept}
        self.assertEqual(len(kept), 24)
        self.assertEqual({name: True for name in kept}, {name: torch.equal(buffers[name], kept[name]) for name in kept})
        self.assertEqual(kept["layer1.0.bn1.num_batches_tracked"].item(), 3)
        for text, change in [
            ('state.safetensors is no state of this model: "layer1.0.bn1.running_mean" is missing', lambda s: s.pop("layer1.0.bn1.running_mean")),
            ('the model has no state "more"', lambda s: s.update(more=torch.zeros(1))),
            ('"layer1.0.bn1.running_var" is float32[3], must be float32[8]', lambda s: s.update({"layer1.0.bn1.running_var": torch.zeros(3)})),
            ('"layer1.0.bn1.running_var" is float64[8], must be float32[8]', lambda s: s.update({"layer1.0.bn1.running_var": torch.zeros(8).double()})),
        ]:
            bad = dict(kept)
            change(bad)
            save_file(bad, state)
            status, _, err, _ = cli.run("run", "--model", self.root / "stateful", *file, "--state", state)
            self.assertEqual(status, 3, err)
            self.assertIn(text, err)
        status, _, err, _ = cli.run("run", "--model", self.root / "stateful", *file, "--save-state", "/nowhere/state")
        self.assertEqual(status, 1, err)
        self.assertIn("--save-state /nowhere/state cannot be written", err)


if __name__ == "__main__":
    unittest.main()
