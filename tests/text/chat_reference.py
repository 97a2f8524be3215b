"""Compares the chat templates of Shardpipe with transformers and jinja2.

    chat_reference.py RENDERER {templates,language,characters,folders,fuzz} [--seed N] [--count N]

RENDERER is the program of chat_render.cpp. Exit status 1 and one line per difference when there are any. The random
templates begin with seed 1, with SHARDPIPE_SOAK set anywhere.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from jinja2.sandbox import SandboxedEnvironment  # noqa: E402
from transformers.utils.chat_template_utils import render_jinja_template  # noqa: E402

import chat_fuzz  # noqa: E402
import chat_language  # noqa: E402
import chat_templates  # noqa: E402


class Renderer:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

    def __call__(self, **job):
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the renderer died on {json.dumps(job)}")
        return json.loads(line)


def reference(template, messages=(), add_generation_prompt=False, variables=None):
    variables = dict(variables or {})
    try:
        texts, _ = render_jinja_template(
            conversations=[list(messages)], chat_template=template, add_generation_prompt=add_generation_prompt,
            tools=variables.pop("tools", None), documents=variables.pop("documents", None), **variables)
        text = texts[0]
        text.encode("utf-8")
        return {"text": text}
    except RecursionError:
        raise
    except Exception as error:  # noqa: BLE001
        return {"error": f"{type(error).__name__}: {error}"}


class Comparison:
    def __init__(self, program):
        self.render = Renderer(program)
        self.compared = self.rendered = self.failed = 0

    def check(self, label, **job):
        self.judge(label, self.render(**job), lambda: reference(**job))

    def judge(self, label, ours, make_theirs):
        theirs = make_theirs()
        if "text" in ours and "text" in theirs and ours != theirs:
            theirs = make_theirs()  # a date may have changed in between
        self.compared += 1
        self.rendered += "text" in theirs
        if ("error" in ours) != ("error" in theirs) or ours.get("text") != theirs.get("text"):
            self.failed += 1
            if self.failed <= 20:
                print(f"DIFFERENT {label}\n  ours   {json.dumps(ours, ensure_ascii=False)[:600]}\n  theirs {json.dumps(theirs, ensure_ascii=False)[:600]}")


def check_templates(comparison, options):
    for name, template in chat_templates.TEMPLATES.items():
        for chat, messages in chat_templates.conversations().items():
            for kind, variables in chat_templates.variables().items():
                for prompt in (True, False):
                    comparison.check(
                        f"template {name}, conversation {chat}, variables {kind}, prompt {prompt}",
                        template=template, messages=messages, add_generation_prompt=prompt, variables=variables)


def check_language(comparison, options):
    for template in chat_language.CASES:
        comparison.check(f"template {template!r}", template=template, variables=chat_fuzz.CONTEXT)


def check_characters(comparison, options):
    """Every assigned character through what depends on tables of Unicode."""
    points = [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
    template = (
        "{% for c in texts %}{{ c|upper }}|{{ c|lower }}|{{ c|capitalize }}|{{ c.title() }}|{{ c.casefold() }}|{{ ('A' ~ c ~ 'Σ')|lower }}|"
        "{{ ('x' ~ c ~ 'y').split() }}|{{ [c] }}|{{ c|tojson }}|{{ (c ~ 'z')|title }}|{{ c.isalpha() }}{{ c.isdigit() }}{{ c.isdecimal() }}"
        "{{ c.isspace() }}{{ c.isupper() }}{{ c.islower() }}{{ c.strip()|length }}{{ c.splitlines()|length }}|{% endfor %}")
    import unicodedata
    # The tables behind the two may be of different versions: only characters that this Python knows.
    known = [c for c in points if unicodedata.category(c) != "Cn"]
    for start in range(0, len(known), 2000):
        part = known[start:start + 2000]
        if unicodedata.category(part[0]) == unicodedata.category(part[-1]) == "Co":
            continue
        comparison.check(f"characters from U+{ord(part[0]):04X}", template=template, variables={"texts": part})


def check_folders(comparison, options):
    """ChatTemplate::from_folder against the tokenizer that transformers loads from the same folder."""
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer

    messages = chat_templates.conversations()["system_turns"]
    show = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}|{{ image_token }}|{% for m in messages %}{{ m.content }}{% endfor %}"
    added = {"0": {"content": "<s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}}
    base = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}}
    cases = {
        "text": {"tokenizer_config.json": {**base, "chat_template": show}},
        "list": {"tokenizer_config.json": {**base, "chat_template": [{"name": "tool_use", "template": "T" + show}, {"name": "default", "template": show}]}},
        "only named": {"tokenizer_config.json": {**base, "chat_template": [{"name": "rag", "template": show}]}},
        "none": {"tokenizer_config.json": base},
        "file": {"tokenizer_config.json": {**base, "chat_template": "old"}, "chat_template.jinja": show + "\n"},
        "files": {"tokenizer_config.json": base, "chat_template.jinja": show, "additional_chat_templates/tool_use.jinja": "T" + show},
        "map": {"tokenizer_config.json": {**base, "chat_template": show}, "special_tokens_map.json": {"bos_token": "<b>", "pad_token": {"content": "<p>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}}},
        "map not read": {"tokenizer_config.json": {**base, "chat_template": show, "added_tokens_decoder": added}, "special_tokens_map.json": {"bos_token": "<b>"}},
        "extra": {"tokenizer_config.json": {**base, "chat_template": show, "image_token": "<img>", "pad_token": None}},
        "extra named": {"tokenizer_config.json": {**base, "chat_template": show, "extra_special_tokens": {"image_token": "<i>"}}},
    }
    for name, files in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            vocabulary = {"<s>": 0, "</s>": 1, "<unk>": 2, "a": 3}
            Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")).save(f"{folder}/tokenizer.json")
            for path, content in files.items():
                target = Path(folder, path)
                target.parent.mkdir(exist_ok=True)
                target.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
            for tools in (None, [chat_templates.TOOL]):
                ours = comparison.render(folder=folder, messages=messages, add_generation_prompt=True, variables={"tools": tools})

                def theirs(folder=folder, tools=tools):
                    try:
                        tokenizer = AutoTokenizer.from_pretrained(folder)
                        return {"text": tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)}
                    except Exception as error:  # noqa: BLE001
                        return {"error": str(error)}

                comparison.judge(f"folder with {name}, tools {tools is not None}", ours, theirs)


class Method:
    """A method that a template took from a value, and remembers being printed: its text holds an address."""

    printed = False

    def __init__(self, method):
        self.method = method

    def __call__(self, *arguments, **named):
        return self.method(*arguments, **named)

    def __repr__(self):
        Method.printed = True
        return repr(self.method)


def prints_a_method(job):
    """Whether the reference prints a method, which later steps of the template may make unrecognisable."""
    getattr_of = SandboxedEnvironment.getattr

    def wrapped(environment, value, name):
        found = getattr_of(environment, value, name)
        return Method(found) if type(found) is type("".strip) else found

    Method.printed = False
    SandboxedEnvironment.getattr = wrapped
    render_jinja_template.__globals__["_compile_jinja_template"].cache_clear()
    try:
        reference(**job)
    finally:
        SandboxedEnvironment.getattr = getattr_of
        render_jinja_template.__globals__["_compile_jinja_template"].cache_clear()
    return Method.printed


# What is not compared: addresses in printed objects; integers beyond 64 bits, which are refused here; slices of what
# cannot be sliced or by what is no index, which jinja2 gives as undefined instead of failing when it folds constants.
REFUSED = re.compile("beyond 64 bits|object is not subscriptable|slice indices must be integers")
NOT_COMPARED = re.compile(r"<(built-in |bound )?(method|function|generator|Macro|class|filter|map|list_reverseiterator|reversed|range_iterator|dict_\w+iterator|\w*LoopContext|.* object at 0x)|Macro '|TemplateDict")


def check_fuzz(comparison, options):
    count = options.count or int(3000 * float(os.environ.get("SHARDPIPE_FUZZ_SCALE", "1")))
    anywhere = random.SystemRandom().randrange(1 << 30)
    seed = options.seed if options.seed is not None else anywhere if os.environ.get("SHARDPIPE_SOAK") else 1
    for current in range(seed, seed + count):
        template = chat_fuzz.Generator(current).template()
        job = {"template": template, "variables": chat_fuzz.CONTEXT}
        theirs = reference(**job)
        ours = comparison.render(**job)
        if NOT_COMPARED.search(theirs.get("text", "")) or REFUSED.search(ours.get("error", "")):
            continue
        if ours != theirs and "text" in ours and "text" in theirs and prints_a_method(job):
            continue
        before = comparison.failed
        comparison.judge(f"template {template!r}", ours, lambda theirs=theirs: theirs)
        if comparison.failed > before:
            print(f"  again: {sys.argv[0]} {sys.argv[1]} fuzz --seed {current} --count 1")
    print(f"seeds {seed} to {seed + count - 1}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("renderer")
    parser.add_argument("part", choices=["templates", "language", "characters", "folders", "fuzz"])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--count", type=int)
    options = parser.parse_args()
    comparison = Comparison(options.renderer)
    globals()[f"check_{options.part}"](comparison, options)
    print(f"{comparison.compared} compared, {comparison.rendered} of them rendered, {comparison.failed} different")
    sys.exit(1 if comparison.failed or not comparison.compared else 0)


if __name__ == "__main__":
    main()
