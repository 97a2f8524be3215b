"""Ranks on two hosts (hosts.py), and on one, started by everything that starts ranks: the same answers as one process, memory
between ranks of one host and the network between others; hosts, links and ranks that fail."""

import itertools
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
import unittest

import exemptions
import hosts as two_hosts
import shardpipe_cli as cli
from exported import ExportedTest

MARK = "SHARDPIPE_TEST_MARK=hosts"
ENVIRONMENT = {"SHARDPIPE_TEST_MARK": "hosts", "SHARDPIPE_LOG": "info", "OMP_NUM_THREADS": "1"}
PROMPT = "The capital of France is"
LIMIT = 90  # for what takes three seconds: a loaded machine
PORTS = itertools.count(29500)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
MPIRUN = ("mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none")


def generate(*layout, new_tokens=4):
    return [cli.PROGRAM, "generate", "--model", cli.DEMO_MODEL, "--prompt", PROMPT, "--max-new-tokens", new_tokens, "--threads", 1,
            "--kernels", "reference", "--json", *layout]


def slurm(rank, size, local_rank, node_list, job, port=None):
    """As srun sets them."""
    variables = {"SLURM_PROCID": rank, "SLURM_NTASKS": size, "SLURM_LOCALID": local_rank, "SLURM_JOB_ID": job, "SLURM_STEP_ID": 0,
                 "SLURM_JOB_NODELIST": node_list, "SLURM_STEP_NODELIST": node_list}
    return {**ENVIRONMENT, **{name: str(value) for name, value in variables.items()}, **({"MASTER_PORT": str(port)} if port else {})}


# Each starts `command` as so many ranks on each host and returns the processes to wait for.


def by_launch(hosts, each, command):
    port = next(PORTS)
    return [
        host.start(cli.PROGRAM, "launch", "--nproc", each, "--nnodes", 2, "--node-rank", number, "--master", f"{hosts[0].address}:{port}",
                   "--", *command, env=ENVIRONMENT)
        for number, host in enumerate(hosts)]  # fmt: skip


def by_torchrun(hosts, each, command):
    port = next(PORTS)
    return [
        host.start(*TORCHRUN, "--nnodes", 2, "--node-rank", number, "--nproc-per-node", each, "--master-addr", hosts[0].address,
                   "--master-port", port, "--no-python", *command, env=ENVIRONMENT)
        for number, host in enumerate(hosts)]  # fmt: skip


def by_mpirun(hosts, each, command):
    """The second host executes what it is told, as its ssh server would; the agent is the client."""
    folder = pathlib.Path(hosts.folder.name)
    agent, pipe = folder / "agent", folder / f"{hosts[1].name}.commands"
    if not hosts.server:
        os.mkfifo(pipe)
        agent.write_text(f'#!/bin/sh\nhost=$1; shift; echo "$*" >{folder}/$host.commands\n')
        agent.chmod(0o755)
        hosts.server = hosts[1].start("sh", "-c", f'while read -r line; do sh -c "$line" & done <>{pipe}', env=ENVIRONMENT)
    where = ",".join(f"{host.name}:{each}" for host in hosts)
    return [hosts[0].start(
        *MPIRUN, "--host", where, "-n", 2 * each, "--mca", "plm_rsh_agent", agent, "-x", f"MASTER_ADDR={hosts[0].address}", *command,
        env=ENVIRONMENT)]  # fmt: skip


def by_slurm(hosts, each, command):
    job = next(PORTS)
    return [
        host.start(*command, env=slurm(number * each + local, 2 * each, local, "sphost[1-2]", job))
        for number, host in enumerate(hosts) for local in range(each)]  # fmt: skip


class Jobs(unittest.TestCase):
    """What jobs of several processes answer."""

    @classmethod
    def setUpClass(cls):
        cls.expected = json.loads(cli.execute(*generate(), check=0)[1])["outputs"]

    def tearDown(self):
        left = lambda: [pid for pid in cli.processes_of(MARK) if pid not in self.servers()]  # noqa: E731
        self.assertTrue(two_hosts.wait_until(lambda: not left(), 10), f"left behind: {left()}")

    def servers(self):
        """Processes that outlive a test."""
        return []

    def texts(self, processes, status=0, limit=LIMIT):
        """What all wrote to standard output, and to standard error."""
        done = [two_hosts.ends(process, limit) for process in processes]
        for got, _, err in done:
            self.assertEqual(got, status, "\n".join(text for _, _, text in done)[-4000:])
        return "".join(out for _, out, _ in done), "".join(err for _, _, err in done)

    def expect_answer(self, processes, transports, exact=True):
        """One rank prints the answer of one process; these groups of ranks use these transports and there are no others."""
        out, err = self.texts(processes)
        outputs = json.loads(out)["outputs"]
        self.assertEqual([output["token_ids"] for output in outputs], [output["token_ids"] for output in self.expected])
        if exact:
            self.assertEqual(outputs, self.expected)
        used = {ranks: name for ranks, name in re.findall(r"ranks ([\d, ]+) talk over (\w+)", err)}
        self.assertEqual(used, transports)

    def expect_line(self, err, pattern, lines=1):
        """So many lines of errors in all, one of them like this."""
        errors = [line for line in err.splitlines() if line.startswith("error[")]
        self.assertEqual(len(errors), lines, err)
        self.assertTrue(any(re.search(pattern, line) for line in errors), err)


