"""Installs the build to a temporary prefix and uses it from the outside project examples/generate.

    python package_test.py BUILD_FOLDER TORCH_DIR MODEL_FOLDER
"""

import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD, TORCH_DIR, MODEL = Path(), "", ""


def run(*command, **options) -> subprocess.CompletedProcess:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("TORCH_DIR", "CMAKE_PREFIX_PATH")}


class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.prefix = cls.folder / "prefix"
        result = run("cmake", "--install", BUILD, "--prefix", cls.prefix)
        assert result.returncode == 0, result.stderr
        cls.library = next(cls.prefix.glob("lib*/**/libshardpipe.so"))

    def configure(self, build: str, *options: str, example: str = "generate") -> subprocess.CompletedProcess:
        return run(
            "cmake", "-G", "Ninja", "-S", ROOT / "examples" / example, "-B", self.folder / build,
            f"-DCMAKE_PREFIX_PATH={self.prefix}", *options, env=environment(),
        )  # fmt: skip

    def test_an_outside_project_builds_and_runs(self):
        result = self.configure("build")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn(f"LibTorch 2.13.0 at {TORCH_DIR}", result.stdout)
        result = run("cmake", "--build", self.folder / "build")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        program = self.folder / "build/generate"
        result = run(program, MODEL, "The capital of France is", env=environment())
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(result.stdout.startswith(" Paris."), result.stdout)
        shardpipe = self.prefix / "bin/shardpipe"
        ranks = run(shardpipe, "launch", "--nproc", 2, "--", program, MODEL, "The capital of France is", env=environment())
        self.assertEqual((ranks.returncode, ranks.stdout), (0, result.stdout), ranks.stderr)
        refused = run(shardpipe, "launch", "--nproc", 2, "--", program, self.folder / "nowhere", "x", env=environment())
        self.assertEqual(refused.returncode, 2, refused.stderr)
        self.assertRegex(refused.stderr, r"^error\[usage\]: .*nowhere")

    def test_a_pool_of_workers(self):
        result = self.configure("pool", example="worker-pool")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        result = run("cmake", "--build", self.folder / "pool")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        compiled = self.folder / "compiled"
        result = run(self.prefix / "bin/shardpipe", "compile", "--model", MODEL, "--pp", 2, "--output", compiled)
        self.assertEqual(result.returncode, 0, result.stderr)
        program = self.folder / "pool/worker_pool"  # finds the program beside the library
        result = run(program, compiled, "The capital of France is", "One, two, three,", env=environment())
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"(?s)^ Paris\..*\n four")
        refused = run(program, self.folder / "nowhere", "x", env=environment())
        self.assertEqual(refused.returncode, 2, refused.stderr)

    def test_the_programs_of_the_pippy_tutorial(self):
        result = self.configure("pippy", example="pippy-inference")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        result = run("cmake", "--build", self.folder / "pippy")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        launch = [self.prefix / "bin/shardpipe", "launch", "--nproc", 2, "--"]
        for split in ("equal_size", "threshold:350000000"):
            with self.subTest(split=split):
                result = run(
                    *launch, self.folder / "pippy/hf_generate", MODEL, split, "The capital of France is", "1, 2, 3,",
                    env=environment())
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertEqual([line[:6] for line in result.stdout.split("\n")[:1]], [" Paris"])

        import torch
        import transformers
        from safetensors.torch import load_file, save_file

        torch.manual_seed(0)
        config = transformers.RegNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], groups_width=8, num_labels=5)
        model = transformers.RegNetForImageClassification(config).eval()
        images = torch.randn(5, 3, 32, 32)
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(model, (), {"pixel_values": images}, dynamic_shapes={"pixel_values": {0: batch}})
        torch.export.save(program, self.folder / "regnet.pt2")
        save_file({"pixel_values": images}, self.folder / "images.safetensors")
        result = run(
            *launch, self.folder / "pippy/forward", self.folder / "regnet.pt2", self.folder / "images.safetensors",
            self.folder / "logits.safetensors", 3, env=environment())
        self.assertEqual(result.returncode, 0, result.stderr)
        with torch.no_grad():
            expected = model(images).logits
        torch.testing.assert_close(load_file(self.folder / "logits.safetensors")["logits"], expected)

    def test_the_tasks_of_the_oslo_tutorial(self):
        result = self.configure("oslo", example="oslo-tasks")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        result = run("cmake", "--build", self.folder / "oslo")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        sys.path.insert(0, str(ROOT / "tests/e2e"))
        import bert_folder
        import torch
        import transformers

        texts = ["the [MASK] sat on the mat.", "a bigger dog [MASK]"]
        for task, model_class in (("classify", "BertForSequenceClassification"), ("fill-mask", "BertForMaskedLM")):
            folder = self.folder / task
            model = bert_folder.make(folder, model_class)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            inputs = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=True)
            with torch.no_grad():
                logits = model(**inputs).logits
            if task == "classify":
                expected = [f"{int(row.argmax())} {row.softmax(-1).max():.3f}" for row in logits]
            else:
                masks = inputs.input_ids == tokenizer.mask_token_id
                filled = torch.where(masks, logits.argmax(-1), inputs.input_ids)
                expected = tokenizer.batch_decode(filled, skip_special_tokens=True)
            for ranks in (1, 3):
                with self.subTest(task=task, ranks=ranks):
                    launch = [self.prefix / "bin/shardpipe", "launch", "--nproc", ranks, "--"]
                    result = run(*launch, self.folder / "oslo/tasks", task, folder, *texts, env=environment())
                    self.assertEqual(result.returncode, 0, result.stderr)
                    lines = result.stdout.splitlines()
                    if task == "classify":
                        lines = [f"{line.split()[0]} {float(line.split()[1]):.3f}" for line in lines]
                    self.assertEqual(lines, expected)

    def test_a_module_of_ones_own(self):
        result = self.configure("own", example="own-module")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        result = run("cmake", "--build", self.folder / "own")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        answers = []
        for ranks in (1, 3):
            result = run(
                self.prefix / "bin/shardpipe", "launch", "--nproc", ranks, "--", self.folder / "own/own_module", 6, 512,
                env={**environment(), "OMP_NUM_THREADS": "1"})
            self.assertEqual(result.returncode, 0, result.stderr)
            answers.append(float(result.stdout))
            held = [int(n) for n in re.findall(r"rank \d+ holds (\d+) bytes", result.stderr)]
            block = 4 * (512 + 512 + 2 * 2 * 512 * 512 + 1024 + 512)
            self.assertEqual(held, [6 // ranks * block] * ranks)
        self.assertTrue(math.isfinite(answers[0]) and answers[0] != 0)
        self.assertAlmostEqual(answers[0], answers[1], delta=1e-3 * abs(answers[0]) + 1e-2)

    def test_another_torch_version_is_refused_and_both_are_named(self):
        torch = self.folder / "torch"
        header = torch / "include/torch/headeronly/version.h"
        header.parent.mkdir(parents=True)
        header.write_text("".join(f"#define TORCH_VERSION_{n} {v}\n" for n, v in (("MAJOR", 2), ("MINOR", 12), ("PATCH", 1))))
        (torch / "lib").mkdir()
        (torch / "lib/libtorch_cpu.so").touch()
        result = self.configure("other-torch", f"-DTORCH_DIR={torch}")
        self.assertNotEqual(result.returncode, 0)
        message = " ".join(result.stderr.split())
        self.assertIn("torch 2.13.0 is needed", message)
        self.assertIn("is 2.12.1", message)

    def test_a_missing_torch_is_named(self):
        result = self.configure("no-torch", f"-DTORCH_DIR={self.folder}/nowhere")
        self.assertNotEqual(result.returncode, 0)
        message = " ".join(result.stderr.split())
        self.assertIn("LibTorch not found", message)
        self.assertIn("/nowhere", message)

    def test_another_shardpipe_version_is_refused(self):
        source = self.folder / "newer"
        shutil.copytree(ROOT / "examples/generate", source, dirs_exist_ok=True)
        text = (source / "CMakeLists.txt").read_text()
        (source / "CMakeLists.txt").write_text(text.replace("shardpipe 0.1 ", "shardpipe 99.0 "))
        result = run("cmake", "-G", "Ninja", "-S", source, "-B", source / "build", f"-DCMAKE_PREFIX_PATH={self.prefix}")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("99.0", result.stderr)

    def test_only_the_public_names_are_exported(self):
        result = run("nm", "--dynamic", "--defined-only", "--demangle", self.library)
        self.assertEqual(result.returncode, 0, result.stderr)
        names = [line.split(" ", 2)[2] for line in result.stdout.splitlines()]
        self.assertIn("shardpipe::exit_status(shardpipe::ErrorCode)", names)
        about = ("typeinfo for ", "typeinfo name for ", "vtable for ", "VTT for ", "guard variable for ")
        for name in names:
            for prefix in about:
                name = name.removeprefix(prefix)
            self.assertTrue(name.startswith(("shardpipe::", "non-virtual thunk to shardpipe::")), name)

    def test_installed_headers_are_the_public_ones(self):
        installed = {path.relative_to(self.prefix / "include").as_posix() for path in (self.prefix / "include").rglob("*.h")}
        public = {path.relative_to(ROOT / "include").as_posix() for path in (ROOT / "include").rglob("*.h")}
        self.assertEqual(installed, public | {"shardpipe/version.h"})


if __name__ == "__main__":
    MODEL = sys.argv.pop()
    TORCH_DIR = sys.argv.pop()
    BUILD = Path(sys.argv.pop())
    unittest.main()
