"""Makes tiny random checkpoints and runs them through transformers, for transformers_compare.cpp.

    python reference.py OUTPUT [MODEL_FOLDER ...]

For every variant OUTPUT/<name>/ gets config.json, model.safetensors and reference.safetensors; for every MODEL_FOLDER,
OUTPUT/<its name>/ gets reference.safetensors and the file `folder` with its path. Of each row r, which runs alone:
    prompt.r     int64 [length]
    generated.r  int64 [steps], by argmax
    logits.r     float32 [length + steps, vocab] of the prompt and then of each generated token, in the model's dtype
    exact.r      float64, the same in float64 (rotary angles excepted, which are float32 by definition)
of models with Llama's rotary embedding inv_freq, float32: its frequencies; and of a batch through the plain forward:
    ids, mask    int64 [batch, seq]: a whole row, one padded on the right, one padded on the left, one with a gap
    weights      float32 [batch, seq, vocab], zero where the mask is
    plain.logits, plain.exact     without the mask
    masked.logits, masked.exact   with it
    gradient.<name>, exact_gradient.<name>   of sum(weights * masked.logits), of float32 variants
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

STEPS = 6
LENGTHS = (1, 17, 5, 40)
BATCH, SEQ = 4, 13

LLAMA = dict(
    model_type="llama", vocab_size=101, hidden_size=48, intermediate_size=80, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=1,
    eos_token_id=2)  # fmt: skip
MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": 8}
QWEN2 = {**LLAMA, "model_type": "qwen2"}
OPT = dict(
    model_type="opt", vocab_size=97, hidden_size=48, ffn_dim=80, num_hidden_layers=3, num_attention_heads=4,
    max_position_embeddings=64)  # fmt: skip
BLOOM = dict(model_type="bloom", vocab_size=95, hidden_size=48, n_layer=3, n_head=4)
GPT_NEO = dict(
    model_type="gpt_neo", vocab_size=93, hidden_size=48, num_layers=4, num_heads=4, max_position_embeddings=64,
    attention_types=[[["global", "local"], 2]], window_size=8, bos_token_id=0, eos_token_id=0)  # fmt: skip
CODEGEN = dict(
    model_type="codegen", vocab_size=93, n_embd=64, n_layer=3, n_head=4, n_positions=64, n_ctx=64, rotary_dim=6,
    bos_token_id=0, eos_token_id=0)  # fmt: skip
GPT2 = dict(
    model_type="gpt2", vocab_size=93, n_embd=48, n_layer=3, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)


def rope(kind: str, **more: object) -> dict:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=32)
YARN_FULL = rope(
    "yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=16.0, beta_slow=2.0, mscale=0.7,
    mscale_all_dim=1.3, truncate=False)  # fmt: skip
LONGROPE = rope(
    "longrope", factor=2.0, original_max_position_embeddings=64, short_factor=[1.0, 1.1, 1.3, 1.7, 2.0, 2.5],
    long_factor=[2.0, 3.0, 4.0, 5.0, 6.0, 7.0])  # fmt: skip

# Name -> (base configuration, changes).
VARIANTS = {
    "llama-gqa": (LLAMA, {}),
    "llama-mha": (LLAMA, {"num_key_value_heads": 4}),
    "llama-mqa-biases": (LLAMA, {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}),
    "llama-tied": (LLAMA, {"tie_word_embeddings": True, "pad_token_id": 7}),
    "llama-head-dim": (LLAMA, {"head_dim": 20}),
    "llama-odd": (
        LLAMA,
        {"vocab_size": 67, "hidden_size": 42, "intermediate_size": 37, "num_attention_heads": 3,
         "num_key_value_heads": 3, "head_dim": 14, "num_hidden_layers": 2},
    ),
    "llama-gelu": (LLAMA, {"hidden_act": "gelu", "num_hidden_layers": 1}),
    "llama-linear": (LLAMA, rope("linear", factor=4.0)),
    "llama-dynamic": (LLAMA, rope("dynamic", factor=4.0)),
    "llama-llama3": (LLAMA, LLAMA3),
    "llama-yarn": (LLAMA, YARN),
    "llama-yarn-full": (LLAMA, YARN_FULL),
    "llama-longrope": (LLAMA, LONGROPE),
    "llama-old-spelling": (LLAMA, {**LLAMA3, "tie_word_embeddings": True}),
    "llama-bare": (LLAMA, {"tie_word_embeddings": True}),
    "llama-tied-twice": (LLAMA, {"tie_word_embeddings": True}),
    "llama-untied-by-content": (LLAMA, {"tie_word_embeddings": True}),
    "gpt2": (GPT2, {}),
    "gpt2-inner": (GPT2, {"n_inner": 50, "n_head": 3, "vocab_size": 61}),
    "gpt2-inverse-layer": (GPT2, {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2-unscaled": (GPT2, {"scale_attn_weights": False, "activation_function": "relu"}),
    "gpt2-upcast": (GPT2, {"reorder_and_upcast_attn": True, "attn_implementation": "eager"}),
    "gpt2-untied": (GPT2, {"tie_word_embeddings": False}),
    "gpt2-bare": (GPT2, {}),
    "mistral": (MISTRAL, {}),
    "mistral-tiny-window": (MISTRAL, {"sliding_window": 2, "num_key_value_heads": 4, "tie_word_embeddings": True}),
    "mistral-no-window": (MISTRAL, {"sliding_window": None, "head_dim": 20, "num_attention_heads": 6}),
    "mistral-old-spelling": (MISTRAL, LLAMA3),
    "qwen2": (QWEN2, {}),
    "qwen2-tied": (QWEN2, {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "qwen2-window": (QWEN2, {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen2-layer-types": (
        QWEN2,
        {"use_sliding_window": True, "sliding_window": 9,
         "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "qwen2-yarn": (QWEN2, YARN),
    "opt": (OPT, {}),
    "opt-norm-after": (OPT, {"do_layer_norm_before": False, "word_embed_proj_dim": 20}),
    "opt-projected": (OPT, {"word_embed_proj_dim": 56, "num_attention_heads": 3, "activation_function": "gelu"}),
    "opt-no-final-norm": (OPT, {"_remove_final_layer_norm": True, "tie_word_embeddings": False}),
    "opt-plain-norms": (OPT, {"pad_token_id": None, "enable_bias": False, "layer_norm_elementwise_affine": False}),
    "opt-bare": (OPT, {}),
    "bloom": (BLOOM, {}),
    "bloom-six-heads": (BLOOM, {"n_head": 6, "apply_residual_connection_post_layernorm": True}),
    "bloom-eleven-heads": (BLOOM, {"n_head": 11, "hidden_size": 55, "tie_word_embeddings": False}),
    "bloom-one-head": (BLOOM, {"n_head": 1, "n_layer": 1}),
    "bloom-bare": (BLOOM, {}),
    "gpt-neo": (GPT_NEO, {}),
    "gpt-neo-local": (
        GPT_NEO,
        {"attention_types": [[["local"], 1], [["global"], 2]], "num_layers": 3, "window_size": 3,
         "intermediate_size": 50, "num_heads": 3, "tie_word_embeddings": False},
    ),
    "gpt-neo-bare": (GPT_NEO, {}),
    "codegen": (CODEGEN, {}),
    "codegen-whole-heads": (CODEGEN, {"rotary_dim": 8, "n_head": 8, "n_inner": 50}),
    "codegen-tied": (CODEGEN, {"tie_word_embeddings": True, "activation_function": "gelu"}),
    "codegen-masks": (CODEGEN, {}),
}  # fmt: skip
CAUSAL = torch.ones(1, 1, 64, 64).tril()
# Name -> (prefix that the checkpoint lacks, tensors that it has besides).
SURPLUS = {
    "llama-bare": ("model.", {"layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(6)}),
    "gpt2-bare": ("transformer.", {"h.0.attn.bias": CAUSAL, "h.0.attn.masked_bias": torch.tensor(-1e4)}),
    "opt-bare": ("model.", {"decoder.version": torch.tensor([3.0])}),
    "bloom-bare": ("transformer.", {"h.1.self_attention.scale_mask_softmax.causal_mask": CAUSAL}),
    "gpt-neo-bare": (
        "transformer.", {"h.0.attn.attention.bias": CAUSAL, "h.0.attn.attention.masked_bias": torch.tensor(-1e9)}),
    "codegen-masks": ("", {"transformer.h.2.attn.causal_mask": CAUSAL}),
}  # fmt: skip
BFLOAT16 = (
    "llama-gqa", "llama-mqa-biases", "llama-yarn", "llama-tied", "gpt2", "gpt2-inner", "mistral", "qwen2-window", "opt",
    "opt-norm-after", "bloom", "bloom-six-heads", "gpt-neo", "codegen")  # fmt: skip
FLOAT16 = ("llama-gqa", "gpt2", "mistral", "bloom")


def randomise(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Weights under which every part of the model matters: transformers' own have no biases and plain norms."""
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 2:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5 if "embed" not in name else noise * 0.5)
            else:
                parameter.copy_((0 if "bias" in name else 1) + 0.2 * noise)


