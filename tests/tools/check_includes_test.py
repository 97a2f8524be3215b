"""tools/check_includes.py on small trees, each with one thing wrong, and on this repository."""

import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from check_includes import MAY_INCLUDE, Checker  # noqa: E402


def violations(files: dict[str, str]) -> list[str]:
    with tempfile.TemporaryDirectory() as root:
        for name, text in files.items():
            path = Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Checker(Path(root)).run()


class CheckIncludesTest(unittest.TestCase):
    def accepts(self, name: str, text: str) -> None:
        self.assertEqual(violations({name: text}), [])

    def refuses(self, name: str, text: str, *parts: str, line: int = 1) -> None:
        found = violations({name: text})
        self.assertEqual(len(found), 1, found)
        self.assertTrue(found[0].startswith(f"{name}:{line}: "), found[0])
        for part in parts:
            self.assertIn(part, found[0])

    def test_the_table_has_no_cycle(self):
        done: set[str] = set()
        while len(done) < len(MAY_INCLUDE):
            ready = {folder for folder, others in MAY_INCLUDE.items() if folder not in done and done.issuperset(others)}
            self.assertTrue(ready, f"cycle among {set(MAY_INCLUDE) - done}")
            done |= ready

    def test_direction_within_src(self):
        self.accepts("src/runtime/a.cpp", '#include "runtime/a.h"\n#include "base/error.h"\n#include "comm/b.h"\n')
        self.accepts("src/frontend/hf/a.cpp", '#include "frontend/trace/b.h"\n#include "frontend/hf/c.h"\n')
        self.refuses("src/graph/a.cpp", '\n#include "kernels/a.h"\n', "kernels/a.h", "graph may include only base", line=2)
        self.refuses("src/frontend/trace/a.cpp", '#include "frontend/hf/b.h"\n', "frontend/trace may include only")
        self.refuses("src/partition/a.h", '#  include <tensor/b.h>\n', "tensor/b.h")
        self.refuses("src/base/a.h", '#include "mesh/b.h"\n', "base may include only base")

    def test_relative_includes_do_not_hide_the_folder(self):
        found = violations({"src/graph/a.cpp": '#include "../plan/b.h"\n', "src/plan/b.h": ""})
        self.assertEqual(len(found), 1)
        self.assertIn("graph may include only", found[0])

    def test_every_source_is_in_a_folder_of_the_table(self):
        self.refuses("src/misc/a.cpp", "", "in no folder of the table")
        self.refuses("src/a.cpp", "", "in no folder of the table")

    def test_public_headers(self):
        self.accepts("src/graph/a.cpp", '#include "shardpipe/error.h"\n')
        self.accepts("src/api/a.cpp", '#include "shardpipe/model.h"\n')
        self.accepts("include/shardpipe/model.h", '#include "shardpipe/error.h"\n#include <ATen/ATen.h>\n')
        self.refuses("src/runtime/a.cpp", '#include "shardpipe/model.h"\n', "only api includes public headers")
        self.refuses("include/shardpipe/model.h", '#include "graph/graph.h"\n', "public headers include nothing of src/")

    def test_outside_of_src(self):
        self.accepts("apps/cli/a.cpp", '#include "shardpipe/model.h"\n#include "base/json.h"\n#include "cli/b.h"\n')
        self.accepts("bench/micro/a.cpp", '#include "kernels/linear.h"\n')
        self.accepts("tests/graph/a_test.cpp", '#include "frontend/hf/a.h"\n')
        self.refuses("apps/cli/a.cpp", '#include "graph/graph.h"\n', "only the public headers")
        self.refuses("bench/a.cpp", '#include "base/json.h"\n', "only the public headers")
        self.refuses("examples/x/main.cpp", '#include "base/error.h"\n', "only the public headers")

    def test_torch_and_c10d(self):
        self.accepts("src/comm/a.cpp", "#include <torch/csrc/distributed/c10d/TCPStore.hpp>\n")
        self.accepts("src/graph/a.cpp", "#include <ATen/ATen.h>\n")
        self.refuses("src/runtime/a.cpp", "#include <torch/csrc/distributed/c10d/Store.hpp>\n", "only src/comm includes c10d")
        self.refuses("include/shardpipe/a.h", "#include <torch/csrc/distributed/c10d/Store.hpp>\n", "only src/comm")
        for folder in ("base", "mesh", "schedule", "text"):
            self.refuses(f"src/{folder}/a.cpp", "#include <c10/util/Exception.h>\n", f"{folder} does without torch")

    def test_who_knows_ranks(self):
        self.accepts("src/runtime/a.cpp", "int rank = world_size - 1;\n")
        self.accepts("src/graph/a.cpp", '// a rank\n/* world_size\n */ int tensor_rank = f("rank"); throw_rank(ErrorCode::rank);\n')
        self.refuses("src/graph/a.cpp", "\nint f(int rank);\n", "'rank'", line=2)
        self.refuses("src/kernels/a.cpp", "/* one\ntwo */ int world_size_;\n", "'world_size_'", line=2)
        self.refuses("src/partition/a.cpp", "auto r = group->getRank();\n", "'getRank'")
        self.refuses("src/frontend/hf/a.cpp", "int local_rank = 0;\n", "'local_rank'")

    def test_length_and_names(self):
        self.accepts("src/base/a.cpp", "\n" * 450)
        self.refuses("tools/a.py", "\n" * 451, "451 lines; at most 450", line=450)
        found = violations({"tests/common/a.txt": ""})
        self.assertEqual(found, ["tests/common:1: no folder is named 'common': say what its files are for"])

    def test_this_repository(self):
        self.assertEqual(Checker(ROOT).run(), [])


if __name__ == "__main__":
    unittest.main()
