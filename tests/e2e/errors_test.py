"""Bad input: the right exit status, one clear line on standard error, nothing on standard output, nothing left running."""

import json
import os
import pathlib
import re
import shutil
import socket
import struct
import tempfile
import unittest

import torch
from safetensors.torch import load_file, save_file

import shardpipe_cli as cli
from generate_test import tiny


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.root = pathlib.Path(cls.temporary.name)
        cls.good = cls.root / "good"
        tiny("llama").save_pretrained(cls.good)
        cls.gpt2 = cls.root / "gpt2"
        tiny("gpt2").save_pretrained(cls.gpt2)
        cls.ids = cls.root / "ids.safetensors"
        save_file({"input_ids": torch.tensor([[3, 4, 5]])}, cls.ids)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def copy(self, name, **config):
        folder = self.root / name
        shutil.copytree(self.good, folder)
        if config:
            path = folder / "config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
        return folder

    def refuse(self, status, pattern, *arguments, depths=(1, 2), env=None):
        for pp in depths:
            layout = [] if pp == 1 else ["--pp", pp]
            got, out, err, seconds = cli.run(*arguments, *layout, timeout=60, env={**(env or {}), "SHARDPIPE_TEST_MARK": "errors"})
            lines = [line for line in err.splitlines() if line]
            self.assertEqual(got, status, err)
            self.assertEqual(len(lines), 1, err)
            self.assertRegex(lines[0], r"^error\[[a-z]+\]: ")
            self.assertRegex(lines[0], pattern)
            self.assertEqual(out, "")
            self.assertLess(seconds, 20)
            self.assertEqual(cli.processes_of("SHARDPIPE_TEST_MARK=errors"), [])

    def generate(self, model, *arguments):
        return ["generate", "--model", model, "--input-ids", self.ids, "--max-new-tokens", 4, *arguments]

    def test_folders(self):
        self.refuse(2, r"nowhere.*hint", *self.generate(self.root / "nowhere"))
        self.refuse(2, r"config\.json", *self.generate(self.root))
        self.refuse(2, r"ids\.safetensors", *self.generate(self.ids))
        empty = self.copy("no-weights")
        (empty / "model.safetensors").unlink()
        self.refuse(3, r"model\.safetensors.*model\.safetensors\.index\.json", *self.generate(empty))

    def test_configurations(self):
        self.refuse(2, r"mamba.*gpt2.*llama", *self.generate(self.copy("unknown", model_type="mamba", architectures=["Mamba"])))
        self.refuse(3, r"num_hidden_layers.*-1", *self.generate(self.copy("negative", num_hidden_layers=-1)))
        self.refuse(3, r"num_key_value_heads|num_attention_heads", *self.generate(self.copy("heads", num_key_value_heads=2)))
        broken = self.copy("broken")
        (broken / "config.json").write_text('{"model_type": "llama",')
        self.refuse(3, r"bad JSON.*config\.json", *self.generate(broken))

    def test_weights(self):
        truncated = self.copy("truncated")
        path = truncated / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        self.refuse(3, r"model\.safetensors", *self.generate(truncated))
        hostile = self.copy("hostile")
        header = json.dumps({"model.norm.weight": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}).encode()
        (hostile / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"0000")
        self.refuse(3, r"model\.norm\.weight", *self.generate(hostile))
        huge = self.copy("huge-header")
        (huge / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
        self.refuse(3, r"header", *self.generate(huge))
        missing = self.copy("missing")
        tensors = load_file(missing / "model.safetensors")
        del tensors["model.layers.3.mlp.up_proj.weight"]
        save_file(tensors, missing / "model.safetensors", metadata={"format": "pt"})
        self.refuse(3, r"model\.layers\.3\.mlp\.up_proj\.weight", *self.generate(missing))
        self.refuse(3, r"shape|\[50, 36\]", *self.generate(self.copy("shapes", intermediate_size=52)))

    def test_surplus_weights_are_named_and_ignored(self):
        surplus = self.copy("surplus")
        tensors = load_file(surplus / "model.safetensors")
        save_file({**tensors, "model.extra.weight": torch.zeros(3)}, surplus / "model.safetensors", metadata={"format": "pt"})
        status, _, err, _ = cli.run(*self.generate(surplus, "--pp", 2))
        self.assertEqual(status, 0)
        self.assertEqual(len(err.splitlines()), 1, err)
        self.assertRegex(err, r"warning.*model\.extra\.weight")

    def test_prompts(self):
        save_file({"input_ids": torch.tensor([[3, 101]])}, self.root / "outside.safetensors")
        self.refuse(2, r"101.*0 to 100", "generate", "--model", self.good, "--input-ids", self.root / "outside.safetensors")
        save_file({"input_ids": torch.full((1, 65), 3)}, self.root / "long.safetensors")
        self.refuse(2, r"65 tokens.*64 positions", "generate", "--model", self.good, "--input-ids", self.root / "long.safetensors")
        save_file({"input_ids": torch.full((1, 40), 3)}, self.root / "learned.safetensors")
        self.refuse(2, r"40 tokens and 9 new.*48 positions.*hint", "generate", "--model", self.gpt2, "--input-ids", self.root / "learned.safetensors", "--max-new-tokens", 9)
        save_file({"input_ids": torch.zeros((1, 0), dtype=torch.long)}, self.root / "empty.safetensors")
        self.refuse(2, r"empty", "generate", "--model", self.good, "--input-ids", self.root / "empty.safetensors")
        self.refuse(2, r"empty", "generate", "--model", cli.DEMO_MODEL, "--prompt", "")
        save_file({"input_ids": torch.tensor([[3]], dtype=torch.int32)}, self.root / "int32.safetensors")
        self.refuse(3, r"input_ids", "generate", "--model", self.good, "--input-ids", self.root / "int32.safetensors")
        save_file({"input_ids": torch.tensor([3])}, self.root / "flat.safetensors")
        self.refuse(3, r"must be \[rows, length\]", "generate", "--model", self.good, "--input-ids", self.root / "flat.safetensors")
        save_file({"input_ids": torch.tensor([[3]]), "attention_mask": torch.ones(2, 1)}, self.root / "mask.safetensors")
        self.refuse(3, r"attention_mask", "generate", "--model", self.good, "--input-ids", self.root / "mask.safetensors")
        self.refuse(2, r"tokenizer\.json.*hint", "generate", "--model", self.good, "--prompt", "hi")
        self.refuse(2, r"0 of --prompt", "generate", "--model", self.good)
        self.refuse(2, r"2 of --prompt", *self.generate(cli.DEMO_MODEL, "--prompt", "hi"))
        self.refuse(2, r"--chat needs text", *self.generate(self.good, "--chat"))
        self.refuse(3, r"none\.txt", "generate", "--model", self.good, "--tokenizer", cli.DEMO_MODEL, "--prompts", self.root / "none.txt")
        (self.root / "blank.txt").write_text("")
        self.refuse(2, r"holds no prompt", "generate", "--model", self.good, "--tokenizer", cli.DEMO_MODEL, "--prompts", self.root / "blank.txt")

    def test_layouts(self):
        self.refuse(2, r"6 stages.*5 layers.*hint", *self.generate(self.good, "--pp", 6), depths=(1,))
        self.refuse(2, r"--pp is 0", *self.generate(self.good, "--pp", 0), depths=(1,))
        self.refuse(2, r"layers\.9.*hint.*model\.layers\.", *self.generate(self.good, "--pp", 2, "--cuts", "model.layers.9"), depths=(1,))
        self.refuse(2, r"1 names for 3 stages", *self.generate(self.good, "--pp", 3, "--cuts", "model.layers.1"), depths=(1,))
        self.refuse(2, r"leaves stage 1 without work", *self.generate(self.good, "--cuts", "lm_head"), depths=(2,))
        self.refuse(2, r"--tp is 0", *self.generate(self.good, "--tp", 0), depths=(1,))
        self.refuse(2, r"--dp is -1", *self.generate(self.good, "--dp", -1), depths=(1,))
        self.refuse(3, r"x\.json", *self.generate(self.good, "--tp-plan", "x.json"))
        self.refuse(2, r"--device \"gpu\" is not known", *self.generate(self.good, "--device", "gpu"))
        self.refuse(2, r"--transport is \"tcp\", must be auto", *self.generate(self.good, "--transport", "tcp"))
        self.refuse(2, r"--dtype \"int8\"", *self.generate(self.good, "--dtype", "int8"))
        self.refuse(2, r"--split \"odd\"", *self.generate(self.good, "--split", "odd"))
        self.refuse(2, r"--schedule \"gpipe\" is not known.*fill-drain, 1f1b", *self.generate(self.good, "--schedule", "gpipe"))
        self.refuse(2, r"schedule 1f1b has one stage a rank", *self.generate(self.good, "--schedule", "1f1b", "--virtual", 2))
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "order.csv"
            self.refuse(3, r"cannot open .*order.csv", *self.generate(self.good, "--schedule", file))
            file.write_text("0F0,0B0\n1F0,1B0\n")
            self.refuse(
                2, r"order.csv has 2 stages on 2 ranks, --pp 1 --virtual 2 is 2 stages on 1 ranks.*--pp 2",
                *self.generate(self.good, "--schedule", file), depths=(1,))
            file.write_text("0F0\n1Q0\n")
            self.refuse(3, r"\"1Q0\" is not an action", *self.generate(self.good, "--schedule", file), depths=(2,))
        self.refuse(2, r"--kernels \"mine\"", *self.generate(self.good, "--kernels", "mine"))
        self.refuse(2, r"--timeout is 0", *self.generate(self.good, "--timeout", 0))
        self.refuse(2, r"--max-new-tokens is 0", "generate", "--model", self.good, "--input-ids", self.ids, "--max-new-tokens", 0)

    def test_what_follows_in_a_later_version(self):
        for option, value in (("--num-beams", 4), ("--do-sample", None), ("--num-return-sequences", 2),
                              ("--no-repeat-ngram-size", 3), ("--repetition-penalty", 1.2)):
            arguments = [option] if value is None else [option, value]
            self.refuse(2, r"not in this version.*hint", *self.generate(self.good, *arguments))
        folder = self.copy("beams")
        (folder / "generation_config.json").write_text('{"num_beams": 4}')
        self.refuse(2, r"num_beams = 4.*generation_config\.json", *self.generate(folder))

    def test_command_lines(self):
        self.refuse(2, r"hint: see shardpipe --help", depths=(1,))
        self.refuse(2, r"nonsense", "generate", "--model", self.good, "--nonsense", depths=(1,))
        self.refuse(2, r"--model", "generate", "--prompt", "x", depths=(1,))
        self.refuse(2, r"needs a program", "launch", "--nproc", 2, depths=(1,))
        self.refuse(2, r"no-such-program", "launch", "--nproc", 2, "--", "./no-such-program", depths=(1,))
        self.refuse(2, r"--chunks", *self.generate(self.good, "--chunks", 0), depths=(1,))
        config = self.root / "options.json"
        config.write_text('{"ppp": 2}')
        self.refuse(2, r"\"ppp\" in .*options\.json", *self.generate(self.good, "--config", config), depths=(1,))
        config.write_text('[1]')
        self.refuse(3, r"one JSON object", *self.generate(self.good, "--config", config), depths=(1,))
        config.write_text('{"pp": {}}')
        self.refuse(3, r"\"pp\" in", *self.generate(self.good, "--config", config), depths=(1,))
        self.refuse(3, r"none\.json", *self.generate(self.good, "--config", self.root / "none.json"), depths=(1,))

    def test_ranks_that_do_not_fit(self):
        port = free_port()
        lone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.refuse(2, r"2 ranks, this job has 1", *self.generate(self.good), env=lone, depths=(2,))
        self.refuse(2, r"WORLD_SIZE", *self.generate(self.good), env={**lone, "WORLD_SIZE": "two"}, depths=(1,))

    def test_busy_port(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.refuse(
                4, rf"127\.0\.0\.1:{port}", "launch", "--nproc", 2, "--master", f"127.0.0.1:{port}", "--", cli.PROGRAM,
                *self.generate(self.good, "--pp", 2), depths=(1,))

    def test_chunks_above_the_prompts_are_lowered_with_a_warning(self):
        status, _, err, _ = cli.run(*self.generate(self.good, "--pp", 2, "--chunks", 3))
        self.assertEqual(status, 0, err)
        self.assertEqual(len(err.splitlines()), 1, err)
        self.assertRegex(err, r"warning.*--chunks 3 lowered to 1")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


if __name__ == "__main__":
    unittest.main(verbosity=2)