class ExactTorch:
    """torch, but what asks for torch.float32 gets float64."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


@contextlib.contextmanager
def exactly(model: torch.nn.Module) -> Iterator[None]:
    """Norms and softmax that transformers computes in float32, whatever the model's dtype, run in float64."""
    module = sys.modules[type(model).__module__]
    module.torch = ExactTorch()
    yield
    module.torch = torch


def run_row(model: torch.nn.Module, prompt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The row alone: its prompt at once, then STEPS tokens one by one with the cache."""
    output = model(prompt[None], use_cache=True)
    logits = [output.logits[0]]
    generated = []
    for _ in range(STEPS):
        generated.append(int(logits[-1][-1].argmax()))
        output = model(torch.tensor([generated[-1:]]), past_key_values=output.past_key_values, use_cache=True)
        logits.append(output.logits[0])
    return torch.tensor(generated), torch.cat(logits)


@torch.no_grad()
def write_reference(folder: Path, output: Path, lengths: tuple[int, ...], *, differentiable: bool = True) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    if hasattr(model.base_model, "rotary_emb"):
        tensors["inv_freq"] = model.model.rotary_emb.inv_freq.clone()
    for row, length in enumerate(lengths):
        prompt = torch.randint(model.config.vocab_size, (length,), generator=generator)
        generated, logits = run_row(model, prompt)
        tensors |= {f"prompt.{row}": prompt, f"generated.{row}": generated, f"logits.{row}": logits.float()}
    tensors |= batch(model.config.vocab_size, generator)
    differentiable = differentiable and model.dtype == torch.float32
    run_batch(model, tensors, "logits", "gradient" if differentiable else None)
    model = model.double()
    if model._supports_sdpa:
        model.set_attn_implementation("sdpa")
    with exactly(model):
        for row in range(len(lengths)):
            ids = torch.cat([tensors[f"prompt.{row}"], tensors[f"generated.{row}"]])
            tensors[f"exact.{row}"] = model(ids[None]).logits[0].contiguous()
        run_batch(model, tensors, "exact", "exact_gradient" if differentiable else None)
    save_file(tensors, output / "reference.safetensors")


def batch(vocab_size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    mask = torch.ones(BATCH, SEQ, dtype=torch.long)
    mask[1, -4:] = 0
    mask[2, :5] = 0
    mask[3, 4:6] = 0
    return {
        "ids": torch.randint(vocab_size, (BATCH, SEQ), generator=generator),
        "mask": mask,
        "weights": torch.randn((BATCH, SEQ, vocab_size), generator=generator) * mask[..., None],
    }


def run_batch(model: torch.nn.Module, tensors: dict[str, torch.Tensor], name: str, gradient: str | None) -> None:
    dtype = torch.float64 if name == "exact" else torch.float32
    tensors[f"plain.{name}"] = model(tensors["ids"]).logits.to(dtype)
    with torch.set_grad_enabled(gradient is not None):
        logits = model(tensors["ids"], attention_mask=tensors["mask"]).logits
        tensors[f"masked.{name}"] = logits.detach().to(dtype)
        if gradient is None:
            return
        parameters = dict(model.named_parameters())
        gradients = torch.autograd.grad((logits * tensors["weights"]).sum(), list(parameters.values()))
    tensors |= {f"{gradient}.{key}": value for key, value in zip(parameters, gradients, strict=True)}


def to_old_spelling(folder: Path) -> None:
    """config.json as transformers 4 wrote it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    parameters["type"] = parameters.pop("rope_type")
    config["rope_scaling"] = parameters
    config["torch_dtype"] = config.pop("dtype")
    del config["head_dim"]
    path.write_text(json.dumps(config))


def edit_weights(folder: Path, name: str) -> None:
    """Checkpoints as other tools and versions write them."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if name in SURPLUS:
        prefix, surplus = SURPLUS[name]
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
        tensors |= surplus
    elif name == "llama-tied-twice":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    elif name == "llama-untied-by-content":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0).clone()
    save_file(tensors, path, metadata={"format": "pt"})


def make(output: Path, name: str, dtype: torch.dtype, suffix: str) -> None:
    base, changes = VARIANTS[name]
    values = {**base, **changes}
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    generator = torch.Generator().manual_seed(sum(name.encode()))
    model = AutoModelForCausalLM.from_config(config)
    randomise(model, generator)
    folder = output / (name + suffix)
    model.to(dtype).save_pretrained(folder)
    edit_weights(folder, name)
    if name.endswith("-old-spelling"):
        to_old_spelling(folder)
    write_reference(folder, folder, LENGTHS)


def main() -> None:
    output = Path(sys.argv[1])
    torch.set_num_threads(1)
    for name in VARIANTS:
        make(output, name, torch.float32, "")
    for name in BFLOAT16:
        make(output, name, torch.bfloat16, "-bfloat16")
    for name in FLOAT16:
        make(output, name, torch.float16, "-float16")
    for given in map(Path, sys.argv[2:]):
        folder = output / given.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "folder").write_text(str(given.resolve()))
        write_reference(given, folder, (100, 3), differentiable=False)


if __name__ == "__main__":
    main()
