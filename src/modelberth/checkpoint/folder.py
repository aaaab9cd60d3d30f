"""Which files of a model folder belong to the model, and which are refused.

Weights are safetensors only: a pickle can run code when it is loaded, so `.bin`, `.pt` and the like are
refused by name. Python files are refused for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from modelberth.base.errors import IntegrityError
from modelberth.checkpoint import safetensors
from modelberth.checkpoint.config import parse_config
from modelberth.checkpoint.shape import ModelShape
from modelberth.checkpoint.tensors import grouped, parameters

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5"}
_CODE = {".py", ".so", ".sh"}
_IGNORED_PARTS = {".git", ".cache", ".modelberth", "__pycache__"}
_IGNORED_NAMES = {".gitattributes", ".gitignore", ".DS_Store"}


@dataclass(frozen=True)
class Checkpoint:
    """A model folder whose config, headers and index agree.

    Attributes:
        shape: from config.json.
        headers: safetensors file name -> header.
        weight_bytes: bytes of all tensors.
        parameters: tensor elements, packed 4-bit weights counted as the parameters they hold.
    """

    shape: ModelShape
    headers: Mapping[str, safetensors.Header]
    weight_bytes: int
    parameters: int


def model_files(paths: Iterable[str], *, allow_pickle: bool = False) -> tuple[str, ...]:
    """The files to deliver out of all files of a folder, sorted; a second copy of the weights stays behind.

    Args:
        paths: file paths relative to the folder, `/` between parts.
        allow_pickle: let pickles pass; code never does.

    Raises:
        IntegrityError: a pickle or code is among them; two names differ only in case.
    """
    kept = sorted(path for path in paths if not _ignored(PurePosixPath(path)))
    if any(is_weights(path) and not _is_second_copy(path) for path in kept):
        kept = [path for path in kept if not _is_second_copy(path)]
    for path in kept:
        check_path(path)
        suffix = PurePosixPath(path).suffix.lower()
        if suffix in _PICKLES and not allow_pickle:
            raise _refused(
                path,
                "pickled weights can run code when they are loaded",
                "deliver the safetensors files only: --exclude, or take the risk: --allow-pickle",
            )
        if suffix in _CODE:
            raise _refused(path, "code in a model folder runs with --trust-remote-code", "remove the file")
    folded: dict[str, str] = {}
    for path in kept:
        if path.lower() in folded:
            raise _refused(path, f"its name differs from {folded[path.lower()]} only in case", "rename one of them")
        folded[path.lower()] = path
    return tuple(kept)


def check_path(path: str) -> None:
    """Refuse a file path that is not plainly inside its folder.

    Raises:
        IntegrityError: absolute, `..`, empty parts, backslash or control characters.
    """
    parts = path.split("/")
    unsafe = any(part in {"", ".", ".."} for part in parts) or "\\" in path or ":" in path or not path.isprintable()
    if unsafe:
        raise IntegrityError(
            f"the file path {path!r} is not safe", where=path, why="expected a plain path inside the folder"
        )


def _ignored(path: PurePosixPath) -> bool:
    return bool(_IGNORED_PARTS & set(path.parts)) or path.name in _IGNORED_NAMES


def _is_second_copy(path: str) -> bool:
    """Whether this is Mistral's own format of the weights, which its repositories hold beside the usual one.

    Delivered too, it would double the bytes, and vLLM would take it instead of what the index names.
    """
    return PurePosixPath(path).match("consolidated*.safetensors")


def _refused(path: str, why: str, next_step: str) -> IntegrityError:
    return IntegrityError(f"{path} is refused", where=path, why=why, next_step=next_step)


def check_folder(
    files: Iterable[str], config: bytes | None, headers: Mapping[str, safetensors.Header], index: bytes | None
) -> Checkpoint:
    """Check that a folder holds one sound model.

    Args:
        files: the files to deliver, from `model_files`.
        config: bytes of config.json; None when it is absent.
        headers: header of every safetensors file.
        index: bytes of the shard index; None when it is absent.

    Raises:
        UsageError: config.json does not describe a model.
        IntegrityError: config or weights are missing, shards without an index, or an index that lies.
    """
    if config is None:
        raise IntegrityError("there is no config.json", why="a model folder has config.json beside its weights")
    shape = parse_config(config)
    if not headers:
        raise IntegrityError("there are no weights", why=f"no safetensors file among {len(list(files))} files")
    if index is not None:
        safetensors.check_index(index, headers)
    elif len(headers) > 1:
        raise IntegrityError(
            f"{safetensors.INDEX_NAME} is missing",
            why=f"{len(headers)} weight files need an index to say which is whose",
        )
    weight_bytes = sum(tensor.size for header in headers.values() for tensor in header.tensors)
    return Checkpoint(
        shape, dict(headers), weight_bytes, parameters(grouped(headers, len(shape.layers), shape.weight_bits))
    )


def is_weights(path: str) -> bool:
    """Whether a path names a safetensors file."""
    return path.endswith(".safetensors")
