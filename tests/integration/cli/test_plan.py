"""`berth plan` and `berth size --against`, as a user runs them: forms, exit codes, mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "tests" / "data" / "model-configs"
LOGS = ROOT / "tests" / "data" / "engine-logs"
STEP_05 = ROOT / "examples" / "step-05-llm-on-vllm" / "berth.yaml"
HARBOR = ROOT / "examples" / "harbor" / "berth.yaml"
INT4 = f"mistral-small-24b={CONFIGS / 'Mistral-Small-24B-Instruct-2501-quantized.w4a16.json'}"
BF16 = f"mistral-small-24b-tp4={CONFIGS / 'Mistral-Small-24B-Instruct-2501.json'}"


@pytest.fixture(scope="module")
def plan_05(request):
    """The original deployment's plan as a document."""
    berth = request.getfixturevalue("berth_once")
    done = berth("plan", str(STEP_05), "--model", INT4, "--model", BF16, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def berth_once():
    """`berth` without a state folder: planning needs none."""
    import subprocess
    import sys

    def run(*arguments: str):
        program = Path(sys.executable).with_name("berth")
        return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)

    return run


def service(document, name):
    return next(each for each in document["services"] if each["name"] == name)


# --- the original deployment, planned ------------------------------------------------------------------


def test_the_int4_model_fits_one_l4_with_its_whole_context(plan_05):
    """The original cut it to 4,096 tokens; Source: notes/sizing.md 0.4."""
    int4 = service(plan_05, "mistral-small-24b")
    assert int4["verdict"] == "fits"
    assert int4["maxModelLen"]["requested"] == 4096
    assert int4["maxModelLen"]["largest"]["low"] == 32_768
    assert any("cut for nothing" in warning for warning in int4["warnings"])


def test_the_platform_decides_the_engine(plan_05):
    assert (plan_05["platform"], plan_05["vllm"]) == ("Red Hat OpenShift AI 3.0", "0.9.1")


def test_prices_have_a_source_and_a_date_and_add_up(plan_05):
    costs = [each["cost"] for each in plan_05["services"]]
    assert [cost["perHour"] for cost in costs] == [1.3232, 4.6016]
    assert all(cost["source"] and re.fullmatch(r"\d{4}-\d\d(-\d\d)?", cost["date"]) for cost in costs)
    assert plan_05["cost"]["perHour"] == pytest.approx(5.9248)
    assert plan_05["cost"]["perMonth"] == pytest.approx(5.9248 * 730, abs=0.01)


def test_alternatives_are_cheaper_start_and_keep_the_context(plan_05):
    bf16 = service(plan_05, "mistral-small-24b-tp4")
    assert bf16["alternatives"]
    for each in bf16["alternatives"]:
        assert each["verdict"] in {"fits", "fits-tight"}
        assert each["maxModelLen"]["requested"] == 32_768
        assert each["cost"]["perHour"] < 4.6016
        assert each["saves"] == pytest.approx(1 - each["cost"]["perHour"] / 4.6016, abs=0.001)
    prices = [each["cost"]["perHour"] for each in bf16["alternatives"]]
    assert prices == sorted(prices)


def test_forty_seven_gigabytes_may_be_an_image_where_the_disk_is_large(plan_05):
    """There is no law of 20 GB, only a disk; Source: notes/serving-platforms.md 1.6."""
    storage = service(plan_05, "mistral-small-24b-tp4")["storage"]
    assert storage["choice"] == "oci"
    assert 47_144_806_400 < storage["imagePeakBytes"] < 2 * 47_144_806_400 < storage["nodeDiskBytes"]


def test_a_small_disk_sends_the_weights_to_s3(berth, tmp_path):
    spec = tmp_path / "berth.yaml"
    spec.write_text(STEP_05.read_text().replace("nodeDisk: 500GB", "nodeDisk: 60GB"))
    done = berth("plan", str(spec), "--model", INT4, "--model", BF16, "-o", "json")
    storage = service(json.loads(done.stdout), "mistral-small-24b-tp4")["storage"]
    assert storage["choice"] == "s3"
    assert "60.00 GB" in storage["reason"]


# --- forms and codes -----------------------------------------------------------------------------------


def test_every_form(berth):
    table, wide, name, yaml = (berth("plan", str(HARBOR), "-o", form) for form in ("table", "wide", "name", "yaml"))
    assert {done.returncode for done in (table, wide, name, yaml)} == {0}
    assert "harbor-bf16" in table.stdout
    assert "$/HOUR" in table.stdout
    assert (table.stdout.count("activation peak"), wide.stdout.count("activation peak")) == (0, 2)  # the ledgers
    assert name.stdout.split() == ["service/harbor-bf16", "service/harbor-int4"]
    assert YAML(typ="safe").load(yaml.stdout)["schemaVersion"] == "modelberth.dev/plan/v1"


