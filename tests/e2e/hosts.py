"""Two hosts made of namespaces of this machine, joined by a pair of virtual interfaces. Nothing of them has a name outside:
when their first processes end, which is when this process does, the kernel ends all that run there and removes the rest."""

import ctypes
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import uuid

ADDRESSES = ("10.231.77.1", "10.231.77.2")
NAMES = ("sphost1", "sphost2")

# What the two have of their own. `network`: nothing else, as two containers in one pod of processes; they still see each
# other's processes and can share memory. `container`: also processes, files and a name: memory cannot be mapped.
# `host`: also the number that tells one machine's starts apart, so that nobody tries.
KINDS = {
    "network": ("--net",),
    "container": ("--net", "--mount", "--uts", "--ipc", "--pid"),
    "host": ("--net", "--mount", "--uts", "--ipc", "--pid"),
}


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Host:
    """`name` resolves on both of them, `first`: the process that keeps the namespaces."""

    def __init__(self, kind, number, folder):
        self.kind, self.name, self.address = kind, NAMES[number], ADDRESSES[number]
        setup = "ip link set lo up"
        if kind != "network":
            (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for a, n in zip(ADDRESSES, NAMES)))
            setup += f"; hostname {self.name}; mount --bind {folder}/hosts /etc/hosts; mount -t tmpfs tmpfs /dev/shm"
        if kind == "host":
            (folder / self.name).write_text(f"{uuid.uuid4()}\n")
            setup += f"; mount --bind {folder}/{self.name} /proc/sys/kernel/random/boot_id"
        fork = ["--fork", "--kill-child", "--mount-proc"] if "--pid" in KINDS[kind] else []
        self.holder = subprocess.Popen(
            ["unshare", *KINDS[kind], *fork, "sh", "-ec", f"{setup}; echo ready; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        if self.holder.stdout.readline() != "ready\n":
            self.holder.stdin.close()
            raise OSError(self.holder.stderr.read().strip() or "unshare failed")
        pid = self.holder.pid
        self.first = int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()) if fork else pid

    def close(self):
        self.holder.stdin.close()
        self.holder.wait(20)
        self.holder.stdout.close()
        self.holder.stderr.close()

    def command(self, *command):
        return ["nsenter", "--target", str(self.first), *KINDS[self.kind], "--wd=/", "--", *map(str, command)]

    def start(self, *command, env=None):
        return subprocess.Popen(
            self.command(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", env={**os.environ, **(env or {})}, preexec_fn=die_with_parent)

    def call(self, *command):
        subprocess.run(self.command(*command), check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)


class TwoHosts:
    """Iterates over its hosts. Raises OSError or CalledProcessError where the machine forbids them."""

    def __init__(self, kind):
        self.folder = tempfile.TemporaryDirectory(prefix="shardpipe-hosts-")
        self.hosts = []
        self.server = None  # something that a test runs on one of them all the time
        try:
            for number in range(2):
                self.hosts.append(Host(kind, number, pathlib.Path(self.folder.name)))
            link = ["ip", "link", "add", "link0", "type", "veth", "peer", "name", "link0", "netns", str(self.hosts[1].first)]
            subprocess.run(
                ["nsenter", "--target", str(self.hosts[0].first), "--net", *link], check=True, capture_output=True, text=True)
            for host in self.hosts:
                host.call("ip", "address", "add", f"{host.address}/24", "dev", "link0")
                self.link("up", host)
        except BaseException:
            self.close()
            raise

    def link(self, state, host):
        host.call("ip", "link", "set", "link0", state)

    def close(self):
        for host in self.hosts:
            host.close()
        if self.server:
            self.server.communicate(timeout=20)
        self.folder.cleanup()

    def __iter__(self):
        return iter(self.hosts)

    def __getitem__(self, number):
        return self.hosts[number]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def ends(process, limit):
    """(status, stdout, stderr) of a process; TimeoutExpired kills it."""
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def wait_until(condition, limit):
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
