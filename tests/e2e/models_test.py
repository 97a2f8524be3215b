"""`shardpipe run` on exports of many kinds of models: outputs and gradients of every layout equal Python's on the same
microbatches, bit for bit."""

import unittest

import shardpipe_cli as cli
from exported import ExportedTest
from exported_models import CASES

# Each depth and each number of microbatches; some models, and the soak, see all of their pairs.
SPREAD = ((1, 1, "even"), (1, 5, "even"), (2, 3, "even"), (3, 1, "balanced"), (3, 5, "balanced"), (4, 3, "balanced"))
ALL = [(pp, chunks, "even" if pp < 3 else "balanced") for pp in (1, 2, 3, 4) for chunks in (1, 3, 5)]
IN_ALL_LAYOUTS = ("tied", "cond")


class Models(ExportedTest):
    MODELS = tuple(CASES)

    def test_every_layout(self):
        for name in self.MODELS:
            for pp, chunks, split in ALL if name in IN_ALL_LAYOUTS or cli.SCALE > 1 else SPREAD:
                with self.subTest(model=name, pp=pp, chunks=chunks, split=split):
                    self.compare(name, pp, chunks, split)

    def test_several_stages_a_rank(self):
        for name in self.MODELS:
            with self.subTest(model=name):
                self.compare(name, 2, 3, "balanced", virtual=2)

    def test_forward_alone(self):
        """What LibTorch computes without gradients may differ in the last bits: both sides without."""
        for name in self.MODELS:
            with self.subTest(model=name):
                self.shardpipe(name, "--pp", 2, "--chunks", 3, "--kernels", "reference")
                self.compare_outputs(name, 3, self.parts(name, 3))


if __name__ == "__main__":
    unittest.main()
