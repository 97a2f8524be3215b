"""A real sentence model: its embeddings through pipeline stages are the original's."""

import json
import os
import pathlib
import tempfile
import unittest

import torch
import transformers
from safetensors.torch import load_file, save_file

import shardpipe_cli as cli

FOLDER = pathlib.Path(os.environ["SHARDPIPE_SENTENCE_MODEL"])
SENTENCES = [
    "A man is eating food.",
    "Someone is having a meal.",
    "The monkey is playing drums, and nobody in the whole neighbourhood has slept since it began to practise.",
    "Le café était déjà fermé.",
    "Pipelines!",
]


def embeddings(hidden, mask):
    """Mean over the tokens, then length one: what sentence-transformers does with this model."""
    weights = mask[..., None].float()
    return torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9), dim=1)


class Sentences(unittest.TestCase):
    def test_embeddings_through_stages(self):
        tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
        model = transformers.AutoModel.from_pretrained(FOLDER, dtype=torch.float32).eval()
        inputs = dict(tokenizer(SENTENCES, padding=True, return_tensors="pt"))
        with torch.no_grad():
            expected = embeddings(model(**inputs).last_hidden_state, inputs["attention_mask"])
        similarity = expected @ expected.T
        self.assertEqual(int((similarity - 2 * torch.eye(5))[0].argmax()), 1)  # a meal, not a monkey
        with tempfile.TemporaryDirectory() as folder:
            given, out = pathlib.Path(folder) / "in.safetensors", pathlib.Path(folder) / "out.safetensors"
            save_file(inputs, given)
            for pp, chunks in ((1, 1), (2, 1), (2, 2), (3, 5)):
                with self.subTest(pp=pp, chunks=chunks):
                    layout = ["--pp", pp, "--chunks", chunks]
                    _, report, _, _ = cli.run("run", "--model", FOLDER, "--inputs", given, "--outputs", out, *layout, "--json", check=0)
                    # Components are at most 1; each is a mean over tokens of what 6 layers round.
                    actual = embeddings(load_file(out)["last_hidden_state"], inputs["attention_mask"])
                    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-6)
                    held = [rank["parameter_bytes"] for rank in json.loads(report)["ranks"]]
                    self.assertEqual(sum(held), 4 * sum(parameter.numel() for parameter in model.parameters()))


if __name__ == "__main__":
    unittest.main()
