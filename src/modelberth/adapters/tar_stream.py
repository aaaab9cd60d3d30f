"""Layers of images that others have built: a tar stream, plain or gzip, whose model files are written as they pass.

The stream comes from a registry or a layout that checks its digest at the end, so nothing that is written here has its
name before that. Only plain files below /models count; links, devices and paths that lead out are refused by name.
"""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import IO, Protocol, cast

from modelberth.adapters.http_messages import Sink
from modelberth.base.errors import IntegrityError
from modelberth.checkpoint.folder import check_path

_MODES = {
    "application/vnd.oci.image.layer.v1.tar": "r|",
    "application/vnd.docker.image.rootfs.diff.tar": "r|",
    "application/vnd.oci.image.layer.v1.tar+gzip": "r|gz",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "r|gz",
}
_BUFFER_BYTES = 256 << 10
_AHEAD, _LOOK_SECONDS = 8, 0.2
_ROOT = "models/"
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
OnRemoved = Callable[[str], None]
"""Told of a path without `models/` that is gone with all below it; of an empty one for all of /models."""


class Stream(Protocol):
    """The bytes of one file, in order."""

    def read(self, size: int) -> bytes:
        """The next bytes; none at the end."""


def _ignore_removed(_path: str) -> None:
    return


def model_files_in(
    media_type: str, send: Callable[[Sink], None], where: str, on_removed: OnRemoved = _ignore_removed
) -> Iterator[tuple[str, int, Stream]]:
    """The files below /models of a layer, in order: path without `models/`, bytes, and a stream that gives them.

    Args:
        media_type: of the layer.
        send: pours the layer's bytes into a sink and checks them at the end; runs on a thread of its own.
        where: the layer, for messages.
        on_removed: told of what the layer takes away of those below it; its own files stay, whatever stands first.

    Raises:
        IntegrityError: a compression that is not read, no tar, links or unsafe paths among the model's files, or what
            `send` found at the end.
    """
    if media_type not in _MODES:
        raise IntegrityError(
            "this kind of layer is not read", where=where, why=f"it is {media_type}; plain tar and gzip are read",
            next_step="push the image without compression, or with gzip",
        )  # fmt: skip
    members = 0
    with _Pulled(send) as stream:
        try:
            with _opened(cast("IO[bytes]", stream), _MODES[media_type]) as archive:
                for member in archive:
                    members += 1
                    if _is_whiteout(member):
                        _tell_removed(member, on_removed)
                        continue
                    found = _model_file(archive, member, where, stream)
                    if found is not None:
                        yield found
        except (tarfile.TarError, EOFError, OSError) as error:
            stream.drain()
            # Some builders leave out the blocks that end a tar. Its digest was right, so nothing is missing.
            if not members:
                raise IntegrityError("the layer is no archive", where=where, why=type(error).__name__) from error
        stream.drain()


def _opened(reader: IO[bytes], mode: str) -> tarfile.TarFile:
    """An archive that is read as it comes.

    Raises:
        tarfile.TarError: it is none.
    """
    try:
        # A large block: a small one would be read from the stream piece by piece.
        return tarfile.open(mode=mode, fileobj=reader, bufsize=_BUFFER_BYTES)  # type: ignore[call-overload, no-any-return]
    except TypeError as error:  # how Python's reader takes a head of gzip that breaks off
        raise tarfile.ReadError("the head of the compressed layer breaks off") from error


def _plain(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./").removeprefix("/")


def _is_whiteout(member: tarfile.TarInfo) -> bool:
    return _plain(member).rpartition("/")[2].startswith(_WHITEOUT)


def _tell_removed(member: tarfile.TarInfo, on_removed: OnRemoved) -> None:
    """Say what a whiteout takes away, if it is of /models. Source: OCI image specification 1.1, "Whiteouts"."""
    folder, _, name = _plain(member).rpartition("/")
    # An opaque folder stays and what was in it goes: files have no folders of their own here, so it is the same.
    path = folder if name == _OPAQUE else f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/")
    if path in {"", _ROOT.rstrip("/")}:
        on_removed("")
    elif path.startswith(_ROOT):
        on_removed(path.removeprefix(_ROOT))


def _model_file(
    archive: tarfile.TarFile, member: tarfile.TarInfo, where: str, pulled: _Pulled
) -> tuple[str, int, Stream] | None:
    """A member that is a file of the model; None for anything else of the image."""
    path = _plain(member)
    if not path.startswith(_ROOT) or member.isdir():
        return None
    # A sparse file says a size of its own, which no byte in the layer stands for.
    content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
    if content is None:
        why = "only plain files are taken"
        raise IntegrityError("a link or device stands among the model's files", where=f"{where} {path}", why=why)
    check_path(path.removeprefix(_ROOT))
    return path.removeprefix(_ROOT), member.size, _Content(content, pulled, f"{where} {path}")


class _Content:
    """The bytes of one file. What is wrong with the archive is an error of ours; a wrong digest would explain it."""

    def __init__(self, content: IO[bytes], pulled: _Pulled, where: str) -> None:
        self._content, self._pulled, self._where = content, pulled, where

    def read(self, size: int) -> bytes:
        """The next bytes; none at the end.

        Raises:
            IntegrityError: the archive ends before the file does, or cannot be decompressed.
        """
        try:
            return self._content.read(size)
        except (tarfile.TarError, EOFError) as error:
            self._pulled.drain()
            raise IntegrityError(
                "the layer breaks off inside a file", where=self._where, why="its digest is right: it was built so",
                next_step="build the image again",
            ) from error  # fmt: skip


class _Pulled:
    """What is poured into a sink on one thread, read on another; a few buffers are held."""

    def __init__(self, send: Callable[[Sink], None]) -> None:
        self._send = send
        self._queue: Queue[bytes | None] = Queue(_AHEAD)
        self._rest = b""
        self._ended = False
        self._stopped = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="layer", daemon=True)

    def __enter__(self) -> _Pulled:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        self._thread.join()

    def read(self, size: int) -> bytes:
        """The next bytes, `size` of them unless the stream ends."""
        pieces, found = [self._rest], len(self._rest)
        while found < size and not self._ended:
            piece = self._queue.get()
            if piece is None:
                self._ended = True
                self.raise_failure()
                break
            pieces.append(piece)
            found += len(piece)
        whole = b"".join(pieces)
        self._rest = whole[size:]
        return whole[:size]

    def drain(self) -> None:
        """Read to the end: what checks the bytes has its say only there."""
        while self.read(_BUFFER_BYTES):
            continue
        self._thread.join()
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise what the sending thread ended with."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._send(self._put)
        except _Stop:
            pass
        except BaseException as error:  # noqa: BLE001 - carried over to the reading thread, and raised there
            self._failure = error
        with suppress(_Stop):
            self._offer(None)

    def _put(self, chunk: memoryview) -> None:
        self._offer(bytes(chunk))

    def _offer(self, piece: bytes | None) -> None:
        while not self._stopped.is_set():
            with suppress(Full):
                self._queue.put(piece, timeout=_LOOK_SECONDS)
                return
        raise _Stop


class _Stop(Exception):
    """The reader wants no more."""
