"""Log files as blocks of bytes: plain or gzip, from a file or from standard input, in bounded memory."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from modelberth.adapters.files import disk_errors
from modelberth.base.errors import UsageError
from modelberth.base.text import printable
from modelberth.base.units import GIB, format_binary

STDIN, _STDIN_NAME = "-", "<stdin>"
_BLOCK = 1 << 20
_GZIP = b"\x1f\x8b"
MOST_UNPACKED = 4 * GIB
"""Bytes that are read of a compressed log: more is a bomb, or should be cut first."""


class LogFile:
    """One log.

    Attributes:
        name: shown as the source of evidence.
        trouble: why it was not read to its end; empty when it was. Known once the blocks were read.
    """

    def __init__(self, path: Path) -> None:
        """Take a path; `-` is standard input.

        Raises:
            UsageError: there is no such file, or it is a folder.
        """
        self._path = None if str(path) == STDIN else path
        self.name = _STDIN_NAME if self._path is None else printable(str(path))
        self.trouble = ""
        if self._path is not None:
            with disk_errors(path):
                if not path.exists():
                    raise UsageError("there is no such file", where=str(path), next_step="give the path of a log, or -")
                if path.is_dir():
                    raise UsageError(
                        "this is a folder",
                        where=str(path),
                        next_step="give the path of one log; several --log are read",
                    )

    def blocks(self) -> Iterator[bytes]:
        """Its bytes, unpacked.

        Raises:
            AuthError, UsageError: it cannot be read.
        """
        if self._path is None:
            yield from self._unpacked(_read(sys.stdin.buffer))
            return
        with disk_errors(self._path), self._path.open("rb") as stream:
            yield from self._unpacked(_read(stream))

    def _unpacked(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        first = next(blocks, b"")
        if not first.startswith(_GZIP):
            yield first
            yield from blocks
            return
        size = 0
        for block in self._gunzip(_chain(first, blocks)):
            size += len(block)
            yield block
            if size >= MOST_UNPACKED:
                self.trouble = f"{self.name}: read up to {format_binary(MOST_UNPACKED)} of what it unpacks to"
                return

    def _gunzip(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Several members after each other are one file, as gzip itself has it."""
        unpack = zlib.decompressobj(wbits=31)
        try:
            for block in blocks:
                rest = block
                while rest:
                    if unpack.eof:
                        unpack = zlib.decompressobj(wbits=31)
                    yield unpack.decompress(rest, _BLOCK)
                    rest = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
        except zlib.error:
            self.trouble = f"{self.name}: damaged; read up to the place where unpacking fails"
            return
        if not unpack.eof:
            self.trouble = f"{self.name}: ends in the middle of its compressed data"


def _read(stream: BinaryIO) -> Iterator[bytes]:
    while block := stream.read(_BLOCK):
        yield block


def _chain(first: bytes, blocks: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from blocks
