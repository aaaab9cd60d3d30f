r"""Signatures, read from `signatures/*.yaml` and checked; every mistake with its file and line.

How a signature is written. Each file is a list of entries:

    - id: MB-KV-001                 MB-<FIELD>-<NNN>, never reused
      title: ...                    a few words
      severity: high                high | medium | low
      stage: kv-cache               stage of the start that it breaks: process engine weights profile compile kv-cache
                                    graphs server, or queue scheduling image download; empty where none
      root: 50                      0-100; of several matches the highest comes first, then the earliest
      phase: start                  start (default): breaks a start or kills an engine; no finding once the server is
                                      ready, unless it died afterwards
                                    serving: degrades a server that is up; counts although it is ready
                                    request: about one request; counts only when no request of that log succeeded, or
                                      when it came five times or more and as often as successes
      match:                        any of them raises it
        - log: "regex"              matched (re.match) at the START of a message, or of one of its further lines
          needle: "literal"         stands in every line that matches; at least 4 characters, better 12 or more; it must
                                    be on the line that the pattern begins on. Case matters. A list: any of them.
          origin: exception         exception: `Class: text`, last line of a traceback; the pattern begins at text (or
                                        at the class, both are tried). Its further lines are joined by "\n", without
                                      indentation and pydantic's "Value error, "; the pattern may begin at any of them
                                    error / warning / info: a logger's level (vLLM, uvicorn, Python logging, klog, glog,
                                      JSON lines, logfmt); the pattern begins after the header. `NCCL WARN text` is a
                                      warning that begins at text. A logger that prints a traceback at level ERROR gives
                                      an exception, not an error.
                                    output: a line without a level; usage: argparse, begins after "prog: error: "
                                    any (default): all of these
          exceptions: [ValueError]  optional: last part of the class' name; needs an exception
          frames: [kv_cache_utils.py]   optional: one of these files stands in its traceback
          source: [core.py]         optional: the file that logged it
          container: [storage-initializer]  optional: refuses other containers, where the container is known
          vllm: ">=0.8"             optional: refuses other versions, where the version is known; ">=0.8,<0.12" too
          during: [weights]         optional: only in these stages of the start; "" before any is seen, ready once it is
          last: true                optional: only when nothing follows: no stage, figure or error, and few lines
        - event: {reason: FailedScheduling, message: "regex, anywhere", kind: Pod, component: kubelet, count: 3,
                  restarts: 1}      count, restarts: at least so many (of the event; of the pod's containers)
        - condition: {kind: InferenceService, type: Ready, status: "False", reason: X, message: "regex, anywhere"}
        - container: {state: terminated, reason: OOMKilled, exitCode: 137, name: kserve-container, init: false,
                      message: "regex", restarts: 1}      the state now, or the last one before a restart
        - pod: {phase: Failed, reason: Evicted, message: "regex", gate: kueue.x-k8s.io/admission}
      numbers: {asked: tokens}      unit of each named group that is a number: tokens GiB MiB KiB GB MB bytes GPUs
                                    seconds percent count number; version and text are no numbers. Groups that are not
                                    listed are text. A group `<name>_unit` ("MiB", "KB") converts <name> for programs;
                                    texts write "{tried} GiB" and people read the log's own "250.00 MiB".
      cause: "{asked} tokens ..."   counts come with thousands separators; all come WITHOUT their unit: write it. A
                                    sentence of which a value is missing is left out.
      cause-without: "..."          optional: instead of cause when any of its numbers is missing; fix-without too
      fix: "..."
      patch: {maxModelLen: "{largest}"}    keys of a variant in berth.yaml, `engineArgs.<flag>` among them; left out
                                    when a number is missing. "{largest}" alone becomes a number.
      command: "..."                left out when a number is missing; MODEL and GPU are replaced where they are known
      confirm: "..."                optional
      explains: [MB-KV-009]         consequences, folded under it when both match
      links: [https://...]
      page: |                       of `berth explain`

Besides their groups, texts may name what the log says about the start: {model}, {vllm_version}, {gpu_name},
{gpu_total_gib}, {tensor_parallel_size}, {max_model_len}, {gpu_memory_utilization}, {max_num_seqs},
{max_num_batched_tokens}, {weights_gib}, {kv_cache_gib}, {free_gib}, {pod}, {container}, {namespace}, {node}, {object},
{phase} ("while the weights were loaded", ...), and what follows: {budget_gib} (total x utilization),
{fitting_utilization} (the largest that the memory which is free allows), {needed_utilization} (the smallest with which
the KV cache that was asked for would fit, below 0.96).

Patterns: linear time. No quantifier inside of a quantifier, no `.*` twice in a row, repeats bounded where something
follows them: `[^)]{0,80}` instead of `.*`. `tools/signatures.py` says what is wrong.

Fixtures: tests/data/signatures/<ID>/match-*.log and miss-*.log, or .json of objects:
{"events": [...], "pods": [...], "nodes": [...], "inferenceservices": [...], "workloads": [...], "objects": [any kind],
"logs": {"pod/container": "text"}}. For a match the first finding must be <ID>; a file `match-x.expect` beside it may
hold texts, one a line, that must stand in its cause or fix.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from modelberth.base.errors import Problem, Problems, SpecError
from modelberth.base.text import shorten
from modelberth.base.yamlio import LooseDocument, path_text, read_documents
from modelberth.findings.diagnosis.signature import Signature

Path = tuple[str | int, ...]


def read_signatures(content: bytes, source: str) -> tuple[Signature, ...]:
    """The signatures of one file.

    Raises:
        SpecError: every mistake with its line.
    """
    found: list[Signature] = []
    problems: list[Problem] = []
    for document in read_documents(content, source):
        if not isinstance(document.data, list):
            problems.append(Problem(1, 1, "", "a list of signatures is expected"))
            continue
        for index, entry in enumerate(document.data):
            try:
                found.append(_signature(entry))
            except ValidationError as error:
                problems += [_problem(each, document, index) for each in error.errors(include_url=False)]
    if problems:
        raise SpecError(Problems(source, tuple(problems)))
    return tuple(found)


def _signature(entry: object) -> Signature:
    # JSON mode: arrays become tuples, and nothing else is converted.
    return Signature.model_validate_json(json.dumps(_renamed(entry)), strict=True)


def _renamed(entry: object) -> object:
    """`container` means names beside `log`, and fields alone: here the second gets a name of its own."""
    if not isinstance(entry, dict) or not isinstance(entry.get("match"), list):
        return entry
    return {**entry, "match": [_renamed_match(each) for each in entry["match"]]}


def _renamed_match(match: object) -> object:
    if isinstance(match, dict) and isinstance(match.get("container"), dict):
        return {("pod-container" if key == "container" else key): value for key, value in match.items()}
    return match


def _problem(details: ErrorDetails, document: LooseDocument, index: int) -> Problem:
    path: Path = (index, *("container" if part == "pod-container" else part for part in details["loc"]))
    place = document.position(path)
    entry = document.data[index]
    name = entry.get("id", "?") if isinstance(entry, dict) else "?"
    message = f"{name}: {details['msg']}; found {shorten(json.dumps(details['input']), 80)}"
    return Problem(place.line, place.column, path_text(path[1:]), message)


def signature_files() -> Iterator[tuple[str, bytes]]:
    """Name and content of each data file, in order."""
    folder = files("modelberth.findings.diagnosis").joinpath("signatures")
    for each in sorted(folder.iterdir(), key=lambda each: each.name):
        if each.name.endswith(".yaml"):
            yield each.name, each.read_bytes()


def read_all(contents: Iterable[tuple[str, bytes]]) -> dict[str, Signature]:
    """Every signature by id.

    Raises:
        SpecError: a mistake in a file, or an id that stands twice.
    """
    found: dict[str, Signature] = {}
    for name, content in contents:
        for each in read_signatures(content, name):
            if each.id in found:
                raise SpecError(Problems(name, (Problem(0, 0, each.id, "this id stands twice"),)))
            found[each.id] = each
    return found


@cache
def catalogue() -> Mapping[str, Signature]:
    """The signatures of this package by id."""
    found: dict[str, Any] = read_all(signature_files())
    return found
