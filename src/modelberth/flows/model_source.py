"""Reading a model without its weights: config.json, the shard index and the headers of safetensors files, nothing else.

    text -> a shelf (folder, S3, Hub): lists files, reads ranges -> shape and headers, checked -> Model

Whatever store a model lies in, the same few ranges are read: a header is mostly in the first bytes that are asked for.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from modelberth.adapters.files import disk_errors
from modelberth.base.errors import IntegrityError, RemoteUnavailable, UsageError
from modelberth.base.text import nearest, printable, shorten
from modelberth.checkpoint.config import CONFIG_NAME, parse_config
from modelberth.checkpoint.fields import HF_QUANT_CONFIG_NAME
from modelberth.checkpoint.folder import is_weights, model_files
from modelberth.checkpoint.safetensors import (
    INDEX_NAME,
    LENGTH_BYTES,
    MAX_HEADER_BYTES,
    Header,
    check_index,
    header_length,
    parse_header,
)
from modelberth.flows.shelves import MAX_FILES, BucketShelf, FolderShelf, OriginShelf, Shelf
from modelberth.sizing.model import Model, model_of
from modelberth.spec.addresses import HubAddress, OciAddress, S3Address, parse_source

MAX_CONFIG_BYTES = 10_000_000
_PARALLEL = 8
_LEAST_GUESS, _MOST_GUESS = 16 << 10, 256 << 10
_FORMS = "a folder, a config.json, s3://bucket/prefix/, oci://registry/name:tag or hf://owner/name[@revision]"
_T = TypeVar("_T")


@dataclass(frozen=True)
class ModelSource:
    """A model as it was read.

    Attributes:
        name: as shown to people.
        kind: `folder`, `config`, `s3`, `oci` or `hub`.
        model: its shape and tensors.
        transferred: bytes of files read from a remote, and of the Hub's list of them; 0 for local ones.
        image_bytes: bytes of all files that a delivery would take; None where they are not at hand.
    """

    name: str
    kind: str
    model: Model
    transferred: int
    image_bytes: int | None


def read_model(text: str) -> ModelSource:
    """Read the model that a command line names.

    Raises:
        UsageError: there is no such model, or its config.json does not describe one.
        IntegrityError: a header or an index that lies, or shards without an index.
        AuthError, PrerequisiteMissing, RemoteUnavailable: the store or the Hub cannot be read.
    """
    if not text.strip():
        raise UsageError("the model has no name", next_step=f"give {_FORMS}")
    if "://" in text:
        address = parse_source(text)
        if isinstance(address, OciAddress):
            return _from_image(address)
        return _from_s3(address) if isinstance(address, S3Address) else _from_hub(_hub(address))
    mode = _mode(text)
    if mode is None:
        return _from_name(text)
    if stat.S_ISDIR(mode):
        return _collect(text, "folder", FolderShelf(Path(text)))
    if not stat.S_ISREG(mode):
        raise UsageError("this is neither a folder nor a file", where=_shown(text), next_step=f"give {_FORMS}")
    return _from_config(Path(text))


# --- where models lie --------------------------------------------------------------------------------------


def _mode(text: str) -> int | None:
    """What kind of file this path is; None where there is none."""
    try:
        with disk_errors(Path(_shown(text))):
            try:
                return Path(text).stat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                return None
    except ValueError:
        return None  # a null byte: no path


def _from_name(text: str) -> ModelSource:
    """The Hub's model of this name, where it can be one."""
    try:
        address = _hub(parse_source("hf://" + text))
    except UsageError:
        raise _nothing_at(text) from None
    try:
        return _from_hub(address)
    except (UsageError, RemoteUnavailable) as error:
        here = f"there is no folder or file '{text}' here either"
        error.why = f"{error.why}; {here}" if error.why else here
        near = _neighbour(text)
        error.next_step = f"did you mean '{near}'? Otherwise {error.next_step}" if near else error.next_step
        raise


def _hub(address: object) -> HubAddress:
    if not isinstance(address, HubAddress):
        raise UsageError("this names no model", next_step=f"give {_FORMS}")
    return address


def _nothing_at(text: str) -> UsageError:
    near = _neighbour(text)
    step = f"did you mean '{near}'? Otherwise give {_FORMS}" if near else f"give {_FORMS}"
    return UsageError(f"there is no model '{_shown(text)}'", why="no such folder or file", next_step=step)


def _neighbour(text: str) -> str | None:
    """The path that was most likely meant: the nearest name beside the first part that is not there."""
    here = Path()
    for part in Path(text.replace("\0", "")).parts:
        below = here / part
        if not os.path.exists(below):  # noqa: PTH110 - unlike Path.exists it raises for no path at all
            try:
                names = sorted(entry.name for entry in here.iterdir())[:MAX_FILES]
            except OSError:
                return None
            near = nearest(part, names)
            return printable(str(here / near)) if near else None
        here = below
    return None


