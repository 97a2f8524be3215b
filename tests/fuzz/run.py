"""Runs one fuzz target from its corpus for a while.

    python tests/fuzz/run.py FOLDER TARGET

FOLDER holds the program fuzz_TARGET. It begins with corpus/TARGET of the repository and with what earlier runs kept in
FOLDER/corpus/TARGET, where new inputs that reach new code go. SHARDPIPE_FUZZ_SCALE multiplies the time. A failure ends
with one line: the target, the input, and the command that runs it again. The random numbers are the same in every run,
with SHARDPIPE_SOAK set others.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

SECONDS = 16  # of all targets together less than two minutes of two cores; an hour of one with the scale of make soak
HERE = Path(__file__).resolve().parent
# One of these ends a run: an input that takes longer, an allocation or a heap that is larger. A target has its own,
# tighter limit on what an input may make its reader hold (fuzz.h).
LIMITS = ["-timeout=25", "-rss_limit_mb=2048", "-malloc_limit_mb=256"]


def main() -> int:
    folder, target = Path(sys.argv[1]), sys.argv[2]
    program = folder / f"fuzz_{target}"
    kept, found = folder / "corpus" / target, folder / "found"
    kept.mkdir(parents=True, exist_ok=True)
    found.mkdir(exist_ok=True)
    seconds = max(1, int(SECONDS * float(os.environ.get("SHARDPIPE_FUZZ_SCALE", "1"))))
    command = [program, f"-max_total_time={seconds}", f"-artifact_prefix={found}/{target}-", *LIMITS]
    if not os.environ.get("SHARDPIPE_SOAK"):
        command.append("-seed=1")
    dictionary = HERE / "dictionaries" / f"{target}.dict"
    if dictionary.exists():
        command.append(f"-dict={dictionary}")
    log = subprocess.run([*map(str, command), str(kept), str(HERE / "corpus" / target)], stderr=subprocess.STDOUT,
                         stdout=subprocess.PIPE, text=True, errors="replace")
    runs = re.search(r"^Done (\d+) runs", log.stdout, re.MULTILINE)
    if log.returncode == 0 and runs and int(runs[1]) > len(list((HERE / "corpus" / target).iterdir())):
        print(f"fuzz {target}: {runs[1]} inputs in {seconds} s, {len(list(kept.iterdir()))} kept")
        return 0
    print(log.stdout[-6000:])
    file = re.search(r"Test unit written to (\S+)", log.stdout)
    what = file[1] if file else f"no input (exit status {log.returncode})"
    again = f"{program} {file[1]}" if file else " ".join(map(str, command))
    print(f"fuzz {target}: FAILED on {what}; again: {again}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
