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

    def test_every_schedule(self):
        """The order of the work, and a backward in two parts, change no bit."""
        layouts = (("1f1b", 3, 1, 5), ("zb-h1", 3, 1, 5), ("interleaved", 2, 2, 4), ("looped-bfs", 2, 2, 5), ("zb-v", 2, 2, 5))
        for name in self.MODELS if cli.SCALE > 1 else ("mlp", "tied", "cnn_train", "unet", "t5"):
            for schedule, pp, virtual, chunks in layouts:
                with self.subTest(model=name, schedule=schedule):
                    self.compare(name, pp, chunks, "balanced", virtual, schedule)

    def test_schedule_of_a_file(self):
        """Compute-only, two stages on the first rank; then the same with messages, as torch.distributed.pipelining has them."""
        file = self.root / "schedule.csv"
        for text in (
            "0F0,1F0,0F1,1F1,1B0,0B0,1B1,0B1\n2F0,2F1,3F0,3B0,2B0,3F1,3B1,2B1\n",
            "0F0,1F0,1SEND_F0,0F1,1F1,1SEND_F1,1RECV_B0,1B0,0B0,1RECV_B1,1B1,0B1\n"
            "2RECV_F0,2F0,2RECV_F1,2F1,3F0,3B0,2B0,2SEND_B0,3F1,3B1,2B1,2SEND_B1\n",
        ):
            file.write_text(text)
            with self.subTest(text=text):
                self.compare("mlp", 2, 2, "balanced", 2, file)

    def test_forward_alone(self):
        """What LibTorch computes without gradients may differ in the last bits: both sides without."""
        for name in self.MODELS:
            with self.subTest(model=name):
                self.shardpipe(name, "--pp", 2, "--chunks", 3, "--kernels", "reference")
                self.compare_outputs(name, 3, self.parts(name, 3))


if __name__ == "__main__":
    unittest.main()
