"""tools/tidy_database.py: the command that clang-tidy sees."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from tidy_database import PCH_HEADER, clang_command  # noqa: E402


class TidyDatabaseTest(unittest.TestCase):
    def test_the_precompiled_header_is_included_as_text(self):
        command = "/usr/bin/c++ -DX='\"a b\"' -Winvalid-pch -fpch-preprocess -include /b/cmake_pch.hxx -include other.h -c a.cpp"
        expected = f"/usr/bin/c++ -Wno-unknown-warning-option '-DX=\"a b\"' -include {PCH_HEADER} -include other.h -c a.cpp"
        self.assertEqual(clang_command(command), expected)
        self.assertTrue(PCH_HEADER.is_file())

    def test_a_plain_command_stays(self):
        self.assertEqual(clang_command("g++-12 -O2 -c a.cpp"), "g++-12 -Wno-unknown-warning-option -O2 -c a.cpp")


if __name__ == "__main__":
    unittest.main()
