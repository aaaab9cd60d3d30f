"""What a release does not take is said before anything is rendered."""

from __future__ import annotations

import pytest

from modelberth.base.errors import UsageError
from modelberth.manifests.engine_args import Argument
from modelberth.manifests.engine_flags import flag_problems
from stacks import stack_data, tree_of


@pytest.mark.parametrize(
    ("flag", "value", "release", "says"),
    [
        ("max-model-length", "1", "0.9.1", "is no flag of vLLM; did you mean --max-model-len?"),
        ("enable-log-requests", None, "0.9.1", "is in vLLM 0.10.1 to 0.33.0, and not in 0.9.1"),
        ("disable-log-requests", None, "0.24.0", "is in vLLM 0.8.0 to 0.16.0, and not in 0.24.0"),
        ("enable-auto-tool-choice", "yes", "0.9.1", "stands alone"),
        ("tool-call-parser", None, "0.9.1", "needs a value"),
    ],
)
def test_what_is_not_taken(flag: str, value: str | None, release: str, says: str):
    (problem,) = flag_problems([Argument(flag, value)], release)
    assert says in problem


def test_what_is_taken():
    words = [Argument("max-model-len", "1"), Argument("no-enable-prefix-caching"), Argument("enforce-eager", "true")]
    assert flag_problems(words, "0.9.1") == ()


def test_a_stack_is_refused_with_every_flag_at_once():
    data = stack_data(platform={"kind": "rhoai", "version": "3.0"})
    data["models"][0]["variants"][0]["engineArgs"] = {"max-model-length": 1, "enable-log-requests": True}
    with pytest.raises(UsageError) as caught:
        tree_of(data)
    assert caught.value.what == "vLLM 0.9.1 does not take these engine arguments"
    assert len(caught.value.why.splitlines()) == 2
    data["platform"]["vllm"] = "0.11.2"
    data["models"][0]["variants"][0]["engineArgs"].pop("max-model-length")
    tree_of(data)
