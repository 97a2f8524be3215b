"""Ranks that die, stop or fail while they generate: status 4 within seconds, the cause named once, nobody left."""

import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import torch
from safetensors.torch import save_file

import shardpipe_cli as cli


class Jobs(unittest.TestCase):
    """Starts long jobs, finds their ranks, and sees how they end."""

    MARK = "SHARDPIPE_TEST_MARK=failures"
    ENVIRONMENT = {}

    def start(self, pp, *arguments):
        command = [cli.PROGRAM, "generate", "--model", cli.DEMO_MODEL, "--prompt", "Once upon a time", "--max-new-tokens", 4000,
                   "--ignore-eos", "--pp", pp, "--threads", 1, *arguments]
        return subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **self.ENVIRONMENT, "SHARDPIPE_TEST_MARK": "failures"})

    def ranks(self, job, pp):
        """Process ids by rank, once all run."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = {}
            for pid in cli.processes_of(self.MARK):
                try:
                    environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
                except OSError:
                    continue
                rank = [v for v in environment if v.startswith("RANK=")]
                if pid != job.pid and rank:
                    found[int(rank[0][5:])] = pid
            if len(found) == pp:
                return found
            time.sleep(0.05)
        self.fail("the ranks did not start")

    def expect_end(self, job, limit, status, pattern):
        start = time.monotonic()
        try:
            _, err = job.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            job.kill()
            self.fail(f"still running after {limit} s")
        self.assertEqual(job.returncode, status, err)
        errors = [line for line in err.splitlines() if line.startswith("error[")]
        self.assertEqual(len(errors), 1, err)
        self.assertRegex(errors[0], pattern)
        deadline = time.monotonic() + 3
        while cli.processes_of(self.MARK) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(cli.processes_of(self.MARK), [])
        return time.monotonic() - start


class Failures(Jobs):
    def test_killed_ranks(self):
        generator = random.Random(5)
        for repetition in range(3 * cli.SCALE):
            pp = generator.choice([2, 3])
            victim = repetition % pp
            with self.subTest(pp=pp, victim=victim):
                job = self.start(pp)
                pids = self.ranks(job, pp)
                time.sleep(generator.choice([0.0, 0.2, 1.0, 2.0]))
                os.kill(pids[victim], signal.SIGKILL)
                seconds = self.expect_end(job, 20, 4, rf"rank {victim} ")
                self.assertLess(seconds, 10)

    def test_the_error_of_one_rank_keeps_its_code(self):
        """Rank 0 refuses a prompt while the others wait for its plan."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "ids.safetensors"
            save_file({"input_ids": torch.tensor([[3, 49152]])}, path)
            job = subprocess.Popen(
                [cli.PROGRAM, "generate", "--model", str(cli.DEMO_MODEL), "--input-ids", str(path), "--pp", "3"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, "SHARDPIPE_TEST_MARK": "failures"})
            self.expect_end(job, 30, 2, r"49152")

    def test_a_stopped_rank_is_named(self):
        job = self.start(2, "--timeout", 6)
        pids = self.ranks(job, 2)
        time.sleep(2)
        os.kill(pids[1], signal.SIGSTOP)
        self.expect_end(job, 40, 4, r"rank [01]")

    def test_who_waits_in_a_collective_says_so(self):
        """A part of tp stands still: the other names its action, the collective and the rank that it waits for."""
        job = self.start(1, "--tp", 2, "--timeout", 6)
        pids = self.ranks(job, 2)
        time.sleep(3)
        os.kill(pids[1], signal.SIGSTOP)
        try:
            self.expect_end(job, 60, 4, r"rank 1 |rank 0: action 0F0 \(stage 0, microbatch 0, waiting for rank 1 in all_\w+")
        finally:
            for pid in cli.processes_of(self.MARK):
                os.kill(pid, signal.SIGKILL)

    def test_a_killed_part_or_replica(self):
        for layout in (["--tp", 2], ["--dp", 2, "--prompt", "Hello"]):
            with self.subTest(layout=layout):
                job = self.start(1, *layout)
                pids = self.ranks(job, 2)
                time.sleep(1)
                os.kill(pids[1], signal.SIGKILL)
                self.expect_end(job, 20, 4, r"rank 1 ")

    def test_the_launcher_takes_its_ranks_along(self):
        for sent in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=sent):
                job = self.start(2)
                self.ranks(job, 2)
                time.sleep(0.5)
                job.send_signal(sent)
                job.communicate(timeout=20)
                self.assertNotEqual(job.returncode, 0)
                deadline = time.monotonic() + 10
                while cli.processes_of(self.MARK) and time.monotonic() < deadline:
                    time.sleep(0.05)
                self.assertEqual(cli.processes_of(self.MARK), [])

    def test_a_reader_that_goes_away(self):
        done = subprocess.run(
            ["bash", "-c", f"{cli.PROGRAM} generate --model {cli.DEMO_MODEL} --prompt Hello --max-new-tokens 4000 --ignore-eos "
             "--pp 2 --threads 1 | head -c 1; exit ${PIPESTATUS[0]}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
            env={**os.environ, "SHARDPIPE_TEST_MARK": "failures"})
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"^error\[io\]: cannot write to standard output: Broken pipe")
        self.assertEqual(cli.processes_of(self.MARK), [])

    def test_under_torchrun(self):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python", cli.PROGRAM,
                   "generate", "--model", str(cli.DEMO_MODEL), "--prompt", "The capital of France is", "--max-new-tokens", "2",
                   "--pp", "2"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        self.assertEqual(done.stdout, " Paris.\n")

    def test_launch_starts_ranks(self):
        _, out, _, _ = cli.run(
            "launch", "--nproc", 2, "--", cli.PROGRAM, "generate", "--model", cli.DEMO_MODEL, "--prompt",
            "The capital of France is", "--max-new-tokens", 2, "--pp", 2, check=0)
        self.assertEqual(out, " Paris.\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
