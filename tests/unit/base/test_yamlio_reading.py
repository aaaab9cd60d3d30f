"""The YAML reader: what it takes, what it refuses, and that it says where."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from modelberth.base.errors import Problem, SpecError
from modelberth.base.yamlio import MAX_BYTES, MAX_DEPTH, Position, path_text, read_document, write_documents


def read(content: str | bytes) -> Any:
    return read_document(content.encode() if isinstance(content, str) else content, "f.yaml").data


def refused(content: str | bytes) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        read(content)
    assert caught.value.problems.source == "f.yaml"
    return caught.value.problems.items


# --- what is taken -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("text", "text"), ("a b", "a b"), ("'1'", "1"), ('"no"', "no"), ('"\\u00e9"', "é"), ("''", ""),
        ("1", 1), ("-0", 0), ("+5", 5), ("9" * 19, 10**19 - 1), ("-" + "9" * 19, 1 - 10**19),
        ("1.5", 1.5), ("-0.25", -0.25), ("1.0e+3", 1000.0),
        ("true", True), ("False", False), ("", None), ("~", None), ("null", None),
        ("0.15.2", "0.15.2"), ("s3://a/b/", "s3://a/b/"), ("x1e3", "x1e3"), ("[1, a]", [1, "a"]), ("{}", {}),
        ("|\n  a\n  b\n", "a\nb\n"), (">-\n  a\n  b\n", "a b"),
    ],
)  # fmt: skip
def test_values(scalar: str, value: Any):
    found = read(f"key: {scalar}")["key"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfa: 1",
        b"a: 1\r\n",
        b"---\na: 1\n...\n",
        b"# note\na: 1",
        b"%YAML 1.2\n---\na: 1",
        b'"a": 1',
    ],
)
def test_harmless_differences_of_form(content: bytes):
    assert read(content) == {"a": 1}


def test_the_deepest_and_the_largest_that_are_taken():
    depth = MAX_DEPTH - 1
    assert read("a: " + "[" * depth + "]" * depth)["a"] is not None
    padding = "#" * (MAX_BYTES - 5)
    assert read(f"a: 1\n{padding}") == {"a": 1}
    assert refused(f"a: 1\n{padding}#")[0].message == "the file has 2,097,153 bytes; at most 2,097,152 are read"


# --- what is refused -----------------------------------------------------------------------------------

EMPTY = ("", "the file is empty; expected a mapping that starts with apiVersion", "")
SHARED = ("", "anchors and aliases are not read", "write the value out in both places")
CONTROL = ("", "not YAML: a character that YAML does not allow", "remove control characters")
TOO_LARGE = ("", "not YAML: an escape or a directive has a number that is too large", "")
SURROGATE = ("half of a surrogate pair is not a character", "write the character itself")
DEEP = ("", f"nested deeper than {MAX_DEPTH} levels", "")
CODING = "save the file as UTF-8"
NINES = "9" * 20


def only_1_1_ends_a_line(name: str) -> tuple[str, str, str]:
    return "", f"{name} ends a line in YAML 1.1 and not in 1.2", "remove it or use a plain line end"


def odd_key(key: str) -> tuple[str, str]:
    return f"the key '{key}' is not text to every YAML reader", f'write "{key}" in quotes'


def tag(name: str) -> tuple[str, str, str]:
    return "", f"the tag {name} is not read", "remove the tag"


def twice(key: str, line: int) -> tuple[str, str]:
    return f"the key '{key}' stands twice; first at line {line}", "keep one of them"


# content, line, column, path, message, suggestion
REFUSED = {
    "empty": ("", 1, 1, *EMPTY),
    "only a comment": ("# x\n", 1, 1, *EMPTY),
    "duplicate key": ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", 5, 3, "b.c", *twice("c", 3)),
    "duplicate key, quoted once": ("a: 1\n'a': 2", 2, 1, "a", *twice("a", 1)),
    "two documents": (
        "a: 1\n---\nb: 2\n",
        2, 1, "", "a second document starts here; expected one", "keep one stack in a file",
    ),
    "anchor": ("a: &x 1", 1, 4, *SHARED),
    "anchor of a mapping": ("a:\n  &x b: 1", 2, 3, *SHARED),
    "alias": ("a: 1\nb: [*x]", 2, 5, *SHARED),
    "merge key": ("a:\n  <<: {b: 1}", 2, 3, "a", "merge keys are not read", "write the keys out"),
    "tag": ("a: !!str 1", 1, 4, *tag("tag:yaml.org,2002:str")),
    "python tag": (
        "a: !!python/object/apply:os.system [id]",
        1, 4, *tag("tag:yaml.org,2002:python/object/apply:os.system"),
    ),
    "own tag": ("a:\n- !x {b: 1}", 2, 3, *tag("!x")),
    "tag without a name": ("a: ! 5", 1, 4, *tag("!")),
    "mapping as key": ("{a: 1}: 2", 1, 1, "", "a key must be plain text", ""),
    "template": ("a: {{ x }}", 1, 5, "a", "a key must be plain text", ""),
    "number as key": ("a:\n  1: x", 2, 3, "a.1", *odd_key("1")),
    "boolean as key": ("no: x", 1, 1, "no", *odd_key("no")),
    "not a number": ("a: [1, .nan]", 1, 8, "a[1]", ".nan is not a finite number", ""),
    "infinite": ("a: -.inf", 1, 4, "a", "-.inf is not a finite number", ""),
    "infinite by size": ("a: 1.0e+400", 1, 4, "a", "1.0e+400 is not a finite number", ""),
    "large integer": (
        f"a: {NINES}",
        1, 4, "a", f"{NINES} is too large a number", f'write "{NINES}" in quotes if it is text',
    ),
    "tab": (
        "a:\n\t- 1",
        2, 1, "", "not YAML: found character '\\t' that cannot start any token", "indent with spaces",
    ),
    "open bracket": ("a: [1", 1, 6, "", "not YAML: expected ',' or ']', but got '<stream end>'", ""),
    "two colons": ("a: b: c", 1, 5, "", "not YAML: mapping values are not allowed here", ""),
    "control character": ("a: 1\nb: x\x07", 2, 5, *CONTROL),
    "line separator": ("a: 1\nb: x\u2028y", 2, 5, *only_1_1_ends_a_line("U+2028")),
    "next line": ("a: x\x85b: y", 1, 5, *only_1_1_ends_a_line("U+0085")),
    "escape beyond Unicode": ('a: "\\U00110000"', 0, 0, *TOO_LARGE),
    "directive beyond int()": (f"%YAML 1.{'1' * 5000}\n---\na: 1", 0, 0, *TOO_LARGE),
    "half a surrogate pair": ('a: ["\\uD800"]', 1, 5, "a[0]", *SURROGATE),
    "half a surrogate pair as key": ('a:\n  "\\uDC00": 1', 2, 3, "a", *SURROGATE),
    "nested sequences": ("[" * 5000, 1, MAX_DEPTH + 1, *DEEP),
    "nested blocks": ("- " * 5000, 1, 2 * MAX_DEPTH + 1, *DEEP),
    "not UTF-8": (b"a: 1\nb: \xff", 2, 4, "", "byte 0xff is not UTF-8", CODING),
    "not UTF-8 after wide characters": (
        b"\xc3\xa9\xe6\xa8\xa1: \xe9",
        1, 5, "", "byte 0xe9 is not UTF-8", CODING,
    ),
    "not UTF-8 after a byte order mark": (
        b"\xef\xbb\xbfa: \xff",
        1, 4, "", "byte 0xff is not UTF-8", CODING,
    ),
    "UTF-16": ("a: 1".encode("utf-16"), 1, 1, "", "byte 0xff is not UTF-8", CODING),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused(case: tuple[str | bytes, int, int, str, str, str]):
    content, *expected = case
    assert refused(content) == (Problem(*expected),)


AMBIGUOUS = [
    "yes",
    "No",
    "on",
    "OFF",
    "y",
    "N",
    "1e3",
    "1E-3",
    "0o14",
    "-0o14",
    "0O14",
    "014",
    "0x1F",
    "0X1F",
    "0b11",
    "22:22",
]
AMBIGUOUS += [
    "190:20:30.15",
    "1_000",
    "0_8",
    "-_",
    "._",
    ".5",
    "5.",
    "+.5",
    "2026-11-23",
    "2026-11-23 10:00:00",
    "=",
]


@pytest.mark.parametrize("scalar", AMBIGUOUS)
def test_what_the_dialects_read_differently_is_refused_plain_and_taken_in_quotes(scalar: str):
    advice = f'write "{scalar}" in quotes, or a plain number'
    assert refused(f"a:\n  - {scalar}") == (
        Problem(2, 5, "a[0]", f"{scalar} reads differently in YAML 1.1 and 1.2", advice),
    )
    assert read(f'a: "{scalar}"') == {"a": scalar}


@pytest.mark.parametrize("scalar", ["0123456789", ".inf", "99999999999999999999", "1.0e+400"])
@pytest.mark.parametrize("place", ["secretKey: {}", "token:\n  - {}", "password: {{x: {}}}"])
def test_a_value_below_a_secret_key_is_never_shown(scalar: str, place: str):
    (problem,) = refused(place.format(scalar))
    assert "this value" in problem.message
    assert scalar not in problem.text("f.yaml")


def test_every_problem_of_a_document_is_listed_in_file_order():
    found = refused("a: 1e3\nb:\n  - .nan\n  - no\nc: 1\na: 2\n")
    assert [(problem.line, problem.path) for problem in found] == [
        (1, "a"),
        (3, "b[0]"),
        (4, "b[1]"),
        (6, "a"),
    ]


# --- positions -----------------------------------------------------------------------------------------

names = st.text("abcdefgh", min_size=1, max_size=6)


def trees(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def grow(children):
        return st.lists(children, min_size=1, max_size=3) | st.dictionaries(names, children, min_size=1, max_size=3)

    return st.recursive(leaves, grow, max_leaves=10)


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of the values that are no collections."""
    if not isinstance(value, dict | list):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [leaf for key, child in items for leaf in leaves(child, (*path, key))]


