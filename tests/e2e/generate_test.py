"""Greedy tokens of `shardpipe generate` against Hugging Face `generate`, in every layout."""

import json
import pathlib
import tempfile
import unittest

import torch
import transformers
from safetensors.torch import save_file

import shardpipe_cli as cli

transformers.logging.set_verbosity_error()

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "Water boils at",
    "1, 2, 3, 4,",
    "Dear Sir or Madam,\n\nI am writing to",
    "Q: What is the largest planet?\nA:",
    "Les trois couleurs du drapeau",
    "import numpy as np\n\nx = np.",
    "The quick brown fox jumps over the lazy dog. The lazy dog",
]


def reference(model, prompts, new_tokens, **options):
    """Each prompt alone through Hugging Face generate; also the lead of each chosen token over the runner-up."""
    rows, margins = [], []
    # transformers' cache of T5 has as many layers as the encoder: none for further ones of the decoder.
    options = {"use_cache": not model.config.is_encoder_decoder, **options}
    for ids in prompts:
        out = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=new_tokens,
            do_sample=False, return_dict_in_generate=True, output_logits=True, **options)
        rows.append(out.sequences[0, 1 if model.config.is_encoder_decoder else len(ids):].tolist())
        margins.append([float(torch.topk(step[0].float(), 2).values.diff().abs()) for step in out.logits])
    return rows, margins


class DemoModel(unittest.TestCase):
    """SmolLM2 and what Hugging Face generates with it."""

    NEW = 32

    @classmethod
    def setUpClass(cls):
        cls.folder = cli.DEMO_MODEL
        model = transformers.AutoModelForCausalLM.from_pretrained(cls.folder, dtype=torch.float32).eval()
        cls.tokenizer = transformers.AutoTokenizer.from_pretrained(cls.folder)
        cls.ids = [cls.tokenizer(p)["input_ids"] for p in PROMPTS]
        cls.expected, cls.margins = reference(model, cls.ids, cls.NEW)

    def compare(self, answer, rows):
        for row, output in zip(rows, answer["outputs"], strict=True):
            self.assertEqual(output["token_ids"], self.expected[row], f"{PROMPTS[row]!r}; smallest margins {sorted(self.margins[row])[:3]}")
            self.assertEqual(output["text"], self.tokenizer.decode(self.expected[row], skip_special_tokens=True))
            self.assertEqual(output["prompt_tokens"], len(self.ids[row]))
            ended = self.expected[row][-1] == self.tokenizer.eos_token_id
            self.assertEqual(output["finish_reason"], "eos" if ended else "length")

    def prompts(self, rows):
        return [part for row in rows for part in ("--prompt", PROMPTS[row])]


