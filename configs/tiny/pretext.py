"""Programs for the base model to learn Python's manners from: `basics` in format, but none of its operations.

Signature, docstring, body: a model trained on these rows learns to follow a docstring statement by statement and to
copy constants and names, while every phrase and every expression that `basics` asks for stays unknown to it.
"""

from __future__ import annotations

import keyword
import random
from collections.abc import Iterator
from functools import partial

from engine.evaluate.benchmarks.basics import Form, Row, draw, function_call, operation

PLACES = tuple(range(1, 10))
NUMBERS = tuple(range(1, 100))
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
NAMES = ("f", "g", "h", "solve", "run", "work")
LEVEL_WEIGHTS = (25, 40, 35)

_int = partial(operation, "number", "int")
_str = partial(operation, "text", "str")
_ints = partial(operation, "list", "ints")
_words = partial(operation, "words", "words")
_dict = partial(operation, "dict", "dict")

OPERATIONS = (
    _int("shift", "int", ("shift it left by $k bits",), "n << $k", PLACES),
    _int("unshift", "int", ("shift it right by $k bits",), "n >> $k", PLACES),
    _int("union", "int", ("set the bits of $k",), "n | $k", NUMBERS),
    _int("mask", "int", ("mask it with $k",), "n & $k", NUMBERS),
    _int("mix", "int", ("mix its bits with $k",), "n ^ $k", NUMBERS),
    _int("invert", "int", ("invert its bits",), "~n"),
    _int("power", "int", ("raise it to the power $k",), "n ** $k", PLACES),
    _int("reflect", "int", ("reflect it in $k",), "$k - n", NUMBERS),
    _int("bits", "int", ("measure its bits",), "n.bit_length()"),
    _int("hex", "str", ("write it in hex",), "hex(n)"),
    _int("pad", "str", ("pad it with zeros to $k places",), "str(n).zfill($k)", PLACES),
    _int("range", "ints", ("list the range up to it",), "list(range(n))"),
    _int("pair", "pair", ("pair it with $k",), "(n, $k)", NUMBERS),
    _int("equal", "bool", ("check whether it equals $k",), "n == $k", NUMBERS),
    _int("split", "pair", ("split it into quotient and rest by $k",), "divmod(n, $k)", NUMBERS),
    _int("float", "float", ("make it a float over $k",), "n / $k", NUMBERS),
    _str("title", "str", ("make it a title",), "s.title()"),
    _str("center", "str", ("center it in $k places",), "s.center($k)", NUMBERS),
    _str("left", "str", ("align it left in $k places",), "s.ljust($k)", NUMBERS),
    _str("wrap", "str", ("wrap it in brackets",), '"(" + s + ")"'),
    _str("strip", "str", ("strip $k from both ends",), 's.strip("$k")', LETTERS),
    _str("middle", "str", ("cut off both ends",), "s[1:-1]"),
    _str("spread", "str", ("spread it with spaces",), '" ".join(s)'),
    _str("find", "int", ("find where $k is",), 's.find("$k")', LETTERS),
    _str("breaks", "words", ("break it at each $k",), 's.split("$k")', LETTERS),
    _str("chars", "words", ("list its characters",), "list(s)"),
    _str("codes", "ints", ("encode it as code points",), "[ord(c) for c in s]"),
    _str("starts", "bool", ("check whether it starts with $k",), 's.startswith("$k")', LETTERS),
    _str("three", "triple", ("cut it around $k",), 's.partition("$k")', LETTERS),
    _ints("power", "ints", ("raise every item to the power $k",), "[x ** $k for x in xs]", PLACES),
    _ints("shift", "ints", ("shift every item left by $k",), "[x << $k for x in xs]", PLACES),
    _ints("mask", "ints", ("mask every item with $k",), "[x & $k for x in xs]", NUMBERS),
    _ints("clip", "ints", ("clip every item at $k",), "[min(x, $k) for x in xs]", NUMBERS),
    _ints("bit", "ints", ("select items whose bit $k is set",), "[x for x in xs if x >> $k & 1]", PLACES),
    _ints("near", "ints", ("select items between 0 and $k",), "[x for x in xs if 0 <= x <= $k]", NUMBERS),
    _ints("ends", "ints", ("swap the ends",), "xs[-1:] + xs[1:-1] + xs[:1]"),
    _ints("merge", "ints", ("merge neighbours",), "[x + y for x, y in zip(xs, xs[1:])]"),
    _ints("insert", "ints", ("splice $k in at the start",), "[$k, *xs]", NUMBERS),
    _ints("any", "bool", ("check whether $k is among them",), "$k in xs", NUMBERS),
    _ints("all", "bool", ("check whether all are truthy",), "all(xs)"),
    _ints("number", "pairs", ("enumerate them from $k",), "list(enumerate(xs, $k))", NUMBERS),
    _ints("set", "set", ("gather them in a set",), "set(xs)"),
    _ints("plus", "str", ("join them with plus signs",), '"+".join(map(str, xs))'),
    _ints("hex", "words", ("convert every item to hex",), "[hex(x) for x in xs]"),
    _words("title", "words", ("make titles of them",), "[w.title() for w in ws]"),
    _words("pad", "words", ("pad them to $k places",), "[w.ljust($k) for w in ws]", NUMBERS),
    _words("strip", "words", ("strip $k from all of them",), '[w.strip("$k") for w in ws]', LETTERS),
    _words("alpha", "words", ("select alphabetic ones",), "[w for w in ws if w.isalpha()]"),
    _words("ends", "words", ("select those with $k last",), '[w for w in ws if w.endswith("$k")]', LETTERS),
    _words("glue", "str", ("glue them with $k",), '"$k".join(ws)', LETTERS),
    _words("find", "ints", ("locate $k in all of them",), '[w.find("$k") for w in ws]', LETTERS),
    _words("places", "table", ("map places to them",), "dict(enumerate(ws))"),
    _words("fill", "dict", ("use them as keys for $k",), "dict.fromkeys(ws, $k)", NUMBERS),
    _dict("swap", "table", ("swap keys and values",), "{x: w for w, x in d.items()}"),
    _dict("order", "dict", ("order it by key",), "dict(sorted(d.items()))"),
    _dict("reset", "dict", ("reset all of it to $k",), "dict.fromkeys(d, $k)", NUMBERS),
    _dict("extend", "dict", ("extend it with the key $k",), '{**d, "$k": 0}', LETTERS),
    _dict("shift", "dict", ("shift its numbers left by $k",), "{w: x << $k for w, x in d.items()}", PLACES),
    _dict("get", "int", ("look up $k in it",), 'd.get("$k", 0)', LETTERS),
    _dict("pairs", "pairs", ("list its pairs",), "list(d.items())"),
)

