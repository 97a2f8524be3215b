"""Commands and Python programs in README.md and docs/ run, links lead somewhere, the reference is what the program says."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import torch

import shardpipe_cli as cli

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Devices of a LibTorch without CUDA.
STAND_IN = {"LD_PRELOAD": os.environ["SHARDPIPE_FAKE_CUDA"]} if "SHARDPIPE_FAKE_CUDA" in os.environ else {}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Docs(unittest.TestCase):
    def test_commands_run(self):
        targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
        ran = 0
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "models").symlink_to(cli.DEMO_MODEL.parent)
            binaries = pathlib.Path(folder) / "bin"
            binaries.mkdir()
            (binaries / "shardpipe").symlink_to(cli.PROGRAM)
            environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"}
            for page in PAGES:
                for language, block in re.findall(r"^```(sh|python)\n(.*?)^```$", page.read_text(), re.S | re.M):
                    with self.subTest(page=page.name, command=block.strip()):
                        ran += 1
                        on_gpu = "--device cuda" in block and "shardpipe plan" not in block
                        if on_gpu and not STAND_IN and not torch.cuda.is_available():
                            continue  # a LibTorch for CUDA where there is no GPU
                        make = re.fullmatch(r"make ([a-z]+)", block.strip())
                        if make:  # the tests cannot run the tests
                            self.assertIn(make[1], targets)
                            continue
                        expected = re.search(r"# exits with (\d+)", block)
                        command = [sys.executable, "-c"] if language == "python" else ["bash", "-ec"]
                        done = subprocess.run(
                            [*command, block], cwd=folder, env={**environment, **(STAND_IN if on_gpu else {})}, stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, timeout=120)
                        self.assertEqual(done.returncode, int(expected[1]) if expected else 0, done.stderr)
                        if expected:  # the page shows the line
                            self.assertIn(done.stderr.strip(), page.read_text())
        self.assertGreater(ran, 10)

    def test_links_lead_somewhere(self):
        for page in PAGES:
            text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
            for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
                if not target.startswith("http"):
                    self.assertTrue((page.parent / target).exists(), f"{page.name}: {target}")

    def test_the_reference_is_up_to_date(self):
        done = subprocess.run(
            [sys.executable, ROOT / "tools/make_reference.py", cli.PROGRAM, "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_guide_shows_the_example(self):
        code = re.search(r"```cpp\n(.*?)```", (ROOT / "docs/guide/cpp.md").read_text(), re.S)[1]
        example = re.sub(r"\s+", " ", (ROOT / "examples/generate/main.cpp").read_text())
        for line in code.splitlines():
            statement = re.sub(r"\s*//.*", "", line).strip()
            if statement.startswith(("World", "const Plan", "Engine")):
                self.assertIn(statement, example)


if __name__ == "__main__":
    unittest.main(verbosity=2)
