"""Errors: each meaning has its exit code, and a problem says where it is."""

from __future__ import annotations

import pytest

from modelberth.base import errors
from modelberth.base.errors import BerthError, Interrupted, Problem, Problems, SpecError, UsageError

# The exit codes are the command line's contract (docs: exit codes).
EXIT_CODES = {
    "BerthError": 1,
    "UsageError": 2,
    "SpecError": 2,
    "PrerequisiteMissing": 3,
    "AuthError": 4,
    "Conflict": 5,
    "NotReady": 6,
    "IntegrityError": 7,
    "DoesNotFit": 8,
    "RemoteUnavailable": 9,
}


def test_every_error_has_its_exit_code():
    classes = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    found = {name: value.exit_code for name, value in classes.items() if issubclass(value, BerthError)}
    assert found == EXIT_CODES


def test_an_error_carries_what_where_why_and_what_next():
    error = BerthError("it broke", where="here", why="because", next_step="berth doctor")
    assert str(error) == error.what == "it broke"
    assert (error.where, error.why, error.next_step) == ("here", "because", "berth doctor")


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)], ids=["SIGINT", "SIGTERM"])
def test_a_signal_gives_its_own_exit_code(number: int, code: int):
    assert Interrupted(number).exit_code == code


def test_a_signal_passes_every_handler_of_ordinary_errors():
    assert not issubclass(Interrupted, Exception)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem(14, 7, "models[0].pool", "no such pool"), "berth.yaml:14:7: models[0].pool: no such pool"),
        (Problem(1, 1, "", "it is empty", "write one"), "berth.yaml:1:1: it is empty (write one)"),
        (Problem(0, 0, "", "too large"), "berth.yaml: too large"),
    ],
    ids=["with path", "with suggestion", "no position"],
)
def test_a_problem_is_one_line(problem: Problem, text: str):
    assert problem.text("berth.yaml") == text


@pytest.mark.parametrize(("count", "what"), [(1, "1 problem in berth.yaml"), (2, "2 problems in berth.yaml")])
def test_a_spec_error_lists_every_problem(count: int, what: str):
    problems = Problems("berth.yaml", tuple(Problem(line, 1, "", f"wrong {line}") for line in range(1, count + 1)))
    error = SpecError(problems, next_step="berth schema")
    assert isinstance(error, UsageError)
    assert error.what == what
    assert error.why.splitlines() == [f"berth.yaml:{line}:1: wrong {line}" for line in range(1, count + 1)]
    assert error.problems is problems
    assert error.next_step == "berth schema"
