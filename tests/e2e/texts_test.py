"""`shardpipe classify`, `fill-mask` and `run` on folders of encoders and T5: what transformers' pipelines and forward
say, in several layouts; bad requests end with the right status and one line."""

import json
import pathlib
import tempfile
import unittest

import torch
import transformers
from safetensors.torch import load_file, save_file

import shardpipe_cli as cli
from bert_folder import make

torch.set_num_threads(1)
transformers.utils.logging.set_verbosity_error()
LAYOUTS = ([], ["--pp", "2"], ["--pp", "3", "--chunks", "2"])
TEXTS = ["the cat sat on the mat.", "a bigger dog ran", "unhappy dogs!"]
PAIRS = ["the dog ran", "the big cat sat on a dog, the cat ran", "a"]


class Texts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.scratch.name)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def answer(self, command, folder, *arguments):
        _, out, _, _ = cli.run(command, "--model", folder, "--json", *arguments, check=0)
        return json.loads(out)

    def texts(self, texts, pairs=()):
        return [x for text in texts for x in ("--text", text)] + [x for pair in pairs for x in ("--text-pair", pair)]

    def check_classify(self, name, **changes):
        folder = self.folder / name
        types = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
        # With token types, and without as the plain class has it: both must be transformers'.
        model = make(folder, "BertForSequenceClassification", types if len(name) % 2 else {}, **changes)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        pipeline = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
        for layout in LAYOUTS:
            for pairs in ((), PAIRS):
                expected = [
                    pipeline({"text": text, "text_pair": pairs[i]} if pairs else {"text": text})
                    for i, text in enumerate(TEXTS)
                ]
                answer = self.answer("classify", folder, *self.texts(TEXTS, pairs), *layout)
                self.assertEqual(len(answer["outputs"]), len(TEXTS))
                for ours, theirs in zip(answer["outputs"], expected):
                    theirs = theirs[0] if isinstance(theirs[0], list) else theirs
                    self.assertEqual([entry["label"] for entry in ours["scores"]], [entry["label"] for entry in theirs])
                    for mine, other in zip(ours["scores"], theirs):
                        self.assertAlmostEqual(mine["score"], other["score"], delta=1e-5)
                    self.assertEqual(ours["label"], theirs[0]["label"])

    def test_classes(self):
        self.check_classify("classes", id2label={0: "bad", 1: "good", 2: "neither"}, label2id={})

    def test_one_label(self):
        self.check_classify("one", num_labels=1)

    def test_multi_label(self):
        self.check_classify("multi", num_labels=4, problem_type="multi_label_classification")

    def test_regression(self):
        self.check_classify("regression", num_labels=1, problem_type="regression")

    def test_plain_lines(self):
        folder = self.folder / "lines"
        make(folder, "BertForSequenceClassification", id2label={0: "bad", 1: "good"}, label2id={})
        _, out, _, _ = cli.run("classify", "--model", folder, *self.texts(TEXTS), check=0)
        self.assertRegex(out, r"^((bad|good) [01]\.\d{4}\n){3}$")

    def test_fill_mask(self):
        folder = self.folder / "mask"
        model = make(folder, "BertForMaskedLM")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        pipeline = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)
        texts = ["the [MASK] sat on the mat.", "a [MASK] dog [MASK] the cat", "[MASK]"]
        for layout in LAYOUTS:
            answer = self.answer("fill-mask", folder, *self.texts(texts), *layout)
            for text, ours in zip(texts, answer["outputs"]):
                theirs = pipeline(text)
                theirs = theirs if isinstance(theirs[0], list) else [theirs]
                self.assertEqual(len(ours["masks"]), len(theirs))
                for mine, other in zip(ours["masks"], theirs):
                    self.assertEqual(len(mine), 5)
                    for a, b in zip(mine, other):
                        self.assertAlmostEqual(a["score"], b["score"], delta=1e-5)
                        self.assertEqual((a["token"], a["token_str"], a["sequence"]), (b["token"], b["token_str"], b["sequence"]))  # fmt: skip

    def test_run(self):
        folder = self.folder / "base"
        model = make(folder, "BertModel")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        encoded = tokenizer(TEXTS, PAIRS, padding=True, return_tensors="pt")
        for names in (["input_ids"], ["input_ids", "attention_mask"], list(encoded)):
            inputs = {name: encoded[name] for name in names}
            save_file(inputs, self.folder / "inputs.safetensors")
            with torch.no_grad():
                expected = model(**inputs)
            for layout in LAYOUTS:
                out = self.folder / "out.safetensors"
                self.answer("run", folder, "--inputs", self.folder / "inputs.safetensors", "--outputs", out, *layout)
                for name, tensor in load_file(out).items():
                    torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-5)

    def test_refusals(self):
        folder = self.folder / "refusals"
        make(folder, "BertForMaskedLM")
        base = self.folder / "refusals_base"
        make(base, "BertModel")
        long = " ".join(["cat"] * 40)

        def refused(status, message, *arguments):
            ended, out, err, _ = cli.run(*arguments)
            self.assertEqual((ended, out), (status, ""), err)
            self.assertIn(message, err)
            self.assertEqual(err.count("error["), 1)

        refused(2, "there is no text", "fill-mask", "--model", folder)
        refused(2, "--text-pair is given 1 times and --text 2", "fill-mask", "--model", folder, "--text", "a", "--text", "a", "--text-pair", "b")  # fmt: skip
        refused(2, "text 1 holds no mask token", "fill-mask", "--model", folder, "--text", "[MASK]", "--text", "a")
        refused(2, "it is no classifier", "classify", "--model", folder, "--text", "a")
        refused(2, "has no output logits; it has last_hidden_state, pooler_output", "classify", "--model", base, "--text", "a")  # fmt: skip
        refused(2, "42 tokens", "fill-mask", "--model", folder, "--text", long)
        refused(2, "have no generation program", "generate", "--model", folder, "--prompt", "a")
        ids = self.folder / "ids.safetensors"
        for tensor, message in ((torch.tensor([[1, 21]]), "21"), (torch.tensor([[1, -1]]), "-1")):
            save_file({"input_ids": tensor}, ids)
            refused(2, message, "run", "--model", base, "--inputs", ids, "--outputs", self.folder / "o.safetensors")


if __name__ == "__main__":
    unittest.main()
