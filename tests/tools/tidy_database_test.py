"""tools/tidy_database.py: the command that clang-tidy sees."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from tidy_database import clang_command  # noqa: E402


class TidyDatabaseTest(unittest.TestCase):
    def test_launcher_and_precompiled_header_go(self):
        command = (
            "cmake -E env CCACHE_SLOPPINESS=a,b /usr/bin/ccache /usr/bin/c++ -DX='\"a b\"' -Winvalid-pch -fpch-preprocess "
            "-include /b/cmake_pch.hxx -include other.h -c a.cpp"
        )
        self.assertEqual(clang_command(command), "/usr/bin/c++ '-DX=\"a b\"' -include other.h -c a.cpp")

    def test_a_plain_command_stays(self):
        self.assertEqual(clang_command("/usr/bin/g++-12 -O2 -c a.cpp -o a.o"), "/usr/bin/g++-12 -O2 -c a.cpp -o a.o")


if __name__ == "__main__":
    unittest.main()
