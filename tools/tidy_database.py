"""Makes GCC's compile_commands.json fit for clang-tidy: python tools/tidy_database.py SOURCE TARGET

Clang cannot read GCC's precompiled header and does not know the options around it; the launcher in front of the
compiler is no part of the command.
"""

import json
import shlex
import sys
from pathlib import Path


def clang_command(command: str) -> str:
    words = shlex.split(command)
    first = next(i for i, word in enumerate(words) if Path(word).name.startswith(("c++", "g++", "clang++")))
    kept, skip = [words[first]], False
    for word, after in zip(words[first + 1 :], [*words[first + 2 :], ""]):
        if skip:
            skip = False
        elif word == "-include" and "cmake_pch" in after:
            skip = True
        elif word not in ("-Winvalid-pch", "-fpch-preprocess"):
            kept.append(word)
    return shlex.join(kept)


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    entries = json.loads(source.read_text())
    entries = [entry for entry in entries if "cmake_pch" not in entry["file"] and "torch_pch" not in entry["file"]]
    for entry in entries:
        entry["command"] = clang_command(entry["command"])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(entries, indent=1))


if __name__ == "__main__":
    main()