def _from_config(path: Path) -> ModelSource:
    if path.suffix in {".safetensors", ".gguf", ".bin", ".pt", ".pth"}:
        step = f"give its folder: {path.parent}"
        raise UsageError("this is a weight file, not a config.json", where=str(path), next_step=step)
    shelf = FolderShelf(path.parent, (path.name, HF_QUANT_CONFIG_NAME))
    sizes = shelf.sizes()
    config = _small(shelf, str(path.parent), path.name, sizes)
    # Beside a file of another name it need not belong to this model.
    beside = path.name == CONFIG_NAME and HF_QUANT_CONFIG_NAME in sizes
    quantization = _small(shelf, str(path.parent), HF_QUANT_CONFIG_NAME, sizes) if beside else None
    try:
        shape = parse_config(config, quantization)
    except UsageError as error:
        error.where = str(path.with_name(HF_QUANT_CONFIG_NAME) if error.where == HF_QUANT_CONFIG_NAME else path)
        raise
    return ModelSource(str(path), "config", model_of(shape), 0, None)


def _from_s3(address: S3Address) -> ModelSource:
    from modelberth.adapters.s3 import S3Endpoint, S3Store  # a folder needs no botocore

    store = S3Store(S3Endpoint(None, region=None), address.bucket)
    try:
        return _collect(str(address), "s3", BucketShelf(store, address))
    finally:
        store.close()


def _from_image(address: OciAddress) -> ModelSource:
    from modelberth.flows.places import PlaceOptions, Places  # which need what is here; a folder needs no registry

    with Places(PlaceOptions()) as places:
        return _collect(str(address), "oci", OriginShelf(places.remote_origin(address, marked=True)))


def _from_hub(address: HubAddress) -> ModelSource:
    from modelberth.adapters.huggingface import HubRepository  # a folder needs no Hub

    return _collect(str(address), "hub", HubRepository(address))


# --- what is read of them ----------------------------------------------------------------------------------


def _collect(name: str, kind: str, shelf: Shelf) -> ModelSource:
    """The model on a shelf."""
    sizes = shelf.sizes()
    model, headers = check_shelf(name, shelf, sizes)
    return ModelSource(name, kind, model, shelf.transferred, _image_bytes(sizes) if headers else None)


def check_shelf(name: str, shelf: Shelf, sizes: Mapping[str, int]) -> tuple[Model, dict[str, Header]]:
    """Config, headers and index of a shelf, checked against each other; nothing else is read.

    Args:
        name: of the model, for messages.
        shelf: where its files are.
        sizes: of the files that count, by path.

    Raises:
        UsageError: there is no config.json, or it does not describe a model.
        IntegrityError: a header or an index that lies, or shards without an index.
    """
    if CONFIG_NAME not in sizes:
        raise _no_config(name, sizes)
    config = _small(shelf, name, CONFIG_NAME, sizes)
    quantization = _small(shelf, name, HF_QUANT_CONFIG_NAME, sizes) if HF_QUANT_CONFIG_NAME in sizes else None
    with _located(name, sizes):
        shape = parse_config(config, quantization)
        # Engines load what lies beside config.json; weights in folders below belong to something else.
        weights = model_files(path for path in sizes if is_weights(path) and "/" not in path)
        headers = _read_headers(shelf, sizes, weights)
    return model_of(shape, headers), headers


def _read_headers(shelf: Shelf, sizes: Mapping[str, int], weights: tuple[str, ...]) -> dict[str, Header]:
    """The headers of all files that an engine would load; none where there are no weights."""
    if INDEX_NAME not in sizes:
        if len(weights) > 1:
            raise IntegrityError(
                f"{INDEX_NAME} is missing", why=f"{len(weights)} weight files need an index to say which is whose",
                next_step="add the index, or give config.json alone: the tensors are then derived from it",
            )  # fmt: skip
        return _headers(shelf, sizes, weights, _MOST_GUESS)
    if sizes[INDEX_NAME] > MAX_HEADER_BYTES:
        raise _too_large(INDEX_NAME, sizes[INDEX_NAME])
    index = shelf.read(INDEX_NAME, 0, sizes[INDEX_NAME])
    indexed = _indexed(index, {path for path in sizes if is_weights(path)}) or weights
    # A header says dtype, shape and offsets where the index says a file: all headers are less than twice the index.
    share = 2 * len(index) // max(1, len(indexed))
    headers = _headers(shelf, sizes, indexed, min(max(share, _LEAST_GUESS), _MOST_GUESS))
    check_index(index, headers)
    return headers


