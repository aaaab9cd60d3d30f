"""A failed `berth up` says the cause and the fix of a failure that a signature knows, in the numbers of the case."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.integration
CRASH = r"""
cat <<'EOF'
INFO 11-23 13:34:34 [api_server.py:1351] vLLM API server version 0.32.0
(EngineCore pid=11) INFO 11-23 13:34:35 [core.py:93] Initializing a V1 LLM engine (v0.32.0) with config: model='x'
(EngineCore pid=11) ERROR 11-23 13:34:36 [core.py:1000] EngineCore failed to start.
(EngineCore pid=11) ERROR 11-23 13:34:36 [core.py:1000] Traceback (most recent call last):
(EngineCore pid=11) ERROR 11-23 13:34:36 [core.py:1000]   File "/v/kv_cache_utils.py", line 991, in check
(EngineCore pid=11) ERROR 11-23 13:34:36 [core.py:1000] ValueError: To serve at least one request with the model's \
max seq len (1024), (0.25 GiB KV cache is needed, which is larger than the available KV cache memory (0.2 GiB). Based \
on the available memory, the estimated maximum model length is 800. Try increasing `gpu_memory_utilization`
(APIServer pid=10) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
EOF
exit 1
"""


def test_the_error_says_cause_and_fix(berth, engine, stack):
    done = berth("up", "--once", "--python", engine(CRASH.replace("\\\n", "")), stack())
    assert (done.returncode, done.stdout) == (6, "")
    error = done.stderr[done.stderr.index("error: ") :]
    assert "(MB-KV-001)" in error
    assert "1,024" in error
    assert "800" in error
    assert "More: berth diagnose --log" in error


def test_what_no_signature_knows_is_told_as_it_was_read(berth, engine, stack):
    done = berth("up", "--once", "--python", engine("echo 'FooError: odd'; exit 1"), stack())
    assert "why:   FooError: odd" in done.stderr
    assert "next:  less " in done.stderr
