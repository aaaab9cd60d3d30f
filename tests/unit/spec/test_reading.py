"""Reading a stack: what is taken, and every kind of mistake with its place and its advice."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from modelberth.base.errors import Problem, SpecError
from modelberth.base.yamlio import MAX_DEPTH, write_documents
from modelberth.spec.reading import NEXT_STEP, read_stack
from modelberth.spec.services import services
from modelberth.spec.stack import Stack, Verification
from modelberth.spec.storage import Storage

FIRST = "models[0].variants[0]"
ARGS = f"{FIRST}.engineArgs"

# --- what is taken -------------------------------------------------------------------------------------


def test_the_minimal_stack_and_its_defaults(minimal):
    stack = read_stack(minimal.encode(), "berth.yaml")
    assert (stack.metadata.name, stack.metadata.namespace) == ("harbor", "default")
    assert (stack.pools[0].count, stack.pools[0].nodes, stack.pools[0].price_per_hour) == (1, 1, None)
    assert (stack.storage, stack.queue, stack.model_registry) == (Storage(s3=None, oci=None), None, None)
    assert stack.verification == Verification(prompts=(), maxTokens=200)
    variant = stack.models[0].variants[0]
    assert (variant.dtype, variant.kv_cache_dtype, variant.tensor_parallel_size) == ("auto", "auto", 1)
    assert (variant.max_model_len, variant.gpu_memory_utilization, variant.engine_args) == (None, None, {})


def test_the_full_stack_says_what_is_written(full):
    stack = read_stack(full.encode(), "berth.yaml")
    assert stack.model_dump(mode="json", by_alias=True, exclude_unset=True) == yaml.safe_load(full)
    assert stack.models[0].variants[0].engine_args["allowed-origins"] == ("a", 1, 2.5, False)


def test_a_stack_cannot_be_changed(minimal):
    stack = read_stack(minimal.encode(), "berth.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        stack.metadata.name = "other"


def test_a_byte_order_mark_and_windows_line_ends_are_taken(full):
    windows = b"\xef\xbb\xbf" + full.replace("\n", "\r\n").encode()
    assert read_stack(windows, "berth.yaml") == read_stack(full.encode(), "berth.yaml")


# --- what is refused -----------------------------------------------------------------------------------

NO_NAME = "is no name; expected a-z, 0-9 and hyphens"
SECRET_ADVICE = "name a Secret: credentials: {secret: NAME}"
SHARED = ("", "anchors and aliases are not read", "write the value out in both places")
URL = "expected an http:// or https:// address without user, password or query"
ARG = "expected text, a number, true, false or a list of them, found"
NO_WEIGHTS = "is no weights address: expected s3://bucket/prefix/ or oci://registry/name:tag"


def no_secret(key: str) -> tuple[str, str]:
    return f"the key '{key}' would hold a secret; this file holds references only", SECRET_ADVICE


# What is replaced in the full stack, by what (▮ marks the place of the problem), path, message, suggestion.
MISTAKES = {
    "unknown key, near": (
        "servedName: mistral", "▮servicename: mistral",
        f"{FIRST}.servicename", "the key 'servicename' is not known here", "did you mean 'servedName'?",
    ),
    "unknown key, in snake case": (
        "maxModelLen: 8192", "▮max_model_len: 8192",
        f"{FIRST}.max_model_len", "the key 'max_model_len' is not known here", "did you mean 'maxModelLen'?",
    ),
    "unknown key, far": (
        "clusterQueue: gpus", "▮zzz: gpus",
        "queue.zzz", "the key 'zzz' is not known here", "known: apiVersion, clusterQueue, covers, name",
    ),
    "unknown key, at the top": (
        "queue:\n", "▮queues:\n", "queues", "the key 'queues' is not known here", "did you mean 'queue'?",
    ),
    "missing key": (
        "name: small\n    gpu: NVIDIA-L4\n", "▮name: small\n",
        "pools[0].gpu", "the key 'gpu' is missing",
        "GPU product, as the node label nvidia.com/gpu.product says it.",
    ),
    "duplicate key": (
        "count: 8", "count: 8\n    ▮gpu: NVIDIA-L40S",
        "pools[1].gpu", "the key 'gpu' stands twice; first at line 17", "keep one of them",
    ),
    "not a number": ("1.32", "▮.nan", "pools[0].pricePerHour", ".nan is not a finite number", ""),
    "infinite": ("0.92", "▮.inf", f"{FIRST}.gpuMemoryUtilization", ".inf is not a finite number", ""),
    "anchor": ("s3://models/mistral-int4/", "▮&w s3://models/mistral-int4/", *SHARED),
    "alias": ("pool: small", "pool: ▮*pool", *SHARED),
    "tag": (
        "name: harbor", "name: ▮!!str harbor", "", "the tag tag:yaml.org,2002:str is not read",
        "remove the tag",
    ),
    "two documents": (
        "queue:\n", "▮---\nqueue:\n",
        "", "a second document starts here; expected one", "keep one stack in a file",
    ),
    "ambiguous scalar": (
        "w4a16", "▮4e16",
        f"{FIRST}.quantization", "4e16 reads differently in YAML 1.1 and 1.2",
        'write "4e16" in quotes, or a plain number',
    ),
    "version without quotes": (
        'version: "3.0"', "version: ▮3.0",
        "platform.version", "expected text, found the number 3.0", 'write "3.0" in quotes',
    ),
    "name that is a number": (
        "name: granite", "name: ▮7", "models[1].name", "expected text, found the number 7",
        'write "7" in quotes',
    ),
    "the only item of a list": (
        "name: fp8", "name: ▮8", "models[1].variants[0].name",
        "expected text, found the number 8", 'write "8" in quotes',
    ),
    "name that is a boolean": (
        "name: granite", "name: ▮true", "models[1].name", "expected text, found true",
        'write "true" in quotes',
    ),
    "text left empty": (
        "region: eu-west-1", "region:▮", "storage.s3.region", "expected text, found nothing", "",
    ),
    "number in quotes": (
        "count: 8", 'count: ▮"8"', "pools[1].count", "expected a whole number, found text", "",
    ),
    "fraction for a whole number": (
        "count: 8", "count: ▮8.5", "pools[1].count", "expected a whole number, found the number 8.5", "",
    ),
    "boolean for a whole number": (
        "count: 8", "count: ▮true", "pools[1].count", "expected a whole number, found true", "",
    ),
    "boolean for a number": ("1.32", "▮false", "pools[0].pricePerHour", "expected a number, found false", ""),
    "text for a list": (
        "\n    - What is a berth?", " ▮What is a berth?",
        "verification.prompts", "expected a list, found text", "",
    ),
    "text for a mapping": (
        "metadata:\n  name: harbor\n  namespace: serving", "metadata: ▮harbor",
        "metadata", "expected a mapping, found text", "",
    ),
    "list for a mapping": (
        "  name: serving\n  clusterQueue: gpus", "  ▮- serving", "queue",
        "expected a mapping, found a list", "",
    ),
    "mapping for a list": (
        "  prompts:\n    - What is a berth?", "  prompts:\n    ▮a: b",
        "verification.prompts", "expected a list, found a mapping", "",
    ),
    "mapping for text": (
        "region: eu-west-1", "region: ▮{a: b}", "storage.s3.region", "expected text, found a mapping", "",
    ),
    "too many": ("count: 8", "count: ▮17", "pools[1].count", "expected at most 16, found 17", ""),
    "too few": (
        "maxTokens: 64", "maxTokens: ▮0", "verification.maxTokens", "expected at least 1, found 0", "",
    ),
    "share above one": (
        "0.92", "▮1.5", f"{FIRST}.gpuMemoryUtilization", "expected at most 1.0, found 1.5", "",
    ),
    "share of nothing": (
        "0.92", "▮0.0", f"{FIRST}.gpuMemoryUtilization", "expected more than 0.0, found 0.0", "",
    ),
    "misspelt value": (
        "kind: rhoai", "kind: ▮rhaoi",
        "platform.kind", "expected rhoai or kserve, found 'rhaoi'", "did you mean 'rhoai'?",
    ),
    "value in other case": (
        "kind: Stack", "kind: ▮stack", "kind", "expected Stack, found 'stack'", "did you mean 'Stack'?",
    ),
    "value of another type": (
        "kind: rhoai", "kind: ▮5", "platform.kind", "expected rhoai or kserve, found the number 5", "",
    ),
    "value left out": (
        "kind: rhoai", "kind:▮", "platform.kind", "expected rhoai or kserve, found nothing", "",
    ),
    "name with a space": (
        "name: harbor", "name: ▮My Harbor", "metadata.name", f"'My Harbor' {NO_NAME}",
        "for example 'my-harbor'",
    ),
    "name beyond ASCII": (
        "name: harbor", "name: ▮é", "metadata.name", f"'é' {NO_NAME}", "start with a letter",
    ),
    "service that starts with a digit": (
        "service: mistral-small", "service: ▮9a", f"{FIRST}.service", f"'9a' {NO_NAME}",
        "start with a letter",
    ),
    "secret key": (
        "profile: work", "▮secretAccessKey: CANARY",
        "storage.s3.credentials.secretAccessKey", *no_secret("secretAccessKey"),
    ),
    "secret key of the environment": (
        "profile: work", "▮AWS_SECRET_ACCESS_KEY: CANARY",
        "storage.s3.credentials.AWS_SECRET_ACCESS_KEY", *no_secret("AWS_SECRET_ACCESS_KEY"),
    ),
    "secret key elsewhere": (
        "clusterQueue: gpus", "▮password: CANARY", "queue.password", *no_secret("password"),
    ),
    "secret in place of its name": (
        "secret: s3-keys", "secret: ▮wJalr/CANARY",
        "storage.s3.credentials.secret", "expected the name of a Secret: a-z, 0-9 and hyphens",
        "put the value itself into a Secret on the cluster",
    ),
    "endpoint with a password": (
        "endpoint: http://minio", "endpoint: ▮http://user:CANARY@minio", "storage.s3.endpoint", URL, "",
    ),
    "endpoint without a scheme": (
        "http://minio.minio-storage.svc:9000", "▮minio:9000", "storage.s3.endpoint", URL, "",
    ),
    "registry with a query": (
        "url: https://registry.example/api", "url: ▮https://registry.example/api?a=b", "modelRegistry.url",
        URL, "",
    ),
    "weights of an unknown scheme": (
        "s3://models/mistral-int4/", "▮gs://models/a", f"{FIRST}.weights", f"'gs://models/a' {NO_WEIGHTS}",
        "",
    ),
    "weights in a bucket that cannot be": (
        "s3://models/mistral-int4/", "▮s3://Models/a/",
        f"{FIRST}.weights", "'Models' is no bucket name: 3 to 63 of a-z, 0-9, dot and hyphen", "",
    ),
    "source of an unknown scheme": (
        "source: ./int4", "source: ▮ftp://a/b",
        f"{FIRST}.source", "'ftp://' is no known source: expected a folder, hf://, s3:// or oci://", "",
    ),
    "flag with dashes": (
        "tool-call-parser: mistral", "--tool-call-parser: ▮mistral",
        f"{ARGS}.--tool-call-parser", "'--tool-call-parser' is no flag name",
        "write it without dashes in front, in lower case: tool-call-parser",
    ),
    "flag in snake case": (
        "tool-call-parser: mistral", "tool_call_parser: ▮mistral",
        f"{ARGS}.tool_call_parser", "'tool_call_parser' is no flag name",
        "write it without dashes in front, in lower case: tool-call-parser",
    ),
    "flag that holds a mapping": (
        "max-num-seqs: 64", "max-num-seqs: ▮{a: 1}", f"{ARGS}.max-num-seqs", f"{ARG} a mapping", "",
    ),
    "flag that holds a list in a list": (
        "allowed-origins: [a, 1, 2.5, false]", "allowed-origins: [a, ▮[b, c]]",
        f"{ARGS}.allowed-origins[1]", f"{ARG} a list", "",
    ),
    "flag that holds a list with nothing in it": (
        "allowed-origins: [a, 1, 2.5, false]", "allowed-origins: [a, ▮~]",
        f"{ARGS}.allowed-origins[1]", f"{ARG} nothing", "",
    ),
    "variants left out": (
        "    variants:\n      - name: fp8\n        weights: s3://models/granite-fp8\n        pool: large\n",
        "    variants: ▮[]\n", "models[1].variants", "the list is empty; expected at least 1 item", "",
    ),
    "empty text": (
        "gpu: NVIDIA-L4\n", 'gpu: ▮""\n', "pools[0].gpu", "the text is empty; expected at least 1 character", "",
    ),
    "empty prompt": (
        "- What is a berth?", '- ▮""', "verification.prompts[0]",
        "the text is empty; expected at least 1 character", "",
    ),
    "bucket too short": (
        "bucket: models", "bucket: ▮ab", "storage.s3.bucket",
        "the text is too short; expected at least 3 characters", "",
    ),
    "name too long": (
        "name: harbor", f"name: ▮{'h' * 64}", "metadata.name", "the text is too long; at most 63 characters", "",
    ),
    "value far too long": (
        "kind: rhoai", f"kind: ▮{'r' * 200}", "platform.kind",
        f"expected rhoai or kserve, found '{'r' * 59}…'", "",
    ),
    "name far too long and odd": (
        "name: granite", f"name: ▮{'G ' * 31}", "models[1].name",
        f"'{'G ' * 29}G…' {NO_NAME}", f"for example '{'g-' * 29}g…'",
    ),
    "flag that holds nothing": (
        "max-num-seqs: 64", "max-num-seqs: ▮~", f"{ARGS}.max-num-seqs", f"{ARG} nothing", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES.values(), ids=MISTAKES)
def test_mistake(case: tuple[str, str, str, str, str], spoil, marked, problems_in):
    old, new, *expected = case
    assert problems_in(spoil(old, new)) == (Problem(*marked(old, new), *expected),)


# Whole files: content, line, column, message, suggestion.
FILES = {
    "empty": (b"", 1, 1, "the file is empty; expected a mapping that starts with apiVersion", ""),
    "a list": (b"- a\n", 1, 1, "expected a mapping, found a list", ""),
    "text": (b"hello\n", 1, 1, "expected a mapping, found text", ""),
    "null": (b"~\n", 1, 1, "expected a mapping, found nothing", ""),
    "three megabytes": (b"#" * 3_000_000, 0, 0, "the file has 3,000,000 bytes; at most 2,097,152 are read", ""),
    "not UTF-8": (b"kind: Stack\nname: \xe9", 2, 7, "byte 0xe9 is not UTF-8", "save the file as UTF-8"),
    "nested deeply": (
        b"a: " + b"[" * 100_000, 1, 3 + MAX_DEPTH, f"nested deeper than {MAX_DEPTH} levels", "",
    ),
    "alias bomb": (
        b'a: &a ["x", "x"]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n',
        1, 4, "anchors and aliases are not read", "write the value out in both places",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES.values(), ids=FILES)
def test_file_that_is_no_stack(case: tuple[bytes, int, int, str, str], problems_in):
    content, line, column, message, suggestion = case
    assert problems_in(content) == (Problem(line, column, "", message, suggestion),)


@pytest.mark.parametrize("empty", ["pools", "models"])
def test_lists_that_must_have_an_item(empty: str, full, problems_in):
    stack = yaml.safe_load(full) | {empty: []}
    (problem,) = problems_in(write_documents([stack]))
    assert (problem.path, problem.message) == (empty, "the list is empty; expected at least 1 item")


def test_every_key_that_is_missing_is_listed(problems_in):
    found = problems_in("kind: Stack\nmetadata: {}\n")
    missing = ["apiVersion", "platform", "pools", "models", "metadata.name"]
    assert [problem.path for problem in found] == missing
    assert [(problem.line, problem.column) for problem in found] == [(1, 1)] * 4 + [(2, 11)]
    assert found[1].suggestion == 'The serving platform: {kind: rhoai, version: "3.0"}.'


def test_all_problems_are_listed_at_once_in_file_order(spoil, problems_in):
    stack = spoil("count: 8", "count: 17").replace("kind: rhoai", "kind: rhaoi").replace("maxTokens", "maxToken")
    found = problems_in(stack)
    assert [problem.path for problem in found] == ["platform.kind", "pools[1].count", "verification.maxToken"]
    assert [problem.line for problem in found] == sorted(problem.line for problem in found)


def test_an_error_names_the_file_and_the_next_step(spoil):
    with pytest.raises(SpecError) as caught:
        read_stack(spoil("count: 8", "count: 17").encode(), "stacks/harbor.yaml")
    assert caught.value.what == "1 problem in stacks/harbor.yaml"
    assert caught.value.why == "stacks/harbor.yaml:18:12: pools[1].count: expected at most 16, found 17"
    assert caught.value.next_step == NEXT_STEP


# --- secrets -------------------------------------------------------------------------------------------

# Each half of what AWS, Hugging Face and OpenShift make; the second would be read as a number.
CANARIES = ["wJalrXUtnFEMI/K7MDENG+bPxRfiCY", "hf_CANARYqwertz", "0o1234567", "0123456789"]

LEAKS = {
    "key of the store": ("profile: work", "secretAccessKey: {}"),
    "key of the environment": ("profile: work", "AWS_SESSION_TOKEN: {}"),
    "key in a list": ("profile: work", "password: [{}, {}]"),
    "key twice": ("profile: work", "token: {}\n      token: {}"),
    "name of the Secret": ("secret: s3-keys", "secret: x/{}"),
    "credentials as text": ("credentials: {secret: registry}", "credentials: x{}"),
    "endpoint": ("endpoint: http://minio", "endpoint: http://key:{}@minio"),
    "registry": ("url: https://registry", "url: https://user:{}@registry"),
    "bucket": ("s3://models/mistral-int4/", "s3://AKIA:{}@models/a/"),
    "image": ("weights: oci://quay.io/acme/mistral:1", "weights: oci://user:{}@quay.io/acme/mistral:1"),
    "source": ("source: ./int4", "source: https://user:{}@host/a"),
    "Hub": ("hf://mistralai/Mistral-Small@main", "hf://{}@mistralai/Mistral"),
    "engine flag": ("tool-call-parser: mistral", "api-key: {}"),
    "engine flag in a list": ("tool-call-parser: mistral", "hf-token: [[{}]]"),
    "broken syntax": ("profile: work", "secretAccessKey: {}: x"),
    "broken syntax beside it": ("profile: work", "secretAccessKey: {}\n    ]"),
    "control character beside it": ("profile: work", "secretAccessKey: {}\x07"),
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
@pytest.mark.parametrize("canary", CANARIES)
def test_a_secret_is_in_no_text_of_an_error(leak: tuple[str, str], canary: str, spoil):
    old, new = leak
    with pytest.raises(SpecError) as caught:
        read_stack(spoil(old, new.replace("{}", canary)).encode(), "berth.yaml")
    error = caught.value
    shown = "\n".join([error.what, error.why, error.next_step, error.where, *traceback.format_exception(error)])
    assert not [piece for piece in canary.split("/") if piece in shown]


# --- anything at all -----------------------------------------------------------------------------------

SCALARS = [
    "",
    "~",
    "true",
    "no",
    "1",
    "-1",
    "0",
    "1.5",
    "3.0",
    ".nan",
    "1e3",
    "0o7",
    "[]",
    "{}",
    "[a]",
    "{a: b}",
]
SCALARS += [
    "x",
    "X Y",
    '"',
    "'",
    "*a",
    "&a b",
    "!t a",
    "|",
    "> a",
    "- a",
    "a: b",
    "#",
    "s3://",
    "oci://a",
    "hf://",
]
SCALARS += ["2026-11-23", '"\\uD800"', "\t", "🚢"]
yaml_scalars = st.sampled_from(SCALARS) | st.text(max_size=8)


def read_or_refuse(content: bytes) -> Stack | None:
    """Read a stack; None for a SpecError with places inside the file. Anything else fails."""
    try:
        stack = read_stack(content, "berth.yaml")
    except SpecError as error:
        problems = error.problems.items
    else:
        assert len(services(stack)) == sum(len(model.variants) for model in stack.models)
        return stack
    lines = len(content.decode(errors="replace").splitlines()) + 1
    assert problems
    assert all(0 <= problem.line <= lines and problem.message for problem in problems)
    return None


@st.composite
def with_other_lines(draw: st.DrawFn, content: str) -> str:
    """A file some of whose lines are gone, doubled, indented otherwise, or have another value."""
    lines = content.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        index = draw(st.integers(0, len(lines) - 1))
        key, colon, _ = lines[index].partition(": ")
        edits = [
            [],
            [lines[index]] * 2,
            [" " + lines[index]],
            [lines[index][1:]],
            [f"{key}{colon}{draw(yaml_scalars)}"],
        ]
        lines[index : index + 1] = draw(st.sampled_from(edits))
    return "\n".join(lines)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_file_with_other_lines_is_a_stack_or_a_spec_error(full, data: st.DataObject):
    read_or_refuse(data.draw(with_other_lines(full)).encode("utf-8", "surrogatepass"))


plain_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(["s3://models/a", "oci://quay.io/a:1", "hf://a/b", "small", "3.0"]),
    lambda children: st.lists(children, max_size=2)
    | st.dictionaries(st.sampled_from(["name", "str", "int", "[key]", "api-key", ""]), children, max_size=2),
    max_leaves=4,
)  # fmt: skip


@st.composite
def with_another_value(draw: st.DrawFn, value: Any) -> Any:
    """Plain data with something else at a random place."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(plain_data)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    changed = value.copy()
    changed[key] = draw(with_another_value(value[key]))
    return changed


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_stack_with_another_value_is_a_spec_error_or_valid_by_its_schema(full, validator, data: st.DataObject):
    value = data.draw(with_another_value(yaml.safe_load(full)))
    if read_or_refuse(write_documents([value]).encode()):
        assert list(validator.iter_errors(value)) == []
