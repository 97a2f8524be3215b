"""T5 through `shardpipe generate`: an encoder and a decoder, cut anywhere, against Hugging Face `generate`."""

import json
import pathlib
import tempfile
import unittest

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

import shardpipe_cli as cli
from generate_test import reference, tiny

transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)
LENGTHS = (9, 1, 40, 17)
NEW = 24


def edit(path, **changes):
    """A JSON file with other values; None takes the key away."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


class T5(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.root = pathlib.Path(cls.scratch.name)
        cls.model = tiny("t5", 5)
        cls.folder = cls.root / "t5"
        cls.model.save_pretrained(cls.folder)
        generator = torch.Generator().manual_seed(2)
        cls.rows = [torch.randint(2, 97, (length,), generator=generator).tolist() for length in LENGTHS]
        ids = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, values in enumerate(cls.rows):
            ids[row, : len(values)] = torch.tensor(values)
            mask[row, : len(values)] = 1
        cls.ids = cls.root / "ids.safetensors"
        save_file({"input_ids": ids, "attention_mask": mask}, cls.ids)
        cls.expected, _ = reference(cls.model, cls.rows, NEW)
        # All rows say different things, and no row one thing.
        assert len({tuple(row) for row in cls.expected}) == len(LENGTHS)
        assert all(len(set(row)) > 2 for row in cls.expected), cls.expected

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def generate(self, *arguments, folder=None, new=NEW):
        length = () if new is None else ("--max-new-tokens", new)
        return cli.generate(folder or self.folder, "--input-ids", self.ids, *length, "--threads", 1, *arguments)

    def copy(self, name, **generation):
        folder = self.root / name
        self.model.save_pretrained(folder)
        edit(folder / "generation_config.json", **generation)
        return folder

    def test_every_layout(self):
        layouts = [("--pp", 1, "--chunks", 3), ("--pp", 2), ("--pp", 3, "--chunks", 4), ("--pp", 4, "--chunks", 1),
                   ("--pp", 5, "--chunks", 2), ("--pp", 2, "--kernels", "reference")]  # fmt: skip
        layouts += [("--pp", pp, "--split", "balanced") for pp in (2, 3, 4)]
        layouts += [("--pp", 3, "--split", "equal_size"), ("--pp", 2, "--split", "balanced", "--profile")]
        layouts += [("--pp", 2, "--virtual", 2), ("--pp", 1, "--virtual", 4, "--chunks", 2)]
        # In the encoder, between the two, in the decoder; inside layers; the encoder over three stages.
        layouts += [("--pp", 2, "--cuts", cut) for cut in (
            "encoder.block.0", "encoder", "decoder.block.0", "<lm_head",
            "encoder.block.1.layer.0", "decoder.block.0.layer.0", "decoder.block.1.layer.1.EncDecAttention.o",
            "<decoder.block.1.layer.1.EncDecAttention")]  # fmt: skip
        layouts += [("--pp", 4, "--cuts", "encoder.block.0,encoder.block.1,encoder", "--chunks", 4)]
        for layout in layouts:
            with self.subTest(layout=layout):
                answer = self.generate(*layout)
                self.assertEqual(cli.token_ids(answer), self.expected)
                self.assertEqual([o["prompt_tokens"] for o in answer["outputs"]], list(LENGTHS))
                self.assertEqual([o["finish_reason"] for o in answer["outputs"]], ["length"] * len(LENGTHS))

    def test_layouts_agree_bitwise(self):
        def logprobs(*layout):
            return [o["logprobs"] for o in self.generate("--logprobs", "--chunks", 2, *layout)["outputs"]]

        whole = logprobs()
        self.assertEqual([len(row) for row in whole], [NEW] * len(LENGTHS))
        self.assertEqual(logprobs("--pp", 2), whole)
        self.assertEqual(logprobs("--pp", 4), whole)
        self.assertEqual(logprobs("--pp", 3, "--cuts", "encoder.block.1.layer.0,decoder.block.0.layer.1"), whole)

    def test_log_probabilities(self):
        """In float64 as the reference, by how far transformers' float32 is from it."""
        answer = self.generate("--logprobs", "--pp", 2)
        exact = tiny("t5", 5).double()
        for row, output in enumerate(answer["outputs"]):
            arguments = dict(
                input_ids=torch.tensor([self.rows[row]]), decoder_input_ids=torch.tensor([[0] + self.expected[row][:-1]]))
            chosen = torch.tensor(self.expected[row])[:, None]
            with torch.no_grad():
                true, theirs = (m(**arguments).logits[0].double().log_softmax(1).gather(1, chosen)[:, 0]
                                for m in (exact, self.model))  # fmt: skip
            ours = torch.tensor(output["logprobs"], dtype=torch.double)
            # Both sum in float32, and the result is rounded to it.
            rounding = 2.0**-23 * true.abs().max()
            self.assertLessEqual((ours - true).abs().max(), 2 * (theirs - true).abs().max() + rounding)

    def test_rows_end_early(self):
        # The token that some row says first of all becomes the end token.
        step, row = min((tokens.index(tokens[5]), row) for row, tokens in enumerate(self.expected))
        eos = self.expected[row][5]
        folder = self.copy("early", eos_token_id=[eos, 96])
        expected, _ = reference(self.model, self.rows, NEW, eos_token_id=[eos, 96])
        self.assertLess(min(map(len, expected)), NEW)
        for layout in (("--pp", 1), ("--pp", 2, "--chunks", 1), ("--pp", 4, "--chunks", 2)):
            answer = self.generate(*layout, folder=folder)
            self.assertEqual(cli.token_ids(answer), expected)
            reasons = ["eos" if tokens[-1] in (eos, 96) else "length" for tokens in expected]
            self.assertEqual([output["finish_reason"] for output in answer["outputs"]], reasons)
        self.assertEqual(cli.token_ids(self.generate("--ignore-eos", "--pp", 2, folder=folder)), self.expected)
        later, _ = reference(self.model, self.rows, NEW, eos_token_id=[eos, 96], min_new_tokens=step + 3)
        self.assertEqual(
            cli.token_ids(self.generate("--min-new-tokens", step + 3, "--pp", 2, folder=folder)), later)  # fmt: skip

    def test_lengths_of_generation_config(self):
        eos = self.expected[0][2]
        for name, settings in {
            "none": {}, "max-length": {"max_length": 9}, "max-new": {"max_new_tokens": 6, "max_length": 40},
            "min-length": {"min_length": 8, "max_length": 12, "eos_token_id": eos}}.items():  # fmt: skip
            folder = self.copy(name, **settings)
            model = transformers.T5ForConditionalGeneration.from_pretrained(folder)
            expected = [model.generate(torch.tensor([row]), do_sample=False)[0, 1:].tolist() for row in self.rows]
            with self.subTest(settings):
                self.assertEqual(cli.token_ids(self.generate("--pp", 2, folder=folder, new=None)), expected)

    def test_start_token(self):
        for name, settings in {
            "start": {"decoder_start_token_id": 7}, "begin": {"decoder_start_token_id": None, "bos_token_id": 11}}.items():  # fmt: skip
            folder = self.copy(name, **settings)
            edit(folder / "config.json", decoder_start_token_id=None)
            model = transformers.T5ForConditionalGeneration.from_pretrained(folder)
            expected, _ = reference(model, self.rows, 8)
            self.assertEqual(cli.token_ids(self.generate("--pp", 2, folder=folder, new=8)), expected)
            self.assertNotEqual(expected, [row[:8] for row in self.expected])

    def refuse(self, status, pattern, folder, *arguments):
        for pp in (1, 2):
            got, out, err, _ = cli.run("generate", "--model", folder, *arguments, "--max-new-tokens", 4, "--pp", pp)
            self.assertEqual((got, out), (status, ""), err)
            self.assertRegex(err, r"^error\[[a-z]+\]: [^\n]*" + pattern + r"[^\n]*\n$")

    def test_refusals(self):
        ids = ("--input-ids", self.ids)
        nothing = self.copy("no-start", decoder_start_token_id=None, pad_token_id=None)
        edit(nothing / "config.json", decoder_start_token_id=None, pad_token_id=None)
        self.refuse(3, r"decoder_start_token_id.*is missing.*no-start", nothing, *ids)
        self.refuse(3, r"token 97 .*0 to 96", self.copy("far-start", decoder_start_token_id=97), *ids)
        self.refuse(2, r"--num-beams 2", self.folder, *ids, "--num-beams", 2)
        self.refuse(2, r"float16", self.folder, *ids, "--dtype", "float16")
        outside = self.root / "outside.safetensors"
        save_file({"input_ids": torch.tensor([[3, 97]])}, outside)
        self.refuse(2, r"97.*0 to 96", self.folder, "--input-ids", outside)
        empty = self.root / "empty.safetensors"
        save_file({"input_ids": torch.tensor([[3, 5], [0, 0]]), "attention_mask": torch.tensor([[1, 1], [0, 0]])}, empty)
        self.refuse(2, r"empty", self.folder, "--input-ids", empty)
        for layout, pattern in (
            (("--pp", 9), "model of 5 layers"), (("--pp", 2, "--cuts", "encoder.block"), "the nearest are"),
            (("--pp", 3, "--cuts", "decoder.block.0,encoder"), "leaves stage 1 without work")):  # fmt: skip
            got, _, err, _ = cli.run("generate", "--model", self.folder, *ids, *layout)
            self.assertEqual(got, 2)
            self.assertIn(pattern, err)

    def test_bytes_sent(self):
        """After the first step nothing of the encoder is sent, computed or waited for."""
        hidden, rows, sources = 36, len(LENGTHS), sum(LENGTHS)
        answer = self.generate("--pp", 3, "--chunks", 1, "--cuts", "encoder,decoder.block.0", "--stats")
        sent = [[step["bytes_sent"] for step in rank["steps"]][:NEW] for rank in answer["ranks"]]
        # The encoder's states go to both stages of the decoder.
        self.assertEqual(sent[0], [2 * 4 * hidden * sources] + [0] * (NEW - 1))
        self.assertEqual(sent[1], [4 * hidden * rows] * NEW)
        self.assertEqual(sent[2], [16 * rows * 2] * NEW)

    def test_each_rank_holds_its_own_part(self):
        answer = self.generate("--pp", 2, "--cuts", "encoder", new=4)
        sizes = {name: 4 * p.numel() for name, p in self.model.named_parameters()}
        shared = sizes["shared.weight"]
        parts = [shared + sum(size for name, size in sizes.items() if name.startswith(half)) for half in ("encoder.", "decoder.")]
        self.assertEqual([rank["parameter_bytes"] for rank in answer["ranks"]], parts)

    def test_bfloat16(self):
        model = tiny("t5", 5).to(torch.bfloat16)
        expected, margins = reference(model, self.rows, NEW)
        exact, _ = reference(tiny("t5", 5).to(torch.bfloat16).float(), self.rows, NEW)
        answers = cli.token_ids(self.generate("--pp", 2, "--dtype", "bfloat16"))
        self.assertEqual(cli.token_ids(self.generate("--pp", 4, "--dtype", "bfloat16")), answers)
        for row, tokens in enumerate(answers):
            for step, (got, want) in enumerate(zip(tokens, expected[row], strict=True)):
                if got != want:
                    # Logits up to 4 are 1/64 apart: roundings of the two sums may turn a small lead around.
                    self.assertLessEqual(margins[row][step], 0.25, f"row {row}, step {step}, float32 {exact[row][step]}")
                    break

    def test_text(self):
        words = ["<pad>", "</s>", "<unk>"] + [f"w{i}" for i in range(94)]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.decoder = decoders.WordPiece(prefix="##")
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
        folder = self.copy("text")
        fast.save_pretrained(folder)
        prompts = ["w5 w6 w7", "w1 nothing w80 w3 w4 w9"]
        ids = [fast(prompt)["input_ids"] for prompt in prompts]
        expected, _ = reference(self.model, ids, 12)
        given = [part for prompt in prompts for part in ("--prompt", prompt)]
        answer = cli.generate(folder, *given, "--max-new-tokens", 12, "--pp", 2)
        self.assertEqual(cli.token_ids(answer), expected)
        self.assertEqual([o["prompt_tokens"] for o in answer["outputs"]], [len(row) for row in ids])
        self.assertEqual([o["text"] for o in answer["outputs"]],
                         [fast.decode(row, skip_special_tokens=True) for row in expected])  # fmt: skip
        stop = words[expected[0][4]]
        stopped = cli.generate(folder, *given, "--max-new-tokens", 12, "--pp", 2, "--stop", stop)["outputs"]
        for row, output in enumerate(stopped):
            texts = [fast.decode(expected[row][: n + 1], skip_special_tokens=True) for n in range(12)]
            first = next((n for n, text in enumerate(texts) if stop in text), None)
            self.assertEqual(output["token_ids"], expected[row][: 12 if first is None else first + 1])
            self.assertEqual(output["finish_reason"], "length" if first is None else "stop")
        self.refuse(2, r"chat template", folder, "--chat", "--prompt", "w5")


if __name__ == "__main__":
    unittest.main(verbosity=2)
