"""Makes GCC's compile_commands.json fit for clang-tidy: python tools/tidy_database.py SOURCE FOLDER

Clang can neither read GCC's precompiled header, so that it gets the header as text, nor know all of GCC's options. FOLDER gets the database and files.txt, the files in it.
"""

import json
import os
import shlex
import sys
from pathlib import Path

PCH_HEADER = Path(__file__).resolve().parent.parent / "cmake/torch_pch.h"
GCC_ONLY = ("-Winvalid-pch", "-fpch-preprocess")


def clang_command(command: str) -> str:
    compiler, *words = shlex.split(command)
    words = [str(PCH_HEADER) if word.endswith("/cmake_pch.hxx") else word for word in words if word not in GCC_ONLY]
    return shlex.join([compiler, "-Wno-unknown-warning-option", *words])


def main() -> None:
    source, folder = map(Path, sys.argv[1:])
    entries = [entry for entry in json.loads(source.read_text()) if "_pch." not in entry["file"]]
    for entry in entries:
        entry["command"] = clang_command(entry["command"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compile_commands.json").write_text(json.dumps(entries, indent=1))
    (folder / "files.txt").write_text("".join(f"{os.path.relpath(entry['file'])}\n" for entry in entries))


if __name__ == "__main__":
    main()
