"""Safetensors files made and read the way the adapters read them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelberth.checkpoint.safetensors import Header, header_length, parse_header


def read_file(content: bytes, name: str = "model.safetensors") -> Header:
    length = header_length(content[:8], len(content), name)
    return parse_header(content[8 : 8 + length], len(content), name)


def make_file(header: Any, body: int) -> bytes:
    """A file of a header (JSON bytes, or data to write as JSON) and `body` bytes of tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(body)


@pytest.fixture(scope="session")
def read() -> Callable[[bytes], Header]:
    """Length, then header, of a whole file."""
    return read_file


@pytest.fixture(scope="session")
def make() -> Callable[[Any, int], bytes]:
    """A safetensors file out of a header and a number of tensor bytes."""
    return make_file


@pytest.fixture(scope="session")
def headers_in() -> Callable[[Path], dict[str, Header]]:
    """The header of every safetensors file in a folder."""

    def run(folder: Path) -> dict[str, Header]:
        return {path.name: read_file(path.read_bytes(), path.name) for path in folder.glob("*.safetensors")}

    return run
