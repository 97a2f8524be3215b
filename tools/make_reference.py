#!/usr/bin/env python3
"""Writes the generated parts of docs/reference/command-line.md from the program's own tables.

    tools/make_reference.py build/bin/shardpipe [--check]
"""

import pathlib
import re
import subprocess
import sys

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs/reference/command-line.md"
BLOCK = re.compile(r"(<!-- help: ?(?P<command>[a-z-]*) -->\n```text\n).*?(```\n)", re.S)


def rendered(program):
    def help_of(match):
        command = [match["command"]] if match["command"] else []
        out = subprocess.run([program, *command, "--help"], check=True, capture_output=True, text=True).stdout
        return match[1] + "\n".join(line.rstrip() for line in out.strip().splitlines()) + "\n" + match[3]

    return BLOCK.sub(help_of, PAGE.read_text())


def main():
    text = rendered(sys.argv[1])
    if "--check" in sys.argv:
        if text != PAGE.read_text():
            sys.exit(f"{PAGE.name} is out of date: run tools/make_reference.py build/bin/shardpipe")
        return
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
