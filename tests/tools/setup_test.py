"""What tools/setup.sh decides, on made-up machines: PATH holds stubs that write down how they were called."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COREUTILS = "awk basename bash cat dirname env flock grep head mkdir rm sed sha256sum sort touch".split()
COMMANDS = "g++ ninja ccache mold clang-format clang-tidy".split()
MODULES = "libpcre2-8 libutf8proc nlohmann_json fmt CLI11 gtest gmock benchmark"

# Plays pip for one virtual environment: fails while the file `broken` exists, and reports what `report` holds.
VENV_PYTHON = """#!/bin/bash
if [ "$1 $2" = "-m pip" ]; then
  [ "$3" = --version ] && exit 0
  case "$*" in *--dry-run*) cat "$MACHINE/report"; exit ;; esac
  echo "pip ${*:3}" >>"$MACHINE/calls"
  [ ! -e "$MACHINE/broken" ]
elif [[ "$1" == tools/make_*_model.py ]]; then
  basename "$1" .py >>"$MACHINE/calls"
else
  exec PYTHON "$@"
fi
"""


class Machine:
    def __init__(self, folder: str):
        self.folder = Path(folder)
        self.bin = self.folder / "bin"
        self.repository = self.folder / "repository"
        self.bin.mkdir()
        shutil.copytree(ROOT / "tools", self.repository / "tools", ignore=shutil.ignore_patterns("__pycache__"))
        for name in COREUTILS:
            (self.bin / name).symlink_to(shutil.which(name))
        (self.folder / "venv_python").write_text(VENV_PYTHON.replace("PYTHON", sys.executable))
        (self.folder / "venv_python").chmod(0o755)
        (self.folder / "report").write_text('{"install": [{"metadata": {"name": "torch"}}]}')
        self.stub("id", "echo ${STUB_UID:-1000}")
        self.stub(
            "python3",
            'if [ "$1 $2" = "-m venv" ]; then echo "venv $3" >>"$MACHINE/calls"; mkdir -p "$3/bin"; cp() { cat "$1" >"$2"; }; '
            'cp "$MACHINE/venv_python" "$3/bin/python"; ' + shutil.which("chmod") + ' +x "$3/bin/python"; fi',
        )

    def stub(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)

    def install_everything(self) -> None:
        for name in COMMANDS:
            self.stub(name, "")
        self.stub("cmake", "echo cmake version 3.25.1")
        self.stub("pkg-config", f'case " {MODULES} " in *" $2 "*) exit 0 ;; esac; exit 1')

    def fake_torch(self) -> str:
        library = self.folder / "torch/lib/libtorch_cpu.so"
        library.parent.mkdir(parents=True)
        library.touch()
        return str(self.folder / "torch")

    def setup(self, *groups: str, **environment: str) -> subprocess.CompletedProcess:
        variables = {"PATH": str(self.bin), "MACHINE": str(self.folder), "HOME": str(self.folder), **environment}
        return subprocess.run(
            [self.repository / "tools/setup.sh", *groups],
            env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip

    def calls(self) -> list[str]:
        """What was called since the last question."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


class SetupTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.machine = Machine(folder.name)

    def done(self, result: subprocess.CompletedProcess) -> str:
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stderr

    def refused(self, result: subprocess.CompletedProcess, *parts: str) -> str:
        self.assertEqual(result.returncode, 1, result.stderr)
        for part in parts:
            self.assertIn(part, result.stderr)
        return result.stderr