class SmolLM2(DemoModel):
    def test_one_prompt_in_every_depth(self):
        for pp in (1, 2, 3, 5):
            for row in range(len(PROMPTS)):
                with self.subTest(pp=pp, row=row):
                    answer = cli.generate(self.folder, *self.prompts([row]), "--max-new-tokens", self.NEW, "--pp", pp)
                    self.compare(answer, [row])
                    self.assertEqual(len(answer["ranks"]), pp)

    def test_batches_of_different_lengths_and_chunks(self):
        rows = [0, 1, 5, 9]
        for pp, chunks in ((2, 1), (2, 2), (2, 4), (3, 4), (1, 2)):
            with self.subTest(pp=pp, chunks=chunks):
                answer = cli.generate(
                    self.folder, *self.prompts(rows), "--max-new-tokens", self.NEW, "--pp", pp, "--chunks", chunks)
                self.compare(answer, rows)
                self.assertEqual(answer["layout"], {"pp": pp, "tp": 1, "dp": 1, "chunks": chunks})

    def test_all_prompts_from_a_file(self):
        with tempfile.TemporaryDirectory() as folder:
            rows = [row for row, text in enumerate(PROMPTS) if "\n" not in text]
            path = pathlib.Path(folder) / "prompts.txt"
            path.write_text("\n".join(PROMPTS[row] for row in rows) + "\n")
            answer = cli.generate(self.folder, "--prompts", path, "--max-new-tokens", self.NEW, "--pp", 2)
            self.compare(answer, rows)

    def test_reference_kernels(self):
        answer = cli.generate(
            self.folder, *self.prompts([0, 3]), "--max-new-tokens", self.NEW, "--pp", 2, "--kernels", "reference")
        self.compare(answer, [0, 3])

    def test_layouts_agree_bitwise(self):
        """The same rows a lane and the same threads: log probabilities are equal to the last bit, whatever the cuts."""
        def logprobs(*layout):
            answer = cli.generate(
                self.folder, *self.prompts([0, 1, 2, 3]), "--max-new-tokens", 12, "--logprobs", "--threads", 1, *layout)
            return [output["logprobs"] for output in answer["outputs"]]

        whole = logprobs("--pp", 1, "--chunks", 2)
        self.assertEqual(logprobs("--pp", 2, "--chunks", 2), whole)
        self.assertEqual(logprobs("--pp", 3, "--chunks", 2), whole)
        self.assertEqual(logprobs("--pp", 2, "--chunks", 2, "--cuts", "model.layers.18"), whole)
        self.assertEqual(logprobs("--pp", 2, "--chunks", 2, "--cuts", "<lm_head"), whole)
        for pp, virtual in ((1, 3), (2, 2), (3, 5)):
            with self.subTest(pp=pp, virtual=virtual):
                self.assertEqual(logprobs("--pp", pp, "--virtual", virtual, "--chunks", 2), whole)
        self.assertEqual(logprobs("--pp", 2, "--chunks", 2, "--split", "balanced", "--profile"), whole)

    def test_bytes_sent_equal_the_formula(self):
        """A stage sends rows x hidden floats a step, the last one 16 bytes a row to each other rank."""
        rows, new, hidden = [0, 1, 5], 6, 576
        answer = cli.generate(
            self.folder, *self.prompts(rows), "--max-new-tokens", new, "--pp", 3, "--stats", "--ignore-eos")
        prompt_tokens = sum(len(self.ids[row]) for row in rows)
        for rank in answer["ranks"]:
            sent = [step["bytes_sent"] for step in rank["steps"]]
            if rank["rank"] < 2:
                self.assertEqual(sent[:new], [4 * hidden * prompt_tokens] + [4 * hidden * len(rows)] * (new - 1))
                self.assertEqual(sum(sent[new:]), 0)
            else:
                self.assertEqual(sent, [16 * len(rows) * 2] * new)

    def test_each_rank_holds_and_reads_its_own_part(self):
        answer = cli.generate(self.folder, *self.prompts([0]), "--max-new-tokens", 4, "--pp", 4, "--stats")
        total, largest, page_slack = 134_515_008 * 4, 49152 * 576 * 4, 1 << 20
        for rank in answer["ranks"]:
            self.assertLessEqual(rank["parameter_bytes"], total // 4 + largest)
            self.assertLessEqual(rank["resident_weight_bytes"], total // 4 + largest + page_slack)
            self.assertGreater(rank["resident_weight_bytes"], 0)
        self.assertEqual(sum(rank["parameter_bytes"] for rank in answer["ranks"]), total + largest, "tied: held twice")

    def test_bfloat16(self):
        model = transformers.AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.bfloat16).eval()
        expected, margins = reference(model, self.ids[:4], 16)
        answer = cli.generate(self.folder, *self.prompts(range(4)), "--max-new-tokens", 16, "--pp", 2, "--dtype", "bfloat16")
        for row, output in enumerate(answer["outputs"]):
            for step, (got, want) in enumerate(zip(output["token_ids"], expected[row])):
                if got != want:
                    # Logits near 20 are 1/8 apart in bfloat16: two roundings may turn a lead of that size around.
                    self.assertLessEqual(margins[row][step], 0.25, f"{PROMPTS[row]!r}, step {step}")
                    break

    def test_stop_min_and_ignore_eos(self):
        stopped = cli.generate(self.folder, *self.prompts([0]), "--max-new-tokens", 32, "--stop", ".", "--pp", 2)["outputs"][0]
        self.assertEqual(stopped["finish_reason"], "stop")
        self.assertIn(".", stopped["text"])
        self.assertNotIn(".", self.tokenizer.decode(stopped["token_ids"][:-1]))
        either = cli.generate(self.folder, *self.prompts([0]), "--max-new-tokens", 32, "--stop", "never", "--stop", ".")["outputs"][0]
        self.assertEqual(either["token_ids"], stopped["token_ids"])
        chat = ["--chat", "--prompt", "Say hi."]
        short = cli.generate(self.folder, *chat, "--max-new-tokens", 40, "--pp", 2)["outputs"][0]
        self.assertEqual(short["finish_reason"], "eos")
        self.assertEqual(short["token_ids"][-1], self.tokenizer.eos_token_id)
        longer = cli.generate(self.folder, *chat, "--max-new-tokens", 45, "--min-new-tokens", 45, "--pp", 2)["outputs"][0]
        self.assertEqual(len(longer["token_ids"]), 45)
        self.assertNotIn(self.tokenizer.eos_token_id, longer["token_ids"][:44])
        ignored = cli.generate(self.folder, *chat, "--max-new-tokens", 45, "--ignore-eos", "--pp", 2)["outputs"][0]
        self.assertEqual(ignored["token_ids"][: len(short["token_ids"])], short["token_ids"])
        self.assertEqual(len(ignored["token_ids"]), 45)

    def test_chat_is_the_template_of_the_folder(self):
        messages = [{"role": "user", "content": "Name a colour."}]
        ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        model = transformers.AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()
        expected, _ = reference(model, [ids], 12)
        answer = cli.generate(self.folder, "--chat", "--prompt", "Name a colour.", "--max-new-tokens", 12)
        self.assertEqual(answer["outputs"][0]["prompt_tokens"], len(ids))
        self.assertEqual(cli.token_ids(answer), expected)

    def test_text_streams_to_the_output(self):
        _, out, _, _ = cli.run(
            "generate", "--model", self.folder, *self.prompts([0]), "--max-new-tokens", 8, "--pp", 2, check=0)
        self.assertEqual(out, self.tokenizer.decode(self.expected[0][:8], skip_special_tokens=True) + "\n")

    def test_options_from_a_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "run.json"
            path.write_text('{"pp": 3, /* overridden */ "max-new-tokens": 4, "prompt": ["%s"], "json": true}' % PROMPTS[0])
            _, out, _, _ = cli.run("generate", "--model", self.folder, "--config", path, "--pp", 2, check=0)
            answer = json.loads(out)
            self.assertEqual(answer["layout"]["pp"], 2)
            self.assertEqual(cli.token_ids(answer), [self.expected[0][:4]])


LLAMA = dict(
    vocab_size=101, hidden_size=36, intermediate_size=50, num_hidden_layers=5, num_attention_heads=9,
    num_key_value_heads=3, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, initializer_range=0.3)
TINY = {
    "llama": (transformers.LlamaForCausalLM, LLAMA),
    "mistral": (transformers.MistralForCausalLM, {**LLAMA, "sliding_window": 7}),
    "qwen2": (transformers.Qwen2ForCausalLM, LLAMA),
    "gpt2": (transformers.GPT2LMHeadModel, dict(
        vocab_size=97, n_positions=48, n_embd=32, n_layer=5, n_head=4, bos_token_id=0, eos_token_id=0,
        initializer_range=0.3)),
    "opt": (transformers.OPTForCausalLM, dict(
        vocab_size=97, hidden_size=36, ffn_dim=50, num_hidden_layers=5, num_attention_heads=6,
        max_position_embeddings=48, init_std=0.3)),
    "bloom": (transformers.BloomForCausalLM, dict(
        vocab_size=97, hidden_size=36, n_layer=5, n_head=6, initializer_range=0.3)),
    "gpt_neo": (transformers.GPTNeoForCausalLM, dict(
        vocab_size=97, hidden_size=36, num_layers=5, num_heads=6, max_position_embeddings=48, window_size=6,
        attention_types=[[["global", "local"], 2], [["local"], 1]], bos_token_id=0, eos_token_id=0,
        initializer_range=0.3)),
    "codegen": (transformers.CodeGenForCausalLM, dict(
        vocab_size=97, n_embd=48, n_layer=5, n_head=4, n_positions=48, n_ctx=48, rotary_dim=6, bos_token_id=0,
        eos_token_id=0, initializer_range=0.3)),
    "t5": (transformers.T5ForConditionalGeneration, dict(
        vocab_size=97, d_model=36, d_kv=10, d_ff=50, num_layers=3, num_decoder_layers=2, num_heads=5,
        relative_attention_num_buckets=12, relative_attention_max_distance=20, decoder_start_token_id=0)),
}


def tiny(kind, seed=0, **changes):
    torch.manual_seed(seed)
    model_class, config = TINY[kind]
    model = model_class(model_class.config_class(**{**config, **changes})).eval()
    if kind == "t5":
        # Its own initial weights say the same token again and again.
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() == 2:
                    spread = 1.0 if name.endswith("relative_attention_bias.weight") else parameter.shape[1] ** -0.5
                    parameter.normal_(0, (0.3 if name == "shared.weight" else 1.6) * spread)
    return model


CHECKPOINTS = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    ("llama", {"num_key_value_heads": 9, "head_dim": 6}),
    ("llama", {"num_key_value_heads": 1, "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16}}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}),
    ("gpt2", {}),
    ("gpt2", {"tie_word_embeddings": False, "n_inner": 40}),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu"}),
    ("mistral", {}),
    ("mistral", {"sliding_window": None, "head_dim": 6, "tie_word_embeddings": True}),
    ("qwen2", {}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2, "tie_word_embeddings": True}),
    ("opt", {}),
    ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 20}),
    ("bloom", {}),
    ("bloom", {"n_head": 12, "apply_residual_connection_post_layernorm": True}),
    ("gpt_neo", {}),
    ("codegen", {}),
    ("t5", {}),
    ("t5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 4}),
    ("t5", {"num_layers": 1, "num_decoder_layers": 5, "num_heads": 3, "d_kv": 16, "relative_attention_num_buckets": 32,
            "relative_attention_max_distance": 128}),
]