def planted(value: Any, path: tuple[str | int, ...], mark: str) -> Any:
    """A copy with `mark` at a path."""
    if not path:
        return mark
    first, *rest = path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    changed = {key: planted(child, tuple(rest), mark) if key == first else child for key, child in items}
    return changed if isinstance(value, dict) else list(changed.values())


def in_flow_style(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=30, sort_keys=False)


def in_block_style(value: Any) -> str:
    return write_documents([value])


def place_of(mark: str, content: str) -> tuple[int, int]:
    before = content[: content.index(mark)]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


@settings(max_examples=150, deadline=None)
@given(trees(names), st.data(), st.sampled_from([in_block_style, in_flow_style]))
def test_a_planted_problem_is_found_where_it_is(tree: Any, draw: st.DataObject, write):
    path = draw.draw(st.sampled_from(leaves(tree)))
    content = write(planted(tree, path, "PLANTED"))
    line, column = place_of("PLANTED", content)
    (problem,) = refused(content.replace("PLANTED", "1e3"))
    assert (problem.line, problem.column, problem.path) == (line, column, path_text(path))


@settings(max_examples=100, deadline=None)
@given(trees(names), st.data(), st.sampled_from([in_block_style, in_flow_style]))
def test_a_document_knows_where_a_value_stands(tree: Any, draw: st.DataObject, write):
    path = draw.draw(st.sampled_from(leaves(tree)))
    content = write(planted(tree, path, "PLANTED"))
    document = read_document(content.encode(), "f.yaml")
    assert document.position(path) == Position(*place_of("PLANTED", content))
    assert document.position((*path, "absent", 3)) == document.position(path)
    assert document.raw[path] == "PLANTED"


