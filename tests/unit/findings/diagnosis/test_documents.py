"""The document of `-o json`, SARIF as its schema wants it, JUnit that parses, whatever a log holds."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from modelberth.findings.diagnosis.documents import document, junit, sarif
from modelberth.findings.diagnosis.finding import Diagnosis, Evidence, Finding

from .conftest import OUT_OF_MEMORY


def test_document(diagnose):
    found = document(diagnose(OUT_OF_MEMORY))
    assert found["schemaVersion"] == "modelberth.dev/findings/v1"
    assert found["firstError"] is None
    (finding,) = found["findings"]
    assert (finding["id"], finding["severity"], finding["numbers"]) == ("MB-MEM-001", "high", {"tried": 0.2441})
    assert finding["evidence"][0]["line"] == 5
    json.dumps(found, allow_nan=False)


def test_sarif_points_at_the_line(diagnose):
    run = sarif(diagnose(OUT_OF_MEMORY), "1.0")["runs"][0]
    (result,) = run["results"]
    assert (result["ruleId"], result["level"]) == ("MB-MEM-001", "error")
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "MB-MEM-001"
    assert result["locations"][0]["physicalLocation"]["region"]["startLine"] == 5


def test_junit_without_a_finding_has_a_case_that_passed(diagnose):
    suite = ElementTree.fromstring(junit(diagnose("nothing\n")))
    assert (suite.get("tests"), suite.get("failures"), len(suite)) == ("1", "0", 1)


@given(st.text(), st.text(), st.text())
def test_junit_parses_whatever_a_log_holds(title, cause, line):
    finding = Finding(
        "MB-SYS-001", title, "low", "high", "", cause, evidence=(Evidence("a&b", 1, line), Evidence("Pod <x>", 0, line))
    )
    suite = ElementTree.fromstring(junit(Diagnosis((finding,))))
    assert suite.get("failures") == "1"
