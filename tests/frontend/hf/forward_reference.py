"""Makes tiny random checkpoints and runs one forward pass of each in transformers, for forward_compare.cpp.

    python forward_reference.py OUTPUT [MODEL_FOLDER ...]

For every variant OUTPUT/<name>/ gets config.json, weights and forward.safetensors; for every MODEL_FOLDER,
OUTPUT/<its name>/ gets forward.safetensors and the file `folder` with its path. Of each call c:
    input.c.NAME   int64
    output.c.NAME  float32, in the model's dtype
    exact.c.NAME   float64, the same in float64
and of the first call of float32 models, for the sum of outputs times cotangents:
    cotangent.NAME, gradient.PARAMETER (float32), exact_gradient.PARAMETER (float64).
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from reference import randomise
from safetensors.torch import load_file, save_file
from transformers.models.t5 import modeling_t5

BERT = dict(
    model_type="bert", vocab_size=97, hidden_size=48, intermediate_size=72, num_hidden_layers=3, num_attention_heads=4,
    max_position_embeddings=24, type_vocab_size=2)  # fmt: skip
T5 = dict(
    model_type="t5", vocab_size=83, d_model=40, d_kv=12, d_ff=56, num_layers=3, num_heads=4, decoder_start_token_id=0)

# Name -> (class, configuration).
VARIANTS = {
    "bert": ("BertModel", BERT),
    "bert-no-pooler": ("BertModel", BERT),
    "bert-from-masked-lm": ("BertModel", BERT),
    "bert-old-names": ("BertModel", BERT),
    "bert-classes": ("BertForSequenceClassification", {**BERT, "num_labels": 3, "hidden_act": "gelu_new"}),
    "bert-one-label": ("BertForSequenceClassification", {**BERT, "num_labels": 1, "layer_norm_eps": 1e-3}),
    "bert-masked-lm": ("BertForMaskedLM", BERT),
    "bert-masked-lm-bin": ("BertForMaskedLM", {**BERT, "hidden_act": "relu"}),
    "bert-masked-lm-untied": ("BertForMaskedLM", {**BERT, "tie_word_embeddings": False}),
    "bert-pretraining": ("BertForPreTraining", BERT),
    "bert-odd": (
        "BertForMaskedLM",
        {**BERT, "vocab_size": 31, "hidden_size": 21, "num_attention_heads": 3, "intermediate_size": 11,
         "num_hidden_layers": 1, "type_vocab_size": 5},
    ),
    "t5": ("T5ForConditionalGeneration", T5),
    "t5-gated": (
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 2},
    ),
    "t5-gated-silu": (
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-silu", "relative_attention_num_buckets": 8,
         "relative_attention_max_distance": 20, "num_layers": 1},
    ),
    "t5-untied": ("T5ForConditionalGeneration", {**T5, "tie_word_embeddings": False}),
    "t5-old": ("T5ForConditionalGeneration", T5),
}  # fmt: skip
BFLOAT16 = ("bert", "bert-masked-lm", "t5", "t5-gated")


def exact_norm(self: modeling_t5.T5LayerNorm, x: torch.Tensor) -> torch.Tensor:
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def padded(lengths: list[int], seq: int) -> torch.Tensor:
    return (torch.arange(seq) < torch.tensor(lengths)[:, None]).long()


def bert_calls(config: transformers.PreTrainedConfig, generator: torch.Generator) -> list[dict]:
    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(config.vocab_size, shape, generator=generator)

    first = ids(3, 9)
    first[:, 3] = config.pad_token_id  # also where it is not masked: its row gets no gradient
    types = torch.randint(config.type_vocab_size, (3, 9), generator=generator)
    return [
        {"input_ids": first, "attention_mask": padded([9, 4, 1], 9), "token_type_ids": types},
        {"input_ids": ids(2, config.max_position_embeddings)},
        {"input_ids": ids(1, 1), "attention_mask": torch.ones(1, 1, dtype=torch.long)},
        # A hole, and padding in front.
        {"input_ids": ids(2, 5), "attention_mask": torch.tensor([[1, 0, 1, 1, 0], [0, 0, 1, 1, 1]])},
    ]


def t5_calls(config: transformers.PreTrainedConfig, generator: torch.Generator) -> list[dict]:
    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(config.vocab_size, shape, generator=generator)

    mask = padded([30, 12, 1], 30)
    return [
        {"input_ids": ids(3, 30), "attention_mask": mask, "decoder_input_ids": ids(3, 7)},
        {"input_ids": ids(1, 1), "decoder_input_ids": ids(1, 1)},
        {"input_ids": ids(2, 200), "decoder_input_ids": ids(2, 150)},  # beyond the last bucket
        {
            "input_ids": ids(3, 30), "attention_mask": mask, "decoder_input_ids": ids(3, 7),
            "decoder_attention_mask": padded([7, 1, 3], 7),
        },
    ]  # fmt: skip


def outputs_of(model: torch.nn.Module, call: dict) -> dict[str, torch.Tensor]:
    if model.config.is_encoder_decoder:
        return {"logits": model(**call).logits}
    return {name: value for name, value in model(**call).items() if isinstance(value, torch.Tensor)}


def gradients(model: torch.nn.Module, call: dict, cotangents: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    outputs = outputs_of(model, call)
    sum((outputs[name] * cotangents[name].to(outputs[name].dtype)).sum() for name in cotangents).backward()
    # An unused parameter has no gradient, which is zero.
    named = model.named_parameters(remove_duplicate=False)
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named}


def write_reference(model_class: type, folder: Path, output: Path) -> None:
    options = {"add_pooling_layer": False} if folder.name == "bert-no-pooler" else {}
    model = model_class.from_pretrained(folder, dtype="auto", **options).eval()
    generator = torch.Generator().manual_seed(7)
    calls = CALLS[model.config.model_type](model.config, generator)
    tensors = {}
    with torch.no_grad():
        for i, call in enumerate(calls):
            tensors |= {f"input.{i}.{name}": value for name, value in call.items()}
            tensors |= {f"output.{i}.{name}": value.float() for name, value in outputs_of(model, call).items()}
    with_gradients = model.dtype == torch.float32
    if with_gradients:
        outputs = {name: value for name, value in tensors.items() if name.startswith("output.0.")}
        cotangents = {
            name.removeprefix("output.0."): torch.randn(value.shape, generator=generator)
            for name, value in outputs.items()
        }
        tensors |= {f"cotangent.{name}": value for name, value in cotangents.items()}
        tensors |= {f"gradient.{name}": value for name, value in gradients(model, calls[0], cotangents).items()}
    model = model.double()
    rounding_norm, modeling_t5.T5LayerNorm.forward = modeling_t5.T5LayerNorm.forward, exact_norm
    with torch.no_grad():
        for i, call in enumerate(calls):
            tensors |= {f"exact.{i}.{name}": value for name, value in outputs_of(model, call).items()}
    if with_gradients:
        model.zero_grad()
        tensors |= {f"exact_gradient.{name}": value for name, value in gradients(model, calls[0], cotangents).items()}
    modeling_t5.T5LayerNorm.forward = rounding_norm
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()},
              output / "forward.safetensors")  # fmt: skip


def edit(folder: Path, name: str) -> None:
    """Checkpoints as other tools and versions write them."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    config = json.loads((folder / "config.json").read_text())
    if name == "bert-no-pooler":
        tensors = {key: value for key, value in tensors.items() if "pooler" not in key}
    elif name == "bert-from-masked-lm":
        tensors = {"bert." + key: value for key, value in tensors.items()}
        tensors["bert.embeddings.position_ids"] = torch.arange(24)[None]
        del config["architectures"]
    elif name == "bert-old-names":
        tensors = {
            key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for key, value in tensors.items()
        }
        tensors = {"bert." + key: value for key, value in tensors.items()}
    elif name == "t5-old":
        tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
        tensors["decoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
        bias = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        tensors[bias] = torch.ones(32, 4)
        config["architectures"] = ["T5WithLMHeadModel"]
        del config["num_decoder_layers"]
    elif name == "t5-untied":
        tensors["lm_head.weight"] = tensors["shared.weight"].flip(0).clone()
    elif name == "bert-masked-lm-bin":
        torch.save({**tensors, "cls.predictions.decoder.bias": tensors["cls.predictions.bias"]},
                   folder / "pytorch_model.bin")  # fmt: skip
        path.unlink()
    (folder / "config.json").write_text(json.dumps(config))
    if path.exists():
        save_file(tensors, path, metadata={"format": "pt"})


def make(output: Path, name: str, dtype: torch.dtype, suffix: str) -> None:
    class_name, values = VARIANTS[name]
    values = dict(values)
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    model_class = getattr(transformers, class_name)
    model = model_class(config)
    randomise(model, torch.Generator().manual_seed(sum(name.encode())))
    folder = output / (name + suffix)
    model.to(dtype).save_pretrained(folder)
    edit(folder, name)
    write_reference(model_class, folder, folder)


CALLS = {"bert": bert_calls, "t5": t5_calls}


def main() -> None:
    output = Path(sys.argv[1])
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    for name in VARIANTS:
        make(output, name, torch.float32, "")
    for name in BFLOAT16:
        make(output, name, torch.bfloat16, "-bfloat16")
    for given in map(Path, sys.argv[2:]):
        architecture = json.loads((given / "config.json").read_text())["architectures"][0]
        folder = output / given.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "folder").write_text(str(given.resolve()))
        write_reference(getattr(transformers, architecture), given, folder)


if __name__ == "__main__":
    main()