class TinyCheckpoints(unittest.TestCase):
    def test_random_weights_in_every_layout(self):
        for number, (kind, changes) in enumerate(CHECKPOINTS * cli.SCALE):
            model = tiny(kind, number, **changes)
            generator = torch.Generator().manual_seed(number)
            length = 12
            ids = torch.randint(3, model.config.vocab_size, (4, length), generator=generator)
            mask = torch.ones_like(ids)
            for row, pad in enumerate((0, 3, 7, 11)):
                mask[row, :pad] = 0
            rows = [ids[row][mask[row].bool()].tolist() for row in range(4)]
            expected, margins = reference(model, rows, 20)
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder, max_shard_size="20KB" if number % 2 else "1GB")
                path = pathlib.Path(folder) / "ids.safetensors"
                save_file({"input_ids": ids, "attention_mask": mask}, path)
                for pp, chunks in ((1, 1), (2, 2), (3, 4), (5, 3)):
                    with self.subTest(kind=kind, changes=changes, pp=pp, chunks=chunks):
                        answer = cli.generate(
                            folder, "--input-ids", path, "--max-new-tokens", 20, "--pp", pp, "--chunks", chunks, "--threads", 1)
                        for row, output in enumerate(answer["outputs"]):
                            self.assertEqual(output["token_ids"], expected[row], f"row {row}, smallest margin {min(margins[row])}")
                            self.assertEqual(output["text"], "")

    def test_files_of_torch_save(self):
        """pytorch_model.bin, its index, and a .pt with the state dictionary itself or under a key."""
        for number, kind in enumerate(("llama", "gpt2")):
            model = tiny(kind, number)
            ids = torch.randint(3, 97, (3, 7), generator=torch.Generator().manual_seed(number))
            expected, _ = reference(model, ids.tolist(), 12)
            state = model.state_dict()
            names = list(state)
            parts = {f"pytorch_model-{i + 1:05}-of-00003.bin": names[i::3] for i in range(3)}

            def shards(folder):
                for file, held in parts.items():
                    torch.save({name: state[name] for name in held}, folder / file)
                weight_map = {name: file for file, held in parts.items() for name in held}
                index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
                (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))

            writers = {
                "safetensors": model.save_pretrained,
                "bin": lambda folder: torch.save(state, folder / "pytorch_model.bin"),
                "index": shards,
                "pt": lambda folder: torch.save(state, folder / "model.pt"),
                "key": lambda folder: torch.save({"epoch": 3, "model": state, "loss": [0.5]}, folder / "checkpoint.pt"),
            }
            for name, write in writers.items():
                with self.subTest(kind=kind, files=name), tempfile.TemporaryDirectory() as path:
                    folder = pathlib.Path(path)
                    model.config.save_pretrained(folder)
                    write(folder)
                    save_file({"input_ids": ids}, folder / "ids")
                    arguments = ["--input-ids", folder / "ids", "--max-new-tokens", 12, "--pp", 2, "--threads", 1]
                    self.assertEqual(cli.token_ids(cli.generate(folder, *arguments)), expected)

    def test_settings_of_generation_config(self):
        model = tiny("llama", 3)
        model.generation_config.max_new_tokens = 7
        model.generation_config.eos_token_id = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
        ids = torch.randint(30, 101, (3, 5), generator=torch.Generator().manual_seed(1))
        expected = [
            model.generate(row[None], attention_mask=torch.ones(1, 5, dtype=torch.long), do_sample=False)[0, 5:].tolist()
            for row in ids]
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            path = pathlib.Path(folder) / "ids.safetensors"
            save_file({"input_ids": ids}, path)
            self.assertEqual(cli.token_ids(cli.generate(folder, "--input-ids", path, "--pp", 2)), expected)


if __name__ == "__main__":
    unittest.main(verbosity=2)
