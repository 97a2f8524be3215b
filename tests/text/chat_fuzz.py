"""Random small templates over the supported part of Jinja."""

import random
import re

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
# Expressions by the type they give; {t}, {i}, {l} ... stand for an inner expression of that type:
# t text, i integer, r float, b boolean, l list, u list of dicts, d dict, a anything, ? what may be undefined.
RULES = {
    "t": [
        "s", "t", "w", "e", "m[0]", "d.k", "users[0].name", "'a'", '"It\'s"', "'\\n'", "'tab\\t'", "'é'", "''", "'\\u00e9\\x41\\101'", "'a' 'b'",
        "{t}.strip()", "{t}.strip('Hd ')", "{t}.lstrip()", "{t}.rstrip({t})", "{t}.split()[0]", "{t}.split({t} or ' ')[-1]", "{t}.split(',', 1)[0]",
        "{t}.upper()", "{t}.lower()", "{t}.title()", "{t}.capitalize()", "{t}.casefold()", "{t}.replace('l', {t})", "{t}.replace({t}, 'yy', {i})", "{t}.replace('', '-')",
        "{t}.join({t})", "{t}.join(m)", "{t}.partition(' ')[0]", "{t}.rpartition('o')[2]", "{t}.removeprefix('He')", "{t}.removesuffix({t})", "{t}.zfill({i})",
        "{t}.center({i}, '*')", "{t}.ljust({i}, '.')", "{t}.rjust({i})", "'{} {}'.format({a}, {i})", "'{0:>5}|{1!r}|{x:.2f}'.format({t}, {t}, x={r})", "'%s-%d'|format({t}, {i})",
        "'%5s|%-4s|%r' % ({t}, {t}, {t})", "'%03d %+.1f %x' % ({i}, {r}, 255)", "{t}[0]", "{t}[{i}:]", "{t}[:-1]", "{t}[::-1]", "{t}[{i}:{i}]", "{t}[{i}:{i}:-1]", "{t}[::2]", "{t}[none:{i}]",
        "{t}|trim", "{t}|trim({t})", "{t}|upper", "{t}|lower", "{t}|capitalize", "{t}|title", "{t}|replace({t}, {t})", "{t}|replace('a', '', 1)", "{a}|tojson", "{d}|tojson(indent=2)",
        "{l}|tojson(indent={i})", "{u}|tojson(sort_keys=true, separators=(',', ':'))", "{t}|tojson(ensure_ascii=True)", "{a}|string", "{t}|indent", "{t}|indent({i}, true)",
        "{t}|indent('> ', first=true, blank=true)", "{t}|safe", "{t}|e", "{t}|reverse", "{t}|center(21)", "{t}|truncate(7)", "{t}|truncate(6, true, '..', 0)", "{l}|join", "{l}|join(', ')",
        "{u}|join('-', attribute='name')", "{l}|map('string')|join({t})", "{l}|map('upper')|join", "({t} + {t})", "({t} * {i})", "({a} ~ {a})", "{t} ~ {i}", "{t}|default({t})", "{?}|default({t})",
        "{?}|d({t}, true)", "({t} if {b} else {t})", "({t} if {b})", "{t}|first", "{t}|last", "m|sort|first", "{t}|list|join", "dict(p=1, q='r').q", "namespace(v={t}).v", "{l}|string", "{d}|string",
    ],
    "i": [
        "a", "b", "0", "1", "2", "7", "-1", "0x1f", "1_000", "d.n", "users[0]['age']", "{t}|length", "{l}|length", "{d}|count", "{t}.find('o')", "{t}.find({t}, {i})", "{t}.rfind('o', 1, -1)",
        "{t}.count({t})", "{l}.count({a})", "l.index(1)", "({i} + {i})", "({i} - {i})", "({i} * {i}) % 9", "({i} // 3)", "({i} % -4)", "-{i}", "{i}|abs", "{t}|int", "{t}|int(5)", "'42.9'|int", "{r}|int",
        "{i}|round", "l|sum", "{u}|sum(attribute='missing', start=1) if false else {i}", "users[:2]|sum(attribute='age')", "l|max", "l|min", "{t}|wordcount", "({i} if {b} else {i})", "{i} ** 2 % 50",
        "range(3)|sum", "range({i} % 5)|length", "loop.index if false else {i}", "{b}|int",
    ],
    "r": ["x", "2.5", "0.1", "1e3", "1e16", "1.5e-7", "({i} / 4)", "({r} + {i})", "({r} * {r}) % 7", "{r} // 2", "{t}|float", "'1e3'|float", "{r}|round(1)", "{r}|round(1, 'floor')", "{r}|round(0, 'ceil')", "{r}|abs", "{i}|float", "2 ** -1", "-{r}"],
    "b": [
        "yes", "no", "true", "False", "{a} == {a}", "{a} != {a}", "{i} < {i}", "{i} <= {r}", "{t} > {t}", "{t} >= {t}", "1 < {i} <= 9", "{t} in {t}", "{a} in {l}", "{t} not in {d}", "not {a}", "({b} and {b})",
        "({b} or {b})", "{a} is defined", "{?} is not defined", "{?} is undefined", "{a} is none", "{a} is not none", "{a} is string", "{a} is mapping", "{a} is iterable", "{a} is sequence", "{a} is number",
        "{a} is integer", "{a} is float", "{a} is boolean", "{a} is true", "{a} is false", "{i} is odd", "{i} is even", "{t} is lower", "{t} is upper", "{a} is callable", "{t} is escaped", "{i} is divisibleby(2)",
        "{i} is divisibleby 3", "{a} is eq(3)", "{a} is equalto 'v'", "{a} is ne({a})", "{a} is in l", "{a} is in({l})", "{a} is sameas none", "{i} is gt 1", "{i} is lt(2)", "{i} is ge 3", "{i} is le({i})", "{i} is == 3",
        "{t} is filter", "{t} is test", "{t}.startswith('He')", "{t}.startswith({t})", "{t}.endswith(('d', 'x'))", "{t}.isdigit()", "{t}.isalpha()", "{t}.isupper()", "{t}.islower()", "{t}.isspace()", "{?}|default(false)",
        "{l} == {l}", "{d} == {d}", "users[0].ok",
    ],
    "l": [
        "l", "m", "z", "[]", "()", "[1, 'b']", "(1,)", "[{a}, {a}]", "({a}, {t})", "range(3)|list", "range(4, 0, -2)|list", "{t}.split(',')", "{t}.split()", "{t}.split('o', 1)", "{t}.rsplit(',', 1)", "{t}.rsplit(None, 1)",
        "{t}.splitlines()", "{t}.splitlines(true)", "{t}|list", "{d}|list", "{d}.items()|list", "{d}.keys()|list", "{d}.values()|list", "{d}|items|list", "{d}|dictsort(false)", "dict(b=2, A=1)|dictsort(true)",
        "dict(b=2, a=3)|dictsort(reverse=true, by='value')", "{l}|reverse|list", "l|sort", "m|sort", "m|sort(reverse=true, case_sensitive=true)", "{l}|map('string')|sort", "{l}|unique|list", "m|unique(true)|list",
        "{u}|map(attribute='name')|list", "{u}|map(attribute='age', default=0)|list", "{u}|map(attribute='tags.0')|list", "{l}|map('default', 'q')|list", "{l}|map('tojson')|list", "m|map('replace', 'a', 'b')|list",
        "{l}|select|list", "{l}|reject|list", "l|select('odd')|list", "{l}|reject('none')|list", "l|select('gt', 1)|list", "{l}|select('in', {l})|list", "{l}|select('string')|list", "{l}|batch(2)|list", "{l}|batch(2, 'f')|list",
        "{l}|slice(2)|list", "{l}|slice(3, 'f')|list", "(l + l)", "l * 2", "{l}[1:]", "{l}[::-1]", "{l}[{i}:{i}]", "{l}[:{i}]", "({l} if {b} else {l})", "{?} or {l}", "d['items']", "{u}|groupby('ok', default=1)|list if false else {l}",
    ],
    "u": ["users", "users[1:]", "{u}|selectattr('ok')|list", "users|selectattr('name', 'equalto', 'Bob')|list", "{u}|rejectattr('age', 'defined')|list", "{u}|rejectattr('ok')|list", "users[:2]|sort(attribute='age')",
          "{u}|sort(attribute='name')", "{u}|sort(attribute='name', reverse=true)", "{u}|unique(attribute='ok')|list", "{u}|reverse|list", "{u}|selectattr('tags')|list", "{u}|selectattr('tags.0', 'eq', 'x')|list",
          "[{d}, users[0]]|selectattr('name', 'defined')|list"],
    "d": ["d", "users[0]", "{}", "{'k': {a}}", "{'a': [1], 2: 'two'}", "dict(p=1, q={a})", "dict({d}, r={a})", "dict([('x', {a})])", "d['items'][1]", "({d} if {b} else {d})", "{d}.copy()", "{{t}: {a}}", "{u}|first|default({})"],
    "?": ["missing", "d.zz", "d['zz']", "d.k", "d.get('n')", "d.get('zz')", "d.B", "users[1]['zip']", "l[9]", "n", "none", "s.foo", "m|first", "z|first", "z|last", "({a} if {b})", "i", "v", "users[2].age", "l.append", "d.__class__", "d._x", "none.foo"],
    "a": ["{t}", "{t}", "{i}", "{r}", "{b}", "{l}", "{d}", "{u}", "{?}", "none"],
}
FILTERS = ["trim", "upper", "length", "first", "last", "join", "list", "string", "int", "float", "abs", "round", "sort", "reverse", "tojson", "items", "dictsort", "sum", "min", "unique|list", "map('upper')|list", "safe", "e"]
METHODS = [".strip()", ".items()", ".k", ".name", "[0]", "[-1]", "['k']", ".split()", ".get('k')", ".pop()", "()", ".append(1)", ".keys()", ".__class__", "._private", ".upper", "|items|list"]
SPACES = ["", "", " ", "\n", "  ", "\n  ", "\n\n", " t\n", "text", "é ", "<|x|>", "{", "%", "{ {", "}}", "\t"]


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.macros = 0
        self.loops = 0

    def pick(self, *choices):
        return self.random.choice(choices)

    def expression(self, depth, kind="a"):
        if self.random.random() < 0.01:
            # Whatever the types say: errors must be the same too.
            subject = self.paren(self.expression(depth - 1))
            return self.pick(f"{subject}|{self.random.choice(FILTERS)}", f"{subject}{self.random.choice(METHODS)}",
                             f"{subject} {self.pick('+', '-', '*', '/', '//', '%', '**', '<', 'in')} {self.paren(self.expression(depth - 1))}")
        rules = RULES[kind]
        if depth <= 0 and kind != "a":
            rules = [rule for rule in rules if not re.search(r"\{[a-z?]\}", rule)]
        rule = self.random.choice(rules)
        return re.sub(r"\{([a-z?])\}", lambda match: self.inner(match[1], depth if kind == "a" else depth - 1), rule)

    def inner(self, kind, depth):
        text = self.expression(depth, kind)
        return text if re.fullmatch(r"\w+|'[^'\\\\]*'", text) else f"({text})"

    def paren(self, text):
        # Sometimes without, so that precedences are tried.
        return text if self.random.random() < 0.5 else f"({text})"

    def tag(self, text):
        return "{%" + self.pick("", "-", "+", "", "") + " " + text + " " + self.pick("", "-", "", "+", "") + "%}"

    def target(self):
        return self.pick("i", "v", "a", "s", "new", "missing")

    def block(self, depth):
        return "".join(self.statement(depth) for _ in range(self.random.randint(1, 2))) + self.random.choice(SPACES)

    def statement(self, depth):
        r = self.random.random()
        space = self.random.choice(SPACES)
        if depth <= 0 or r < 0.42:
            return space + "{{" + self.pick("", "-", "+", "") + " " + self.expression(3) + " " + self.pick("", "-", "") + "}}"
        if r < 0.56:
            text = self.tag("if " + self.expression(2, self.pick("b", "a"))) + self.block(depth - 1)
            if self.random.random() < 0.3:
                text += self.tag("elif " + self.expression(2, "b")) + self.block(depth - 1)
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
            body = self.block(depth - 1) + self.pick("", "{{ varargs }}", "{{ kwargs }}", "{{ caller() if caller else 0 }}")
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
        head = self.pick("i in l", "i in m", "i, v in d.items()", "i in users", "i in s", "i in z", "v in range(3)", "i in missing", "k, v in d|items", "i in d", f"i in {self.expression(2, self.pick(*chr(108)*3, *chr(117)+chr(116)+chr(63)))}",
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
