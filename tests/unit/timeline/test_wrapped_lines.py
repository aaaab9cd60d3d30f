"""What a terminal broke at its width is one line again; logs that no terminal broke stay as they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelberth.timeline.wrapped_lines import GONE, put_together

LOG = [
    b"(APIServer pid=1) INFO 09-04 01:02:21 [utils.py:326] non-default args: {'model': 'Qwen/Qwen2-7B-Instruct', 'port': 8081}",  # noqa: E501
    b"(APIServer pid=1) INFO 09-04 01:02:37 [__init__.py:711] Resolved architecture",
    b"(EngineCore pid=2) ERROR 09-04 01:02:54 [core.py:636] ValueError: To serve at least one request with the models's max "  # noqa: E501
    b"seq len (32768), (5.77 GiB KV cache is needed, which is larger than the available KV cache memory (4.96 GiB).",
    b"(EngineCore pid=2) INFO 09-04 01:02:54 [core.py:74] Initializing a V1 LLM engine (v0.10.1.1) with config: model='a', b=1",  # noqa: E501
    b"RuntimeError: Engine core initialization failed.",
]


def broken(lines, width):
    return [line[start : start + width] for line in lines for start in range(0, len(line), width)]


def test_pieces_are_put_together_and_numbers_stay():
    for width in (80, 97, 110):
        pieces = broken(LOG, width)
        found = put_together(pieces)
        assert len(found) == len(pieces)
        assert [line for line in found if line != GONE] == LOG
        assert all(pieces[index] == line[:width] for index, line in enumerate(found) if line != GONE)


def test_a_log_as_it_was_written_stays():
    assert put_together(LOG * 10) == LOG * 10
    same = [b'INFO:     10.0.0.1:34567 - "POST /v1/chat/completions HTTP/1.1" 200 OK'] * 50
    assert put_together(same) == same
    frames = [b'  File "/usr/lib/python3.12/multiprocessing/process.py", line 314, in _bootst', b"    self.run()"] * 5
    assert put_together([*frames, b"ValueError: x"]) == [*frames, b"ValueError: x"]


@given(st.lists(st.binary(max_size=130).filter(lambda line: b"\n" not in line), max_size=40))
def test_nothing_gets_lost(lines):
    found = put_together(lines)
    assert len(found) == len(lines)
    assert b"".join(line for line in found if line != GONE or line in lines) == b"".join(lines)