class OneHost(Jobs):
    SHARED = {"0, 1": "shm"}

    def start(self, *command, env=None):
        return subprocess.Popen(
            [*map(str, command)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **(env or ENVIRONMENT)}, preexec_fn=two_hosts.die_with_parent)

    def test_mpirun(self):
        self.expect_answer([self.start(*MPIRUN, "-n", 2, *generate("--pp", 2))], self.SHARED)

    def test_torchrun(self):
        self.expect_answer(
            [self.start(*TORCHRUN, "--standalone", "--nproc-per-node", 2, "--no-python", *generate("--tp", 2))], self.SHARED, exact=False)

    def test_slurm(self):
        self.expect_answer(
            [self.start(*generate("--pp", 2), env=slurm(rank, 2, rank, "localhost", os.getpid())) for rank in range(2)], self.SHARED)

    def test_a_rank_of_mpirun_that_dies(self):
        job = self.start(*MPIRUN, "-n", 2, *generate("--pp", 2, "--ignore-eos", new_tokens=4000))
        pids = []
        self.assertTrue(two_hosts.wait_until(lambda: pids.extend(ranks_of("OMPI_COMM_WORLD_RANK").values()) or len(pids) == 2 or pids.clear(), 60))
        os.kill(pids[0], signal.SIGKILL)
        status, _, err = two_hosts.ends(job, LIMIT)
        self.assertNotEqual(status, 0, err)


def ranks_of(variable="RANK"):
    """Ids of the processes that generate, by rank, wherever they run."""
    found = {}
    for pid in cli.processes_of(MARK):
        try:
            if b"generate" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:2]:
                environment = dict(v.split("=", 1) for v in pathlib.Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in v)
                found[int(environment[variable])] = pid
        except (OSError, KeyError):
            pass
    return found


class OnTwoHosts(Jobs):
    """Of a kind that share nothing but a link and files."""

    KIND = "host"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hosts = two_hosts.TwoHosts(cls.KIND)
        cls.addClassCleanup(cls.hosts.close)

    def servers(self):
        server = self.hosts.server
        return [server.pid, *map(int, pathlib.Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split())] if server else []


class Launchers(OnTwoHosts):
    def expect_layouts(self, start):
        self.expect_answer(start(self.hosts, 1, generate("--pp", 2)), {"0, 1": "gloo"})
        self.expect_answer(
            start(self.hosts, 2, generate("--pp", 2, "--tp", 2)),
            {"0, 1, 2, 3": "gloo", "0, 2": "gloo", "1, 3": "gloo", "0, 1": "shm", "2, 3": "shm"}, exact=False)

    def test_launch(self):
        self.expect_layouts(by_launch)
        self.expect_answer(by_launch(self.hosts, 1, generate("--tp", 2)), {"0, 1": "gloo"}, exact=False)

    def test_torchrun(self):
        self.expect_layouts(by_torchrun)

    def test_mpirun(self):
        self.expect_layouts(by_mpirun)

    def test_slurm(self):
        self.expect_layouts(by_slurm)

    def test_shared_memory_is_refused(self):
        _, err = self.texts(by_launch(self.hosts, 1, generate("--pp", 2, "--transport", "shm")), status=2)
        self.expect_line(err, r"--transport shm: ranks 0, 1 cannot share memory: they are not on one host: rank 0 on sphost1, process \d+; rank 1 on sphost2")


class Gradients(ExportedTest):
    """`run` over two hosts: outputs, loss and gradients are those of Python's PyTorch to the bit."""

    MODELS = ("mlp",)

    def shardpipe(self, name, *arguments):
        command = [cli.PROGRAM, "run", "--model", self.root / f"{name}.pt2", "--inputs", self.root / f"{name}.safetensors", "--outputs",
                   self.root / "out.safetensors", "--threads", 1, "--json", *arguments]
        done = [two_hosts.ends(process, LIMIT) for process in by_launch(self.hosts, 1, command)]
        self.assertEqual([status for status, _, _ in done], [0, 0], done)
        self.assertIn("ranks 0, 1 talk over gloo", done[0][2])
        return json.loads(done[0][1])

    def test_two_stages(self):
        with two_hosts.TwoHosts("host") as self.hosts:
            self.compare("mlp", 2, 2, schedule="1f1b")


class Containers(OnTwoHosts):
    """One machine, whose memory processes of two containers cannot map: they find out, and use the network."""

    KIND = "container"

    def test_auto(self):
        self.expect_answer(by_launch(self.hosts, 1, generate("--pp", 2)), {"0, 1": "gloo"})

    def test_shared_memory_is_refused(self):
        _, err = self.texts(by_launch(self.hosts, 1, generate("--pp", 2, "--transport", "shm")), status=2)
        self.expect_line(err, r"--transport shm: ranks 0, 1 cannot share memory: rank 1: /proc/\d+/fd/\d+")