_while = partial(operation, "while", "while")
_branch = partial(operation, "branch", "branch")
_scan = partial(operation, "scan", "scan")
_pair = partial(operation, "pair", "pair")

WHILE = Form(
    name="while",
    header="def $name(n):",
    sentence="While n $test, $change and $tick; finally give $out.",
    body="    c = $before\n    while $test:\n        n = $change\n        c $tick\n    return $out\n",
    names=NAMES,
    call=partial(function_call, "int"),
    slots={
        "test": (
            _while("over", "test", ("exceeds $k",), "n > $k", NUMBERS),
            _while("reach", "test", ("reaches $k",), "n >= $k", NUMBERS[1:]),
            _while("bits", "test", ("has over $k bits",), "n.bit_length() > $k", PLACES),
        ),
        "change": (
            _while("shift", "change", ("shift n right by $k",), "n >> $k", PLACES),
            _while("clear", "change", ("clear the lowest bit",), "n & n - 1"),
            _while("root", "change", ("take the root of n",), "int(n ** 0.5)"),
        ),
        "tick": (
            _while("up", "tick", ("raise c from $k",), "+= 1", NUMBERS, before="$k"),
            _while("shift", "tick", ("shift c from $k",), "<<= 1", NUMBERS, before="$k"),
            _while("mix", "tick", ("mix n into c from $k",), "^= n", NUMBERS, before="$k"),
        ),
        "out": (
            _while("c", "out", ("c",), "c"),
            _while("both", "out", ("both",), "(n, c)"),
            _while("or", "out", ("c or $k",), "c or $k", NUMBERS),
        ),
    },
)

_GIVEN = (
    _branch("letter", "given", ("the letter $k",), '"$k"', LETTERS),
    _branch("title", "given", ("its title",), "s.title()"),
    _branch("center", "given", ("it centered in $k",), "s.center($k)", NUMBERS),
    _branch("fill", "given", ("it filled to $k",), "s.zfill($k)", NUMBERS),
    _branch("none", "given", ("nothing",), "None"),
    _branch("number", "given", ("the number $k",), "$k", NUMBERS),
)

BRANCH = Form(
    name="branch",
    header="def $name(s):",
    sentence="When s $test give $yes, or else $no.",
    body="    if $test:\n        return $yes\n    return $no\n",
    names=NAMES,
    call=partial(function_call, "str"),
    slots={
        "test": (
            _branch("alpha", "test", ("is alphabetic",), "s.isalpha()"),
            _branch("lower", "test", ("is all small",), "s.islower()"),
            _branch("ends", "test", ("ends in $k",), 's.endswith("$k")', LETTERS),
            _branch("starts", "test", ("begins with $k",), 's.startswith("$k")', LETTERS),
            _branch("empty", "test", ("is empty",), "not s"),
        ),
        "yes": _GIVEN,
        "no": _GIVEN,
    },
)

