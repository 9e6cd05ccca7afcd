"""The hash of the weights that a training begins with: a filled recipe names them by it, not by the path of a file."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

from segkit.errors import UserError, sentence
from segkit.files import display_path, read_bytes
from segkit.recipe.merge import Document
from segkit.recipe.source import Source

FILE, SHA256 = ("train", "init_from"), ("train", "init_sha256")
MOST_BYTES = 8 * 2**30
MODEL = "model."  # begins the names of a checkpoint's weights


def with_initial_weights(document: Document) -> Document:
    """Return merged layers with the hash of the weights in `train.init_from`; the same ones without such a file.

    A hash that stands beside the path, as in a filled recipe, is kept, and the file is not opened: a trial that has
    begun does not need it any more. Where the file is gone there is no hash, and the document gets a warning.

    Raises:
        UserError: the file is not a checkpoint.
    """
    train = document.tree.get("train")
    name = train.get(FILE[1]) if isinstance(train, Mapping) else None
    if not isinstance(train, Mapping) or not isinstance(name, str):
        return document
    source, stated = document.origins[FILE], document.origins.get(SHA256)
    if stated is not None and (stated.name, stated.prefix) == (source.name, source.prefix):
        return document
    made, path, place = document.copy(), Path(name), f"{document.place(FILE)}: train.init_from"
    made.tree["train"] = {key: value for key, value in train.items() if key != SHA256[1]}
    try:
        found = path.stat()
    except (OSError, ValueError):
        text = f"{place}: {display_path(path)}: no such file: only trials that have begun with it can be run."
        document.warnings += [text] if text not in document.warnings else []
        return made
    try:
        made.tree["train"][SHA256[1]] = _sha256(path, found.st_size, found.st_mtime_ns)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    made.origins[SHA256] = Source(display_path(path), None, source.folder)
    return made


def weights_sha256(path: Path) -> str:
    """Return the SHA-256 of the names, types, shapes and values of a checkpoint's weights; not of what else it holds.

    Raises:
        UserError: it cannot be read, or holds no weights of a model.
    """
    from safetensors import SafetensorError, deserialize

    name = display_path(path)
    data = read_bytes(path, MOST_BYTES)
    try:
        tensors = {key: about for key, about in deserialize(data) if key.startswith(MODEL)}  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{name}: damaged or not a checkpoint: {sentence(error)}") from None
    if not tensors:
        raise UserError(f"{name}: holds no weights of a model as segkit saves them: it is not a checkpoint.")
    digest = hashlib.sha256()
    for key, about in sorted(tensors.items()):
        digest.update(f"\0{key}\0{about['dtype']}\0{list(about['shape'])}\0".encode())
        digest.update(about["data"])
    return digest.hexdigest()


@functools.lru_cache(maxsize=16)
def _sha256(path: Path, size: int, modified: int) -> str:
    """Return `weights_sha256` of a file, once for the variants of a study."""
    return weights_sha256(path)