class Networks(OnTwoHosts):
    """Processes that see each other but have networks of their own: memory works, and a loopback address does not."""

    KIND = "network"

    def test_auto(self):
        self.expect_answer(by_launch(self.hosts, 1, generate("--pp", 2)), {"0, 1": "shm"})

    def test_gloo(self):
        self.expect_answer(by_launch(self.hosts, 1, generate("--pp", 2, "--transport", "gloo")), {"0, 1": "gloo"})


class Faults(OnTwoHosts):
    FOR_EVER = generate("--pp", 2, "--tp", 2, "--ignore-eos", "--timeout", 6, new_tokens=4000)
    LOST = r"lost the store it serves at 10\.231\.77\.1:\d+; hint: that process ended, or its host cannot be reached"

    def start(self, start, variable):
        jobs = start(self.hosts, 2, self.FOR_EVER)
        pids = {}
        self.assertTrue(two_hosts.wait_until(lambda: pids.update(ranks_of(variable)) or len(pids) == 4, 60), pids)
        # All ranks have met when they have threads beside the first one; they compute soon after.
        self.assertTrue(two_hosts.wait_until(lambda: all(self.computes(pid) for pid in pids.values()), 60))
        return jobs, pids

    @staticmethod
    def computes(pid):
        """Holds more memory than the libraries: weights."""
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 > 200 << 20

    def test_a_rank_of_either_host_is_killed(self):
        generator = random.Random(3)
        for repetition in range(2 * cli.SCALE):
            victim = (3, 1, 2, 0)[repetition % 4]
            with self.subTest(victim=victim):
                jobs, pids = self.start(by_launch, "RANK")
                time.sleep(generator.random() / 10)
                os.kill(pids[victim], signal.SIGKILL)
                _, err = self.texts(jobs, status=4, limit=20)
                self.expect_line(err, rf"^error\[rank\]: rank {victim} died \(signal 9, killed\)")

    def test_without_launcher(self):
        for victim, lines, pattern in ((2, 1, r"lost connection to rank 2"), (0, 2, r"rank 0 died or stopped responding: rank [12] " + self.LOST)):
            with self.subTest(victim=victim):
                jobs, pids = self.start(by_slurm, "SLURM_PROCID")
                os.kill(pids[victim], signal.SIGKILL)
                done = [two_hosts.ends(job, 20) for job in jobs]
                err = "".join(err for _, _, err in done)
                self.assertEqual([status for rank, (status, _, _) in enumerate(done) if rank != victim], [4] * 3, err)
                self.expect_line(err, pattern, lines)

    def test_the_link_goes_down(self):
        """Nobody tells them: heartbeats stop. Each side names what it misses, once."""
        for start, variable, lost in ((by_launch, "RANK", "the launcher"), (by_slurm, "SLURM_PROCID", "rank 0")):
            with self.subTest(launcher=start.__name__):
                jobs, _ = self.start(start, variable)
                self.hosts.link("down", self.hosts[1])
                self.addCleanup(self.hosts.link, "up", self.hosts[1])
                half = len(jobs) // 2
                _, near = self.texts(jobs[:half], status=4, limit=25)
                _, far = self.texts(jobs[half:], status=4, limit=25)
                self.expect_line(near, r"rank [23] stopped responding|(from|for) rank [23]\)")
                self.expect_line(far, rf"{lost} died or stopped responding: rank 2 {self.LOST}")
                self.hosts.link("up", self.hosts[1])

    def test_nobody_serves(self):
        port = next(PORTS)
        environment = {**ENVIRONMENT, "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": self.hosts[0].address, "MASTER_PORT": str(port)}
        _, err = self.texts([self.hosts[1].start(*generate("--pp", 2, "--timeout", 2), env=environment)], status=4)
        self.expect_line(err, rf"rank 1: cannot reach 10\.231\.77\.1:{port}, where the ranks meet, within 2 s: Connection refused; hint: check MASTER_ADDR")
        self.hosts.link("down", self.hosts[0])
        self.addCleanup(self.hosts.link, "up", self.hosts[0])
        _, err = self.texts([self.hosts[1].start(*generate("--pp", 2, "--timeout", 2), env=environment)], status=4)
        self.expect_line(err, r"within 2 s: (No route to host|Connection timed out)")


def load_tests(loader, _, __):
    classes = [OneHost]
    try:
        for kind in two_hosts.KINDS:
            two_hosts.TwoHosts(kind).close()
        classes += [Launchers, Gradients, Containers, Networks, Faults]
    except (OSError, subprocess.CalledProcessError) as error:
        exemptions.exempt("namespaces", getattr(error, "stderr", None) or error)
    return unittest.TestSuite(map(loader.loadTestsFromTestCase, classes))


if __name__ == "__main__":
    unittest.main(verbosity=2)