class SystemPackagesTest(SetupTest):
    NAMES = (
        "g++ cmake ninja-build pkg-config libpcre2-dev libutf8proc-dev nlohmann-json3-dev libfmt-dev libcli11-dev "
        "libgtest-dev libgmock-dev libbenchmark-dev"
    )

    def test_no_root_and_no_sudo_lists_what_is_missing(self):
        self.machine.stub("apt-get", 'echo "apt-get $*" >>"$MACHINE/calls"')
        error = self.refused(self.machine.setup(), f"apt-get install {self.NAMES}", "cannot be installed from here")
        self.assertEqual(error.count("apt-get install"), 1)
        self.assertNotIn("clang-tidy", error)
        self.assertNotIn("ccache", error)
        self.assertEqual(self.machine.calls(), [])
        self.refused(self.machine.setup("lint"), "clang-format clang-tidy")

    def test_any_browser_will_do(self):
        self.machine.install_everything()
        torch = self.machine.fake_torch()
        self.refused(self.machine.setup("browser", TORCH_DIR=torch), "apt-get install chromium\n")
        self.machine.stub("google-chrome", "")
        self.assertEqual(self.done(self.machine.setup("browser", TORCH_DIR=torch)), "")

    def test_the_tests_of_several_hosts_need_a_launcher_and_interfaces(self):
        self.machine.install_everything()
        torch = self.machine.fake_torch()
        self.refused(self.machine.setup("hosts", TORCH_DIR=torch), "apt-get install openmpi-bin iproute2 util-linux\n")
        for name in ("mpirun", "ip", "nsenter"):
            self.machine.stub(name, "")
        self.assertEqual(self.done(self.machine.setup("hosts", TORCH_DIR=torch)), "")

    def test_no_apt_lists_what_is_missing(self):
        self.refused(self.machine.setup(STUB_UID="0"), f"apt-get install {self.NAMES}")

    def test_sudo_that_asks_for_a_password_is_not_started_without_terminal(self):
        self.machine.stub("apt-get", 'echo "apt-get $*" >>"$MACHINE/calls"')
        self.machine.stub("sudo", '[ "$1" != -n ] && echo "sudo $*" >>"$MACHINE/calls"; exit 1')
        self.refused(self.machine.setup(), "cannot be installed from here")
        self.assertEqual(self.machine.calls(), [])

    def apt_that_installs(self) -> None:
        self.machine.install_everything()
        for name in ("ninja", "mold"):
            (self.machine.bin / name).rename(self.machine.folder / name)
        self.machine.stub(
            "apt-get",
            'echo "apt-get $*" >>"$MACHINE/calls"\n'
            'case "$*" in *-s*) exit ;; *ninja-build) f=ninja ;; *mold) f=mold ;; esac\n'
            'cat "$MACHINE/$f" >"$MACHINE/bin/$f"; ' + shutil.which("chmod") + ' +x "$MACHINE/bin/$f"',
        )

    def test_root_installs_what_is_missing_and_nothing_else(self):
        self.apt_that_installs()
        torch = self.machine.fake_torch()
        self.done(self.machine.setup(STUB_UID="0", TORCH_DIR=torch))
        installs = [call for call in self.machine.calls() if " -s " not in call]
        self.assertEqual([call.split()[-1] for call in installs], ["ninja-build", "mold"])
        self.assertEqual(self.done(self.machine.setup(STUB_UID="0", TORCH_DIR=torch)), "")
        self.assertEqual(self.machine.calls(), [])

    def test_what_only_the_fuzz_targets_use_is_not_required(self):
        self.apt_that_installs()
        self.done(self.machine.setup("fuzz", STUB_UID="0", TORCH_DIR=self.machine.fake_torch()))
        installs = [call for call in self.machine.calls() if " -s " not in call]
        names = ["ninja-build", "mold", "clang", "libclang-rt-dev"]
        self.assertEqual([call.split()[-1] for call in installs], names)

    def test_sudo_is_used_where_it_needs_no_password(self):
        self.apt_that_installs()
        self.machine.stub("sudo", 'echo "sudo $*" >>"$MACHINE/calls"; [ "$1" = -n ] || exec "$@"')
        self.done(self.machine.setup(TORCH_DIR=self.machine.fake_torch()))
        self.assertTrue(any(call.startswith("sudo env") and "ninja-build" in call for call in self.machine.calls()))

    def test_stale_package_lists_are_updated(self):
        self.apt_that_installs()
        apt = (self.machine.bin / "apt-get").read_text().replace("*-s*) exit ;;", "*-s*) exit 1 ;; *update*) exit ;;")
        self.machine.stub("apt-get", apt)
        self.done(self.machine.setup(STUB_UID="0", TORCH_DIR=self.machine.fake_torch()))
        self.assertIn("apt-get update -q", self.machine.calls())

    def test_what_only_makes_builds_faster_is_not_required(self):
        self.machine.install_everything()
        (self.machine.bin / "ccache").unlink()
        self.assertEqual(self.done(self.machine.setup(TORCH_DIR=self.machine.fake_torch())), "")

    def test_old_cmake(self):
        self.machine.install_everything()
        self.machine.stub("cmake", "echo cmake version 3.22.1")
        self.refused(self.machine.setup(TORCH_DIR=self.machine.fake_torch()), "cmake 3.25 or newer is needed, this is 3.22.1")

    def test_torch_dir_without_torch(self):
        self.machine.install_everything()
        self.refused(self.machine.setup(TORCH_DIR="/nowhere"), "TORCH_DIR=/nowhere has no lib/libtorch_cpu.so")

    def test_unknown_group(self):
        self.refused(self.machine.setup("everything"), "unknown group 'everything'")


