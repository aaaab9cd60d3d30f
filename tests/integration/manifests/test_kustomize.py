"""Kustomize builds every rendered tree, and what comes out is what was rendered."""

from __future__ import annotations

import pytest

from kustomize import COMMAND, WHY_SKIPPED, kustomize_build
from stacks import PLATFORMS, everything, tree_of

pytestmark = [pytest.mark.integration, pytest.mark.skipif(COMMAND is None, reason=WHY_SKIPPED)]


@pytest.mark.parametrize("platform", PLATFORMS, ids="-".join)
def test_kustomize_builds_the_tree(platform: tuple[str, str], tmp_path):
    tree = tree_of(everything(*platform))
    for file in tree.files:
        path = tmp_path / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text)
    base = tmp_path / "gitops/berths/base"
    built = kustomize_build(base)
    expected = [each for each in tree.objects if each["kind"] != "Application"]
    assert sorted(map(_identity, built)) == sorted(map(_identity, expected))
    assert {_identity(each): each for each in built} == {_identity(each): each for each in expected}
    assert {each["kind"] for each in kustomize_build(base / "model-upload")} == {"Job", "PersistentVolumeClaim"}


def _identity(obj: dict) -> tuple[str, str, str]:
    return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