def _indexed(index: bytes, present: set[str]) -> tuple[str, ...]:
    """The files that an index names: those are what vLLM loads, and no others.

    Raises:
        IntegrityError: it names one that is not there, or it is no index.
    """
    try:
        named = {str(file) for file in json.loads(index)["weight_map"].values()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        named = set()
    if not named or not named <= present:
        check_index(index, {path: Header((), 0) for path in present})  # says what is wrong with it
    return tuple(sorted(named))


def _headers(shelf: Shelf, sizes: Mapping[str, int], paths: tuple[str, ...], guess: int) -> dict[str, Header]:
    """Headers by path: the first `guess` bytes of every file, then the rest of the headers that are longer."""
    starts = _parallel(lambda path: shelf.read(path, 0, min(guess, sizes[path])), paths)
    lengths = [header_length(start, sizes[path], path) for path, start in zip(paths, starts, strict=True)]
    if sum(lengths) > MAX_HEADER_BYTES:
        raise IntegrityError(
            "the headers of the weight files are too large", why=f"together they claim {sum(lengths):,} bytes",
            next_step="give config.json alone: the tensors are then derived from it",
        )  # fmt: skip
    ends = {path: LENGTH_BYTES + length for path, length in zip(paths, lengths, strict=True)}
    longer = [path for path, start in zip(paths, starts, strict=True) if ends[path] > len(start)]
    rests = dict(zip(longer, _parallel(lambda path: shelf.read(path, guess, ends[path] - guess), longer), strict=True))
    headers: dict[str, Header] = {}
    for path, start in zip(paths, starts, strict=True):
        content = start[LENGTH_BYTES : ends[path]] + rests.pop(path, b"")
        headers[path] = parse_header(content, sizes[path], path)
    return headers


def _parallel(read: Callable[[str], _T], paths: tuple[str, ...] | list[str]) -> list[_T]:
    """Results in the order of the paths; the first error ends what has not begun."""
    pool = ThreadPoolExecutor(_PARALLEL)
    try:
        return list(pool.map(read, paths))
    finally:
        pool.shutdown(cancel_futures=True)


def _small(shelf: Shelf, name: str, path: str, sizes: Mapping[str, int]) -> bytes:
    """All bytes of a config file."""
    if path not in sizes:
        raise UsageError(f"{path} is not there any more", where=name)
    if sizes[path] > MAX_CONFIG_BYTES:
        why = f"it has {sizes[path]:,} bytes; at most {MAX_CONFIG_BYTES:,} are read"
        raise UsageError(f"{path} does not describe a model", where=_join(name, path), why=why)
    return shelf.read(path, 0, sizes[path])


def _too_large(path: str, size: int) -> IntegrityError:
    return IntegrityError(f"{path} is too large", where=path, why=f"{size:,} bytes; at most {MAX_HEADER_BYTES:,}")


@contextmanager
def _located(name: str, sizes: Mapping[str, int]) -> Iterator[None]:
    """Put the model's name before the file names that checks give as the place of an error."""
    try:
        yield
    except (IntegrityError, UsageError) as error:
        if not error.where:
            error.where = name
        elif error.where in sizes:
            error.where = _join(name, error.where)
        raise


def _join(name: str, path: str) -> str:
    return f"{name.rstrip('/')}/{path}"


def _no_config(name: str, sizes: Mapping[str, int]) -> UsageError:
    below = sorted((path.count("/"), path) for path in sizes if path.endswith("/" + CONFIG_NAME))
    why, step = f"{len(sizes):,} files and no {CONFIG_NAME}", f"give {_FORMS}"
    if below:
        step = f"did you mean '{_join(name, below[0][1].removesuffix('/' + CONFIG_NAME))}'?"
    elif any(path.endswith(".gguf") for path in sizes):
        why = "GGUF files are not read"
    elif "params.json" in sizes:
        why = "params.json is Mistral's own format, which is not read"
    return UsageError(f"there is no {CONFIG_NAME}", where=name, why=why, next_step=step)


def _image_bytes(sizes: Mapping[str, int]) -> int | None:
    """Bytes of what a delivery takes of these files. What it would refuse (pickles, code) is left out here."""
    try:
        return sum(sizes[path] for path in model_files(path for path in sizes if _is_accepted(path)))
    except IntegrityError:
        return None  # two names that differ only in case: no delivery


def _is_accepted(path: str) -> bool:
    try:
        return bool(model_files((path,)))
    except IntegrityError:
        return False


def _shown(text: str) -> str:
    return shorten(printable(text), 120)