def test_a_document_knows_where_a_key_stands():
    document = read_document(b"a:\n  bc:   1\n  d:\n    - e: x\n", "f.yaml")
    assert document.position(("a", "bc"), of_key=True) == Position(2, 3)
    assert document.position(("a", "bc")) == Position(2, 9)
    assert document.position(("a", "d", 0, "e"), of_key=True) == Position(4, 7)
    assert document.position(("a", "absent"), of_key=True) == document.position(("a",)) == Position(2, 3)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("a",), "a"),
        (("models", 0, "variants", 1, "pool"), "models[0].variants[1].pool"),
        ((0, "a"), "[0].a"),
    ],
)
def test_paths_are_written_as_people_do(path: tuple[str | int, ...], text: str):
    assert path_text(path) == text


# --- anything at all -----------------------------------------------------------------------------------

fragments = st.lists(
    st.sampled_from(
        [
            "a",
            "b: ",
            "- ",
            "? ",
            ": ",
            "[",
            "]",
            "{",
            "}",
            ",",
            "'",
            '"',
            "\\",
            "\n",
            "\n  ",
            "\t",
            "#",
            "|",
            ">",
            "%",
            "@",
        ]
    )
    | st.sampled_from(
        [
            "&a",
            "*a",
            "!",
            "!!str ",
            "!<",
            "---\n",
            "...\n",
            "%YAML 1.2\n",
            "%TAG ! x:\n",
            "<<: ",
            "~",
            "1e3",
            ".nan",
        ]
    )
    | st.sampled_from(
        [
            '"\\U00110000"',
            '"\\uD800"',
            '"\\x1b"',
            "\ufeff",
            "\x85",
            "\u2028",
            "\x00",
            "🚢",
            "|2-\n",
            "=",
            "0o7",
            "\r",
        ]
    )
    | st.text(max_size=3),
    max_size=25,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | fragments.map(str.encode))
@example(b'"\\UFFFFFFFF"')
@example(b"%YAML 1." + b"1" * 5000)
def test_anything_is_read_or_a_spec_error_with_a_position_in_the_file(content: bytes):
    try:
        read_document(content, "f.yaml")
    except SpecError as error:
        problems = error.problems.items
    else:
        return
    lines = len(content.decode(errors="replace").splitlines()) + 1
    assert problems
    assert all(0 <= problem.line <= lines and problem.message for problem in problems)


@settings(max_examples=300, deadline=None)
@given(
    st.text("0123456789xXoObBeE_+-.:", min_size=1, max_size=7)
    | st.from_regex(r"[-+]?[.]?(inf|nan|Inf|NaN)|[a-zA-Z~=<]{1,5}", fullmatch=True)
)
def test_what_is_taken_means_the_same_in_both_dialects(scalar: str):
    """The reader's promise: no plain scalar that an editor or a cluster would read as another value."""
    content = f"a: {scalar}\n"
    try:
        ours = read(content)
    except SpecError:
        return
    for theirs in (yaml.safe_load(content), YAML(typ="safe", pure=True).load(content)):
        assert (type(theirs["a"]), theirs) == (type(ours["a"]), ours)