def test_a_variant_that_does_not_start_ends_with_8_and_is_shown_with_what_would(berth, tmp_path):
    spec = tmp_path / "berth.yaml"
    spec.write_text(STEP_05.read_text().replace("pool: l4-quad", "pool: l4-single").replace("Size: 4", "Size: 1"))
    done = berth("plan", str(spec), "--model", INT4, "--model", BF16, "-o", "json")
    assert done.returncode == 8
    bf16 = service(json.loads(done.stdout), "mistral-small-24b-tp4")
    assert bf16["verdict"] == "weights-do-not-fit"
    assert {each["saves"] for each in bf16["alternatives"]} == {None}
    assert bf16["alternatives"][0]["verdict"] in {"fits", "fits-tight"}


def test_explain_draws_each_variant(berth):
    plain, drawn = berth("plan", str(HARBOR)), berth("plan", str(HARBOR), "--explain")
    assert (plain.returncode, drawn.returncode) == (0, 0)
    assert drawn.stdout.count("KV tokens") == plain.stdout.count("KV tokens") + 2


def test_a_page_is_written_beside_the_report(berth, tmp_path):
    done = berth("plan", str(HARBOR), "--html", str(tmp_path / "plan.html"))
    assert done.returncode == 0
    page = (tmp_path / "plan.html").read_text()
    assert "harbor-bf16" in page
    assert "harbor-int4" in page
    assert "<svg" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "harbor-bf61=x"], "harbor-bf16"),
        (["--model", "harbor-bf16"], "SERVICE=MODEL"),
        (["--model", "=x"], "SERVICE=MODEL"),
        (["--vllm", "newest"], "no vLLM version"),
        (["--model", "harbor-bf16=/nowhere/at/all"], "harbor-bf16"),
    ],
    ids=["unknown service", "no model", "no service", "no version", "no such model"],
)
def test_mistakes(berth, arguments, said):
    done = berth("plan", str(HARBOR), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_an_unknown_card_names_the_nearest(berth, tmp_path):
    spec = tmp_path / "berth.yaml"
    spec.write_text(STEP_05.read_text().replace("gpu: NVIDIA-L4", "gpu: NVIDIA-L44"))
    done = berth("plan", str(spec), "--model", INT4, "--model", BF16)
    assert (done.returncode, done.stdout) == (2, "")
    assert "NVIDIA-L4" in done.stderr


def test_an_engine_argument_that_is_no_count(berth, tmp_path):
    spec = tmp_path / "berth.yaml"
    spec.write_text(STEP_05.read_text().replace("tool-call-parser: mistral", "max-num-seqs: many"))
    done = berth("plan", str(spec), "--model", INT4, "--model", BF16)
    assert (done.returncode, done.stdout) == (2, "")
    assert "mistral-small-24b-tp4: engineArgs.max-num-seqs" in done.stderr


# --- against a log -------------------------------------------------------------------------------------


def test_a_log_is_held_against_the_plan_term_by_term(berth):
    """Figures: Qwen2.5-7B on an A10G, vLLM 0.22 (tests/data/vllm-startups)."""
    config, log = CONFIGS / "Qwen2.5-7B-Instruct.json", LOGS / "memory-0.22.0-server.log"
    done = berth("size", str(config), "--gpu", "A10G", "--against", str(log), "-o", "json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["schemaVersion"]) == (0, "modelberth.dev/size-comparison/v1")
    assert document["verdictAgrees"] is True
    terms = {(term["name"], term["unit"]): term for term in document["terms"]}
    weights, cache = terms["weights", "GiB"], terms["KV cache", "tokens"]
    assert (weights["reported"], cache["reported"]) == (14.29, 89_088)
    assert abs(weights["error"]) < 0.005
    assert abs(cache["error"]) < 0.02
    assert all(term["inside"] for term in document["terms"])
    assert all(term["line"] > 0 for term in document["terms"])


def test_the_log_fills_in_what_the_command_line_leaves_open(berth, tmp_path):
    log = (LOGS / "memory-0.22.0-server.log").read_text()
    (tmp_path / "log").write_text(log)
    config = str(CONFIGS / "Qwen2.5-7B-Instruct.json")
    told = berth("size", config, "--gpu", "A10G", "--against", str(tmp_path / "log"), "-o", "json")
    other = berth(
        "size", config, "--gpu", "A10G", "--against", str(tmp_path / "log"), "--max-num-seqs", "32", "-o", "json"
    )
    cache = [
        next(term for term in json.loads(done.stdout)["terms"] if term["unit"] == "tokens")["predicted"]["mid"]
        for done in (told, other)
    ]
    assert cache[1] > cache[0]


def test_a_comparison_for_people(berth):
    config, log = CONFIGS / "Qwen2.5-7B-Instruct.json", LOGS / "memory-0.22.0-server.log"
    done = berth("size", str(config), "--gpu", "A10G", "--against", str(log))
    assert done.returncode == 0
    assert "predicted rightly" in done.stdout
    assert re.search(r"^weights +GiB", done.stdout, re.M)


@pytest.mark.parametrize("content", ["", "nothing of the kind\n"], ids=["empty", "another log"])
def test_a_log_that_says_nothing(berth, tmp_path, content):
    (tmp_path / "log").write_text(content)
    config = str(CONFIGS / "Qwen2.5-7B-Instruct.json")
    done = berth("size", config, "--gpu", "A10G", "--against", str(tmp_path / "log"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "says nothing about memory" in done.stderr
