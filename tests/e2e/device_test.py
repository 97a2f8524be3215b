"""--device cuda: every layout, schedule and command where tensors are on devices.

With a LibTorch without CUDA a stand-in for it is loaded into the ranks (tests/support/fake_cuda): memory of the host and the
CPU's kernels behind devices that are as strict as real ones about what is where. With a LibTorch for CUDA the same runs on
GPUs."""

import json
import os
import signal
import socket
import subprocess
import time
import unittest

import torch
from safetensors.torch import save_file

import failures_test
import generate_test
import mesh_test
import shardpipe_cli as cli
from exported_models import CASES
from mesh_test import options

STAND_IN = os.environ.get("SHARDPIPE_FAKE_CUDA")
NEW = 6
CUDA = ["--device", "cuda"]


def devices(count):
    """The environment in which a host has so many devices."""
    return {"LD_PRELOAD": STAND_IN, "SHARDPIPE_FAKE_CUDA_DEVICES": str(count)} if STAND_IN else {}


def prompts(rows):
    return [part for row in rows for part in ("--prompt", generate_test.PROMPTS[row])]


class Generate(cli.ScratchTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.expected = cls.answer()

    @classmethod
    def answer(cls, *arguments, model=cli.DEMO_MODEL, env=None):
        return cli.generate(
            model, *prompts([0, 1, 5]), "--max-new-tokens", NEW, "--logprobs", "--threads", 1, *arguments, env=env)

    def test_every_layout(self):
        alone = self.answer(*CUDA, env=devices(1))
        self.assertEqual(cli.token_ids(alone), cli.token_ids(self.expected))
        for pp, tp, dp in ((2, 1, 1), (3, 1, 1), (1, 1, 2), (1, 2, 1), (2, 2, 1)):
            with self.subTest(pp=pp, tp=tp, dp=dp):
                answer = self.answer(*options(pp, tp, dp), "--chunks", 1, *CUDA, env=devices(4))
                if tp == dp == 1:  # the same products
                    self.assertEqual(answer["outputs"], alone["outputs"])
                self.assertEqual(cli.token_ids(answer), cli.token_ids(alone))

    def test_fewer_devices_than_ranks(self):
        expected = self.answer(*options(2, 2, 1), *CUDA, env=devices(4))
        for count in (1, 3):
            self.assertEqual(self.answer(*options(2, 2, 1), *CUDA, env=devices(count))["outputs"], expected["outputs"])

    def test_lanes_dtypes_transports(self):
        for more in (["--chunks", 3], ["--transport", "gloo"], ["--transport", "shm"]):
            with self.subTest(more=more):
                answer = self.answer("--pp", 2, *CUDA, *more, env=devices(2))
                self.assertEqual(cli.token_ids(answer), cli.token_ids(self.expected))
        halves = [self.answer("--pp", pp, "--dtype", "bfloat16", "--chunks", 1, *CUDA, env=devices(2)) for pp in (1, 2)]
        self.assertEqual(halves[0]["outputs"], halves[1]["outputs"])

    def test_verify(self):
        for layout in ((3, 1, 1), (2, 2, 1)):
            cli.run(
                "verify", "--model", cli.DEMO_MODEL, *prompts([0, 1]), "--max-new-tokens", 4, *options(*layout), *CUDA, "--threads", 1,
                check=0, env=devices(4))

    def test_artefact(self):
        folder = self.root / "compiled"
        cli.run("compile", "--model", cli.DEMO_MODEL, "--output", folder, "--pp", 2, *CUDA, check=0)  # needs no device
        self.assertEqual(cli.token_ids(self.answer(model=folder, env=devices(2))), cli.token_ids(self.expected))
        _, _, err, _ = cli.run("generate", "--model", folder, "--prompt", "a", "--device", "cpu", check=2)
        self.assertIn("--device cpu contradicts the artefact", err)


class Families(cli.ScratchTest):
    def test_every_family(self):
        """Greedy tokens of every family's tiny model against Hugging Face."""
        for number, kind in enumerate(generate_test.TINY):
            model = generate_test.tiny(kind, number)
            model.save_pretrained(self.root / kind)
            rows = torch.arange(2, 20).reshape(3, 6)
            save_file({"input_ids": rows}, self.root / "ids.safetensors")
            expected, margins = generate_test.reference(model, rows.tolist(), NEW)
            for layout in ((2, 1, 1), (1, 2, 1)):
                with self.subTest(family=kind, layout=layout):
                    answer = cli.generate(
                        self.root / kind, "--input-ids", self.root / "ids.safetensors", "--max-new-tokens", NEW, "--threads", 1,
                        *options(*layout), *CUDA, env=devices(2))
                    self.assertEqual(cli.token_ids(answer), expected, f"margins {min(map(min, margins))}")


class Run(mesh_test.NearExact):
    MODELS = tuple(CASES)

    def shardpipe(self, name, *arguments, **more):
        return super().shardpipe(name, *arguments, *CUDA, env=devices(4), **more)

    def test_every_model(self):
        """Outputs and gradients."""
        for name in self.MODELS:
            # What these compute for a row depends on the rows that run with it: they are not cut.
            for layout in ((1, 1, 1), (1, 2, 1), *(() if name in ("toy", "cond") else ((2, 1, 1),))):
                with self.subTest(model=name, layout=layout):
                    self.expect_answer(name, *layout)
        self.expect_answer("mlp", 2, 2, 2)

    def test_schedules_agree(self):
        answers = {}
        for schedule in ("fill-drain", "1f1b", "interleaved", "looped-bfs", "zb-h1", "zb-v"):
            answers[schedule] = self.whole_answer("mlp", "--pp", 2, "--chunks", 4, "--split", "balanced", "--schedule", schedule)
        for schedule, answer in answers.items():
            for key, value in answers["fill-drain"].items():
                self.assertTrue(torch.equal(answer[key], value), f"{schedule} {key}")

    def test_verify(self):
        for layout in (["--pp", 3], ["--tp", 2]):
            cli.run("verify", "--model", self.root / "llama.pt2", "--threads", 1, *layout, *CUDA, check=0, env=devices(3))


class Layers(cli.ScratchTest):
    def test_parallel_layers(self):
        """Eager layers and whole modules of them, forwards and backwards: tests/api/layers_player.cpp."""
        tests = "Ranks.EveryLayer*:Ranks.ATransformer*:Ranks.WholeModules*:Ranks.ReductionsAre*"
        for ranks in (2, 3):
            _, out, _, _ = cli.run(
                "launch", "--nproc", ranks, "--", os.environ["SHARDPIPE_LAYERS_PLAYER"], self.root, f"--gtest_filter={tests}", check=0,
                env={**devices(ranks), "SHARDPIPE_TEST_DEVICE": "cuda"})
            self.assertEqual(out.count("[  PASSED  ] 4 tests"), ranks, out)


@unittest.skipUnless(STAND_IN or torch.cuda.device_count() > 1, "NCCL wants a GPU for each rank")
class Nccl(mesh_test.NearExact):
    """Over NCCL everything is as through host memory, bit by bit."""

    MODELS = ("mlp", "unet", "cnn_train")

    @classmethod
    def devices(cls, count):
        return {**devices(count), **({"LD_LIBRARY_PATH": os.environ["SHARDPIPE_FAKE_NCCL"]} if STAND_IN else {})}

    def test_generate(self):
        for pp, tp, dp in ((2, 1, 1), (3, 1, 1), (1, 2, 1), (2, 2, 1), (1, 1, 2)):
            with self.subTest(pp=pp, tp=tp, dp=dp):
                answers = [
                    Generate.answer(*options(pp, tp, dp), *CUDA, "--transport", transport, env=self.devices(4))
                    for transport in ("shm", "nccl")
                ]
                self.assertEqual(answers[0]["outputs"], answers[1]["outputs"])

    def test_run(self):
        layouts = [["--pp", 2, "--tp", 2, "--dp", 2], ["--pp", 3, "--chunks", 4, "--schedule", "1f1b"]]
        layouts += [["--pp", 2, "--chunks", 4, "--split", "balanced", "--schedule", "zb-v"]]
        for name in self.MODELS:
            for layout in layouts[: 3 if name == "mlp" else 2]:
                with self.subTest(model=name, layout=layout):
                    answers = [
                        self.whole_answer(name, *layout, *CUDA, "--transport", transport, env=self.devices(8))
                        for transport in ("shm", "nccl")
                    ]
                    self.assertEqual(set(answers[0]), set(answers[1]))
                    for key, value in answers[0].items():
                        self.assertTrue(torch.equal(value, answers[1][key]), key)

    def test_ranks_that_share_a_device(self):
        _, _, err, _ = cli.run(
            "generate", "--model", cli.DEMO_MODEL, "--prompt", "a", "--tp", 2, *CUDA, "--transport", "nccl", check=2,
            env={**self.devices(1), "CUDA_VISIBLE_DEVICES": "0"})
        self.assertRegex(err, "--transport nccl: rank 0 shares its device with rank 1; hint: use --transport auto\n$")

    def test_ranks_that_see_one_device_each(self):
        """As Slurm starts them: all call theirs 0."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = ["generate", "--model", cli.DEMO_MODEL, "--prompt", "a", "--max-new-tokens", "2", "--pp", "2", *CUDA, "--transport", "nccl"]
        ranks = [
            subprocess.Popen(
                [cli.PROGRAM, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={
                    **os.environ, **self.devices(1), "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2",
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": str(rank)})
            for rank in (0, 1)
        ]
        for rank in ranks:
            _, err = rank.communicate(timeout=60)
            self.assertEqual(rank.returncode, 0, err)


@unittest.skipUnless(STAND_IN or torch.cuda.device_count() > 1, "NCCL wants a GPU for each rank")
class Kills(failures_test.Jobs):
    ENVIRONMENT = Nccl.devices(2)

    def test_killed_ranks(self):
        for layout in (["--pp", 2], ["--tp", 2]):
            for victim in (0, 1):
                with self.subTest(layout=layout, victim=victim):
                    job = self.start(*layout[1:], *CUDA) if layout[0] == "--pp" else self.start(1, *layout, *CUDA)
                    pids = self.ranks(job, 2)
                    time.sleep(2)
                    os.kill(pids[victim], signal.SIGKILL)
                    self.assertLess(self.expect_end(job, 20, 4, rf"rank {victim} "), 10)


class Refusals(unittest.TestCase):
    def refuse(self, pattern, *arguments, command="generate", **more):
        prompt = [] if command == "plan" else ["--prompt", "a"]
        _, out, err, _ = cli.run(command, "--model", cli.DEMO_MODEL, *prompt, *arguments, check=2, **more)
        self.assertEqual(out, "")
        self.assertRegex(err, f"^error\\[usage\\]: {pattern}[^\n]*\n$")

    def test_names(self):
        self.refuse("--transport nccl carries what is on GPUs, and --device is cpu", "--transport", "nccl")
        self.refuse("--profile times layers on the CPU, not on --device cuda", *CUDA, "--profile", command="plan")
        self.refuse(
            "--profile times layers on the CPU, not on --device cuda", *CUDA, "--profile", "--split", "balanced", "--pp", 2,
            env=devices(2))

    @unittest.skipUnless(STAND_IN, "this LibTorch has CUDA and NCCL")
    def test_what_this_build_has_not(self):
        self.refuse(
            "--device cuda: this program was built with a LibTorch without CUDA; hint: use --device cpu, or build", *CUDA, "--pp", 2)
        self.refuse("--transport nccl needs NCCL, which is not in this build", *CUDA, "--transport", "nccl", env=devices(1))

    def test_doctor(self):
        if STAND_IN:
            self.assertRegex(cli.run("doctor", check=0)[1], "\nCUDA        not compiled in\n")
            self.assertRegex(cli.run("doctor", check=0, env=devices(3))[1], "\nCUDA        with(out)? NCCL, GPUs: 3\n")
        report = json.loads(cli.run("doctor", "--json", check=0, env=devices(1))[1])
        self.assertTrue(report["cuda"])
        self.assertGreaterEqual(report["gpus"], 1)

    def test_no_device(self):
        self.refuse(
            "--device cuda: LibTorch finds no such device on this host; hint: look at the driver and at CUDA_VISIBLE_DEVICES",
            *CUDA, env={**devices(0), "CUDA_VISIBLE_DEVICES": ""})

    def test_plan_needs_none(self):
        _, out, _, _ = cli.run("plan", "--model", cli.DEMO_MODEL, "--pp", 2, *CUDA, check=0)
        self.assertIn("The ranks compute on cuda: how fast that is is not known here", out)
        _, out, _, _ = cli.run("plan", "--model", cli.DEMO_MODEL, "--pp", 2, *CUDA, "--json", check=0)
        self.assertEqual((json.loads(out)["device"], json.loads(out)["kernels"]), ("cuda", "reference"))


if __name__ == "__main__":
    unittest.main()
