"""`berth up` where it ends before an answer: exit codes, what is said, what is left, and in which order it looks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from modelberth.flows.state import State

pytestmark = pytest.mark.integration

HANG = 'echo started; exec sleep 1000'
CRASH = r"""
cat <<'EOF'
INFO 11-23 13:34:34 [api_server.py:1351] vLLM API server version 0.32.0
(EngineCore pid=11) INFO 11-23 13:34:35 [core.py:93] Initializing a V1 LLM engine (v0.32.0) with config: model='x'
(EngineCore pid=11) ERROR 11-23 13:34:36 [core.py:1000] EngineCore failed to start.
(EngineCore pid=11) ERROR 11-23 13:34:36 [core.py:1000] Traceback (most recent call last):
(EngineCore pid=11) ERROR 11-23 13:34:36 [core.py:1000]   File "core.py", line 991, in run_engine_core
(EngineCore pid=11) ERROR 11-23 13:34:36 [core.py:1000] ValueError: To serve at least one request with the model's max seq len (1024), more is needed
(APIServer pid=10) Traceback (most recent call last):
(APIServer pid=10) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
