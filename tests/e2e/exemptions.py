"""The short list of what a machine may refuse without failing the tests: each says why and what is tested without it.
SHARDPIPE_NO_EXEMPTIONS, which .ci/run sets, allows none."""

import os
import sys

ALLOWED = {
    "namespaces": "two hosts are made of namespaces of one machine, which needs root or CAP_SYS_ADMIN; without them launchers run on one host only",
}


def exempt(name, reason):
    if os.environ.get("SHARDPIPE_NO_EXEMPTIONS"):
        raise RuntimeError(f"no exemption is allowed here, not {name!r} either: {reason}")
    print(f"EXEMPT {name}: {ALLOWED[name]} ({reason})", file=sys.stderr)
