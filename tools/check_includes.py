"""Checks the structure of the sources: who includes whom, who may know of ranks, and how long files get.

    python tools/check_includes.py [ROOT]

Prints one line a violation (file:line: what) and exits with status 1 if there is any.
"""

import re
import sys
from pathlib import Path

# Folder of src/ -> folders it may include. Everyone may include itself, base and the public headers of EVERYONE.
MAY_INCLUDE = {
    "base": (),
    "mesh": (),
    "schedule": (),
    "text": (),
    "graph": (),
    "kernels": ("graph",),
    "checkpoint": ("graph",),
    "frontend/trace": ("graph", "checkpoint"),
    "frontend/pt2": ("graph", "checkpoint"),
    "frontend/hf": ("frontend/trace", "graph", "kernels", "checkpoint"),
    "partition": ("graph", "mesh"),
    "tensor": ("graph", "mesh"),
    "plan": ("partition", "tensor", "schedule", "mesh", "graph", "kernels"),
    "comm": ("mesh",),
    "runtime": ("plan", "tensor", "graph", "kernels", "checkpoint", "comm", "schedule", "mesh"),
    "generate": ("runtime", "plan", "text", "checkpoint", "graph", "kernels", "schedule", "mesh"),
    "train": ("runtime", "plan", "text", "checkpoint", "graph", "kernels", "schedule", "mesh"),
}
MAY_INCLUDE["api"] = tuple(MAY_INCLUDE)

EVERYONE = {"shardpipe/error.h", "shardpipe/export.h", "shardpipe/options.h", "shardpipe/version.h"}
WITHOUT_TORCH = {"base", "mesh", "schedule", "text"}
WITHOUT_RANKS = {"graph", "kernels", "checkpoint", "frontend/trace", "frontend/pt2", "frontend/hf", "partition", "tensor"}
MAY_USE_C10D = ("src/comm/", "tests/comm/", "tests/multiprocess/", "tests/support/", "bench/micro/")
TOP_FOLDERS = ("src", "include", "apps", "bench", "examples", "tests", "tools", "cmake")
FORBIDDEN_FOLDERS = {"common", "utils"}
MAX_LINES = 450
MAX_TEST_LINES = 800  # lists of cases

CPP = {".h", ".cpp", ".inc", ".cu", ".cuh"}
COUNTED = CPP | {".py", ".sh", ".cmake"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
TORCH = re.compile(r"^(torch|ATen|c10|caffe2)/")
C10D = re.compile(r"^(torch/csrc/distributed|c10d|gloo)/")
# The rank of a process and the size of the world, in any spelling; the rank of a tensor and the kind of an error are
# something else.
RANK = re.compile(r"\b(\w*_)?rank_?\b|\bworld_?size_?\b|\b[gs]et_?rank\b", re.IGNORECASE)
OTHER_RANK = re.compile(r"^(\w*(tensor|matrix|low|input|per)_rank_?|throw_rank)$")
COMMENT_OR_TEXT = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"', re.DOTALL)


def without_comments(text: str) -> str:
    """The code alone, on the same lines."""
    return COMMENT_OR_TEXT.sub(lambda match: '""' + "\n" * match.group().count("\n"), text)


def source_folder(path: str) -> str | None:
    """The folder of src/ that `graph/graph.h` or `frontend/hf/llama.h` belongs to."""
    parts = path.split("/")
    name = "/".join(parts[:2]) if parts[0] == "frontend" else parts[0]
    return name if name in MAY_INCLUDE and len(parts) > name.count("/") + 1 else None


class Checker:
    def __init__(self, root: Path):
        self.root = root
        self.violations: list[str] = []

    def report(self, path: str, line: int, what: str) -> None:
        self.violations.append(f"{path}:{line}: {what}")

    def run(self) -> list[str]:
        for top in TOP_FOLDERS:
            for path in sorted((self.root / top).rglob("*")):
                name = path.relative_to(self.root).as_posix()
                if path.is_dir():
                    if path.name in FORBIDDEN_FOLDERS:
                        self.report(name, 1, f"no folder is named '{path.name}': say what its files are for")
                elif path.suffix in COUNTED or path.name == "CMakeLists.txt":
                    self.check_file(path, name)
        return self.violations

    def check_file(self, path: Path, name: str) -> None:
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        limit = MAX_TEST_LINES if name.startswith("tests/") else MAX_LINES
        if lines > limit:
            self.report(name, limit, f"{lines} lines; at most {limit}: one thing a file")
        if path.suffix not in CPP:
            return
        folder = source_folder(name.removeprefix("src/")) if name.startswith("src/") else None
        if name.startswith("src/") and folder is None:
            self.report(name, 1, "is in no folder of the table in tools/check_includes.py")
            return
        for number, line in enumerate(text.split("\n"), 1):
            match = INCLUDE.match(line)
            if match:
                self.check_include(path, name, folder, number, match.group(2))
        if folder in WITHOUT_RANKS:
            self.check_ranks(name, text)

    def check_include(self, path: Path, name: str, folder: str | None, line: int, include: str) -> None:
        if C10D.match(include) and not name.startswith(MAY_USE_C10D):
            self.report(name, line, f"includes {include}: only src/comm includes c10d")
        target = self.included_folder(path, include)
        top = name.split("/")[0]
        if folder:
            self.check_source_include(name, folder, line, include, target)
        elif top == "include" and target:
            self.report(name, line, f"includes {include}: public headers include nothing of src/")
        elif top in ("apps", "examples", "bench") and target and not name.startswith("bench/micro/"):
            if top != "apps" or target != "base":
                self.report(name, line, f"includes {include}: {top}/ includes only the public headers shardpipe/*.h")

    def included_folder(self, path: Path, include: str) -> str | None:
        """The folder of src/ that an include of `path` means; None for everything else."""
        beside = (path.parent / include).resolve()
        source = (self.root / "src").resolve()
        if beside.exists():
            return source_folder(beside.relative_to(source).as_posix()) if beside.is_relative_to(source) else None
        return source_folder(include)

    def check_source_include(self, name: str, folder: str, line: int, include: str, target: str | None) -> None:
        if target not in (None, folder, "base") and target not in MAY_INCLUDE[folder]:
            allowed = ", ".join(("base", *MAY_INCLUDE[folder]))
            self.report(name, line, f"includes {include}: {folder} may include only {allowed}")
        if include.startswith("shardpipe/") and include not in EVERYONE and folder != "api":
            allowed = ", ".join(sorted(EVERYONE))
            self.report(name, line, f"includes {include}: only api includes public headers other than {allowed}")
        if folder in WITHOUT_TORCH and TORCH.match(include):
            self.report(name, line, f"includes {include}: {folder} does without torch")

    def check_ranks(self, name: str, text: str) -> None:
        code = without_comments(text).replace("ErrorCode::rank", "")
        for number, line in enumerate(code.split("\n"), 1):
            for match in RANK.finditer(line):
                if not OTHER_RANK.match(match.group()):
                    knowing = "only mesh, schedule, plan, comm, runtime, generate and train know ranks"
                    self.report(name, number, f"names '{match.group()}': {knowing}")


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    violations = Checker(root).run()
    print("\n".join(violations), end="\n" if violations else "")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