class PythonPackagesTest(SetupTest):
    def setUp(self):
        super().setUp()
        self.machine.install_everything()

    def test_build_installs_torch_alone_once(self):
        self.done(self.machine.setup())
        self.assertEqual([call.split(" ")[0] for call in self.machine.calls()], ["venv", "pip"])
        self.assertEqual(self.done(self.machine.setup("build")), "")
        self.assertEqual(self.machine.calls(), [])

    def test_demo_installs_the_rest_once(self):
        self.done(self.machine.setup("build", "python", "model"))
        lists = [call.split("requirements-")[1] for call in self.machine.calls() if "requirements-" in call]
        self.assertEqual(lists, ["torch.txt", "python.txt", "model.txt"])
        self.assertEqual(self.done(self.machine.setup("build", "python", "model")), "")
        self.assertEqual(self.machine.calls(), ["make_demo_model"])

    def test_the_tests_need_a_model_more(self):
        self.done(self.machine.setup("build", "python", "sentences"))
        lists = [call.split("requirements-")[1] for call in self.machine.calls() if "requirements-" in call]
        self.assertEqual(lists, ["torch.txt", "python.txt", "sentences.txt"])
        self.assertEqual(self.done(self.machine.setup("sentences")), "")
        self.assertEqual(self.machine.calls(), ["make_sentence_model"])

    def test_a_changed_list_is_installed_again(self):
        self.done(self.machine.setup("python"))
        self.machine.calls()
        with open(self.machine.repository / "tools/requirements-python.txt", "a") as file:
            file.write("another==1\n")
        self.done(self.machine.setup("python"))
        self.assertEqual(len(self.machine.calls()), 1)

    def test_an_interrupted_installation_is_done_again(self):
        (self.machine.folder / "broken").touch()
        self.refused(self.machine.setup(), "pip could not install tools/requirements-torch.txt")
        (self.machine.folder / "broken").unlink()
        self.machine.calls()
        self.done(self.machine.setup())
        self.assertIn("--ignore-installed", self.machine.calls()[0])

    def test_an_index_for_torch_serves_torch_alone(self):
        self.done(self.machine.setup("python", TORCH_INDEX_URL="https://example.invalid/cpu"))
        pips = [call for call in self.machine.calls() if call.startswith("pip")]
        self.assertEqual(len(pips), 3)
        self.assertTrue(pips[0].endswith("--index-url https://example.invalid/cpu --no-deps torch==2.13.0"), pips[0])
        self.assertNotIn("--index-url", pips[1] + pips[2])
        self.assertNotIn("--ignore-installed", pips[1])

    def test_a_cuda_build_is_announced(self):
        self.assertNotIn("NOTE", self.done(self.machine.setup(VENV=str(self.machine.folder / "a"))))
        report = '"metadata": {\n "name": "torch"\n}\n"metadata": {\n "name": "nvidia-cublas"\n}\n'
        (self.machine.folder / "report").write_text(report)
        text = self.done(self.machine.setup(VENV=str(self.machine.folder / "b")))
        self.assertIn("CUDA build of torch: 1 nvidia packages", text)
        self.assertIn("TORCH_INDEX_URL", text)
        (self.machine.folder / "report").write_text("no report")
        self.assertNotIn("NOTE", self.done(self.machine.setup(VENV=str(self.machine.folder / "c"))))

    def test_a_users_environment_is_used_as_it_is(self):
        venv = self.machine.folder / "mine"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin/python").symlink_to(self.machine.folder / "venv_python")
        (venv / "keep").touch()
        self.done(self.machine.setup(VENV=str(venv)))
        self.assertFalse(any(call.startswith("venv") for call in self.machine.calls()))
        self.assertTrue((venv / "keep").exists())

    def test_half_made_environment_is_made_anew(self):
        leftover = self.machine.repository / ".venv/lib/half"
        leftover.mkdir(parents=True)
        self.done(self.machine.setup())
        self.assertFalse(leftover.exists())

    def test_an_installed_torch_needs_no_python(self):
        self.done(self.machine.setup(TORCH_DIR=self.machine.fake_torch()))
        self.assertEqual(self.machine.calls(), [])


if __name__ == "__main__":
    unittest.main()