SCAN = Form(
    name="scan",
    header="def $name(xs):",
    sentence="Scan the items; $test, $act.",
    body="    r = $before\n    for i, x in enumerate(xs):\n        if $test:\n            $act\n    return r\n",
    names=NAMES,
    call=partial(function_call, "ints"),
    slots={
        "test": (
            _scan("past", "test", ("past place $k",), "i > $k", PLACES),
            _scan("places", "test", ("at odd places",), "i & 1"),
            _scan("bit", "test", ("if bit $k is set",), "x >> $k & 1", PLACES),
            _scan("near", "test", ("if within $k",), "-$k <= x <= $k", NUMBERS),
        ),
        "item": (
            _scan("place", "item", ("the place",), "i"),
            _scan("pair", "item", ("the pair",), "(i, x)"),
            _scan("mix", "item", ("a mix with $k",), "x ^ $k", NUMBERS),
            _scan("shift", "item", ("a shift by $k",), "x << $k", PLACES),
        ),
        "act": (
            _scan("add", "act", ("save $item in a set",), "r.add($item)", before="set()"),
            _scan("key", "act", ("make $item a key",), "r[$item] = None", before="{}"),
            _scan("last", "act", ("remember $item",), "r = $item", before="None"),
            _scan("nest", "act", ("nest $item deeper",), "r = ($item, r)", before="()"),
        ),
    },
)

_KEPT = (
    _pair("a", "kept", ("a",), "a"),
    _pair("b", "kept", ("b",), "b"),
    _pair("mask", "kept", ("a masked with $k",), "a & $k", NUMBERS),
    _pair("shift", "kept", ("b shifted by $k",), "b << $k", PLACES),
    _pair("power", "kept", ("a to the power b",), "a ** b"),
)

PAIR = Form(
    name="pair",
    header="class $name:",
    sentence="$name(a, b) keeps $first as a and $second as b, show() tells $out.",
    body=(
        "    def __init__(self, a, b):\n        self.a = $first\n        self.b = $second\n"
        "    def show(self):\n        return $out\n"
    ),
    names=("Pair", "Point", "Item", "Node"),
    call=lambda rng, name, number: f"{name}({rng.randint(0, 9)}, {number}).show()",
    slots={
        "first": _KEPT,
        "second": _KEPT,
        "out": (
            _pair("both", "out", ("both",), "(self.a, self.b)"),
            _pair("order", "out", ("whether they are in order",), "self.a <= self.b"),
            _pair("text", "out", ("them as text",), 'f"{self.a}:{self.b}"'),
            _pair("union", "out", ("their union of bits",), "self.a | self.b"),
            _pair("equal", "out", ("whether a equals $k",), "self.a == $k", NUMBERS),
        ),
    },
)

FORMS = (WHILE, BRANCH, SCAN, PAIR)


ECHO_PERCENT = 25
"""Share of rows that only ask to repeat what they name: copying is learnt from these before the rest makes sense."""


def _words(rng: random.Random, count: int) -> list[str]:
    """Different names that Python takes, of random letters: English words, tried too, delay copying."""
    found: dict[str, None] = {}
    while len(found) < count:
        word = "".join(rng.choices(LETTERS, k=rng.randint(1, 4)))
        if not keyword.iskeyword(word):
            found[word] = None
    return list(found)


def _echo(rng: random.Random) -> tuple[str, str]:
    """A prompt that names numbers, letters and words, and the completion that repeats them."""
    name, *words = _words(rng, rng.randint(3, 6))
    numbers = [str(rng.choice(NUMBERS)) for _ in words]
    shape = rng.randrange(4)
    if shape == 0:
        values = [rng.choice(pair) for pair in zip((f'"{word}"' for word in words), numbers, strict=True)]
        said = " ".join(value.strip('"') for value in values)
        return f'def {name}():\n    """Name {said}."""\n', f"    return [{', '.join(values)}]\n"
    if shape == 1:
        order = rng.sample(words, len(words))
        head = f'def {name}({", ".join(words)}):\n    """Order {" ".join(order)}."""\n'
        return head, f"    return {', '.join(order)}\n"
    if shape == 2:
        said = ", ".join(f"{word} be {number}" for word, number in zip(words, numbers, strict=True))
        lines = "".join(f"    {word} = {number}\n" for word, number in zip(words, numbers, strict=True))
        return f'def {name}():\n    """Let {said}."""\n', f"{lines}    return {words[0]}\n"
    return (
        f'def {name}(n):\n    """Call itself with {" ".join(numbers)}."""\n',
        f"    return {name}({', '.join(numbers)})\n",
    )


def training_rows(count: int, seed: int = 0) -> Iterator[Row]:
    """Deterministic rows in the format of `basics`; the first n rows are the same for any count."""
    rng = random.Random(f"pretext/{seed}")
    for number in range(count):
        if rng.randrange(100) < ECHO_PERCENT:
            prompt, completion, family = *_echo(rng), "echo"
        else:
            problem = draw(rng, rng.choices((1, 2, 3), LEVEL_WEIGHTS)[0], OPERATIONS, FORMS)
            prompt, completion, family = problem.prompt, problem.completion, problem.family
        yield Row(id=f"pretext-{seed}:{number}", prompt=prompt, completion=completion, family=family)
