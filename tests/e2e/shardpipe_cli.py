"""Runs the program and reads its answers: what every end-to-end test needs."""

import json
import os
import pathlib
import subprocess
import tempfile
import time
import unittest

PROGRAM = os.environ["SHARDPIPE_PROGRAM"]
DEMO_MODEL = pathlib.Path(os.environ["SHARDPIPE_DEMO_MODEL"])
SCALE = int(os.environ.get("SHARDPIPE_FUZZ_SCALE", "1"))


def run(*arguments, **options):
    """Runs `shardpipe ...`, as execute does."""
    return execute(PROGRAM, *arguments, **options)


def execute(*command, timeout=180, env=None, check=None):
    """Runs a command; returns (status, stdout, stderr, seconds). `check`: the status it must end with."""
    start = time.monotonic()
    done = subprocess.run(
        [*map(str, command)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
        text=True,
        errors="replace",
    )
    seconds = time.monotonic() - start
    if check is not None and done.returncode != check:
        raise AssertionError(
            f"{' '.join(map(str, command))}\nended with {done.returncode}, not {check}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    return done.returncode, done.stdout, done.stderr, seconds


def generate(model, *arguments, **options):
    """Runs `generate --json` and returns the object."""
    _, out, _, _ = run("generate", "--model", model, "--json", *arguments, check=0, **options)
    return json.loads(out)


def token_ids(answer):
    return [output["token_ids"] for output in answer["outputs"]]


class ScratchTest(unittest.TestCase):
    """Tests that share a folder, `root`, which goes with them."""

    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.root = pathlib.Path(temporary.name)


def processes_of(marker):
    """Ids of running processes whose environment holds the text: who was left behind."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
    return found
