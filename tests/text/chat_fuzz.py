"""Random small templates over the supported part of Jinja."""

import random

CONTEXT = {
    "a": 3,
    "b": -2,
    "x": 2.5,
    "s": "Hello World",
    "t": "  ünï Code\n\tß\u3000",
    "w": "a,b,,c",
    "e": "",
    "n": None,
    "yes": True,
    "no": False,
    "l": [3, 1, 2],
    "m": ["b", "A", "c", "a"],
    "z": [],
    "d": {"k": "v", "n": 7, "items": [1, {"deep": "é"}], "B": None},
    "users": [
        {"name": "Zoe", "age": 31, "tags": ["x"], "ok": True},
        {"name": "adam", "age": 7, "tags": [], "ok": False},
        {"name": "Bob", "tags": ["y", "z"], "ok": None},
    ],
}
NAMES = [*CONTEXT, "missing", "i", "v"]
TESTS = [
    "defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float", "boolean",
    "true", "false", "odd", "even", "lower", "upper", "callable", "escaped", "divisibleby(2)", "divisibleby 3", "eq(3)",
    "equalto 'v'", "ne(1)", "in l", "in(m)", "sameas none", "gt 1", "lt(2)", "ge 3", "le(3)", "== 3", "filter", "test",
]
FILTERS = [
    "trim", "upper", "lower", "capitalize", "title", "length", "count", "first", "last", "join", "join(', ')", "join('-', attribute='name')",
    "replace('l', 'L')", "replace('a', '', 1)", "tojson", "tojson(indent=2)", "tojson(ensure_ascii=True)", "default('dflt')", "default('dflt', true)",
    "d(0)", "list", "string", "int", "int(5)", "float", "float(1.5)", "abs", "round", "round(1)", "round(1, 'floor')", "round(0, 'ceil')",
    "indent", "indent(2, true)", "indent('> ', first=true, blank=true)", "safe", "e", "reverse|list", "reverse", "sort", "sort(reverse=true)",
    "sort(case_sensitive=true)", "sort(attribute='age')", "sort(attribute='name')", "sort(attribute='ok,name')", "unique|list", "unique(true)|join",
    "map('upper')|list", "map(attribute='name')|list", "map(attribute='age', default=0)|join(';')", "map('default', 'q')|list", "map('replace', 'a', 'b')|join",
    "select|list", "reject|list", "select('odd')|list", "reject('none')|list", "select('gt', 1)|list", "selectattr('ok')|list",
    "selectattr('name', 'equalto', 'Bob')|list", "rejectattr('age', 'defined')|map(attribute='name')|list", "rejectattr('ok')|list|length",
    "items|list", "dictsort", "dictsort(reverse=true)", "dictsort(false, 'value')", "sum", "sum(attribute='age')", "sum(start=10)", "min", "max",
    "batch(2)|list", "batch(2, 'f')|list", "slice(2)|list", "slice(2, 'f')|list", "center(21)", "truncate(7)", "truncate(6, true, '..', 0)", "wordcount",
    "groupby('ok')", "attr('name')", "format(a)", "format('q', 2)", "first|default('none')",
]
METHODS = [
    ".strip()", ".strip('Hd ')", ".lstrip()", ".rstrip()", ".split()", ".split(',')", ".split(',', 1)", ".split(' ')[0]", ".split('o')[-1]", ".upper()",
    ".lower()", ".title()", ".capitalize()", ".replace('l', 'yy')", ".replace('', '-')", ".startswith('He')", ".endswith(('d', 'x'))", ".find('o')", ".find('o', 5)",
    ".rfind('o')", ".count('l')", ".index('W')", ".join(m)", ".join(['p', 'q'])", ".splitlines()", ".isdigit()", ".isalpha()", ".isupper()", ".islower()", ".isspace()",
    ".partition(' ')", ".rpartition('o')", ".removeprefix('He')", ".removesuffix('ld')", ".zfill(14)", ".center(16, '*')", ".ljust(13, '.')", ".rjust(13)", ".rsplit(',', 1)",
    ".rsplit(None, 1)", ".format(a)", ".casefold()", ".items()", ".keys()", ".values()", ".get('k')", ".get('zz', 5)", ".get('n')", ".keys()|list", ".values()|list", ".items()|list",
    ".k", ".n", ".items", ".name", "['k']", "['items'][1]", "['zz']", ".zz", "[0]", "[-1]", "[5]", "[1:]", "[:-1]", "[::-1]", "[::2]", "[-3:-1]", "[10:]", "[4:1:-1]",
    "[0].name", "[1]['age']", "[2].age", "[0].tags[0]", ".append(1)", ".__class__", "._private", ".index(1)", ".count(3)", ".copy()", ".pop()", "()",
]
SPACES = ["", "", " ", "\n", "  ", "\n  ", "\n\n", " t\n", "text", "é ", "<|x|>", "{", "%", "{ {", "}}", "\t"]


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.macros = 0
        self.loops = 0

    def pick(self, *choices):
        return self.random.choice(choices)

    def literal(self):
        return self.random.choice(
            ["0", "1", "2", "7", "-1", "10", "2.5", "0.1", "1e3", "1e16", "1_000", "0x1f", "'a'", "'b'", '"It\'s"', "'\\n'", "'tab\\t'", "'é'", "'%s-%d'", "'{} {}'", "''",
             "true", "false", "none", "True", "None", "[]", "{}", "()", "[1, 'b']", "(1,)", "(1, 2)", "{'k': 1}", "{'a': [1], 2: 'two'}", "range(3)", "range(4, 0, -2)",
             "dict(p=1, q='r')", "'\\u00e9\\x41\\101'", "'a' 'b'", "namespace(v=1).v"]
        )

    def atom(self):
        return self.random.choice(NAMES) if self.random.random() < 0.6 else self.literal()

    def expression(self, depth):
        r = self.random.random()
        if depth <= 0 or r < 0.15:
            return self.atom()
        sub = lambda: self.expression(depth - 1)  # noqa: E731
        if r < 0.33:
            return f"{self.atom()}{self.random.choice(METHODS)}"
        if r < 0.52:
            return f"{self.paren(sub())}|{self.random.choice(FILTERS)}"
        if r < 0.60:
            return f"{self.paren(sub())} is {self.pick('', 'not ')}{self.random.choice(TESTS)}"
        if r < 0.72:
            return f"{self.paren(sub())} {self.pick('+', '-', '*', '/', '//', '%', '~', '~', '+')} {self.paren(sub())}"
        if r < 0.80:
            return f"{self.paren(sub())} {self.pick('==', '!=', '<', '<=', '>', '>=', 'in', 'not in')} {self.paren(sub())}"
        if r < 0.86:
            return f"{self.paren(sub())} {self.pick('and', 'or')} {self.paren(sub())}"
        if r < 0.90:
            return f"{self.pick('not ', '-', '+')}{self.paren(sub())}"
        if r < 0.95:
            other = f" else {sub()}" if self.random.random() < 0.7 else ""
            return f"({sub()} if {sub()}{other})"
        if r < 0.97:
            return f"[{sub()}, {sub()}]"
        if r < 0.985:
            return f"{{{self.pick(chr(39) + 'p' + chr(39), 'a', '1')}: {sub()}}}"
        return f"{self.atom()} ** {self.pick('2', '3', '-1', '0.5')}"

    def paren(self, text):
        # Sometimes without, so that precedences are tried.
        return text if self.random.random() < 0.5 else f"({text})"

    def tag(self, text):
        return "{%" + self.pick("", "-", "+", "", "") + " " + text + " " + self.pick("", "-", "", "+", "") + "%}"

    def target(self):
        return self.pick("i", "v", "a", "s", "new", "missing")

    def block(self, depth):
        return "".join(self.statement(depth) for _ in range(self.random.randint(1, 3))) + self.random.choice(SPACES)

    def statement(self, depth):
        r = self.random.random()
        space = self.random.choice(SPACES)
        if depth <= 0 or r < 0.42:
            return space + "{{" + self.pick("", "-", "+", "") + " " + self.expression(3) + " " + self.pick("", "-", "") + "}}"
        if r < 0.56:
            text = self.tag("if " + self.expression(2)) + self.block(depth - 1)
            if self.random.random() < 0.3:
                text += self.tag("elif " + self.expression(2)) + self.block(depth - 1)
            if self.random.random() < 0.5:
                text += self.tag("else") + self.block(depth - 1)
            return space + text + self.tag("endif")
        if r < 0.72:
            return space + self.loop(depth)
        if r < 0.84:
            if self.random.random() < 0.2:
                return space + self.tag("set " + self.target() + self.pick("", " | upper", " | trim | length")) + self.block(depth - 1) + self.tag("endset")
            return space + self.tag(f"set {self.target()} = {self.expression(3)}")
        if r < 0.88:
            return space + self.tag(f"set ns = namespace(c=0, f={self.expression(1)})") + self.tag(f"for q in {self.pick('l', 'm', 'users')}") + self.tag(
                f"set ns.{self.pick('c', 'f', 'g')} = {self.pick('ns.c + 1', 'q', self.expression(2))}") + self.tag("endfor") + "{{ ns.c }}{{ ns.f }}{{ ns.g }}"
        if r < 0.92:
            self.macros += 1
            name = f"m{self.macros}"
            saved, self.loops = self.loops, 0
            body = self.block(depth - 1) + self.pick("", "{{ varargs }}", "{{ kwargs }}", "{{ caller() }}")
            self.loops = saved
            call = self.pick("", "1", "a, 'z'", "i=2", "v=s, i=a", "1, 2, 3", "q=1")
            text = self.tag(f"macro {name}({self.pick('', 'i', 'i, v=2', 'i=a, v=i')})") + body + self.tag("endmacro")
            if self.random.random() < 0.3:
                return space + text + self.tag(f"call {name}({call})") + self.block(depth - 1) + self.tag("endcall")
            return space + text + "{{ " + f"{name}({call})" + " }}"
        if r < 0.94:
            return space + self.tag(f"with v = {self.expression(2)}, i = {self.expression(1)}") + self.block(depth - 1) + self.tag("endwith")
        if r < 0.96:
            return space + self.tag("filter " + self.pick("upper", "trim|length", "indent(2)", "replace('a', 'b')")) + self.block(depth - 1) + self.tag("endfilter")
        if r < 0.98:
            return space + self.pick("{# c #}", "{#- c -#}", "{#+ c\n#}\n", "{% raw %}{{ r }}{% endraw %}", "{%- raw -%} {% x %} {%- endraw -%}\n")
        return space + self.tag("generation") + self.block(depth - 1) + self.tag("endgeneration")

    def loop(self, depth):
        head = self.pick("i in l", "i in m", "i, v in d.items()", "i in users", "i in s", "i in z", "v in range(3)", "i in missing", "k, v in d|items", "i in d", f"i in {self.expression(2)}",
                         "i in users|selectattr('ok')", "i in l|reverse")
        if self.random.random() < 0.25:
            head += f" if {self.pick('i', 'i != 1', 'loop', self.expression(1))}"
        parts = ["loop.index", "loop.index0", "loop.first", "loop.last", "loop.length", "loop.revindex", "loop.revindex0", "loop.previtem", "loop.nextitem", "loop.cycle('p', 'q')",
                 "loop.changed(i)", "i", "v", "loop.depth"]
        self.loops += 1
        body = "".join("{{ " + self.random.choice(parts) + " }}" for _ in range(self.random.randint(0, 2))) + self.block(depth - 1)
        if self.random.random() < 0.15:
            body += self.tag("if " + self.pick("loop.index > 1", self.expression(1))) + self.tag(self.pick("break", "continue")) + self.tag("endif") + "after"
        self.loops -= 1
        text = self.tag("for " + head) + body
        if self.random.random() < 0.2:
            text += self.tag("else") + self.block(depth - 1)
        return text + self.tag("endfor")

    def template(self):
        # Now and then something is cut out, so that broken templates are tried too.
        text = self.block(3)
        if self.random.random() < 0.05 and len(text) > 4:
            start = self.random.randrange(len(text) - 2)
            text = text[:start] + text[start + self.random.randint(1, 3):]
        return text
