"""The checkpoint: one safetensors file of tensors and one JSON string; no pickle is written or read.

A truncated, corrupted, forged or foreign file raises one error; nothing in it is ever executed, and reading takes no
more memory than a small multiple of the file's size.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Len
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from segkit import files
from segkit.errors import UserError, first_few, sentence
from segkit.registry.messages import translate_errors
from segkit.training.flatten import flatten, unflatten

FORMAT = 3
KEY = "segkit"
MAX_BYTES = 8 * 2**30


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Plugin(_Stored):
    """A plugin as the checkpoint carries it; `sources` maps module names to text."""

    module: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")]
    origin: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    sources: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")], str]


class _Split(_Stored):  # names of cases
    train: list[str]
    validation: list[str]
    test: list[str] = []
    unlabelled: list[str] = []


class _Normalization(_Stored):  # of images after intensity, one of each an input
    mean: list[Annotated[float, Field(allow_inf_nan=False)]]
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]


class Meta(_Stored):
    """The metadata of a checkpoint."""

    format: Literal[3]
    kind: Literal["best", "last"]
    training_number: Annotated[int, Ge(1)]
    identity: str
    variant: str
    recipe: dict[str, Any]
    inputs: Annotated[list[str], Len(1, 16)]
    overlapping: bool = False  # whether the masks that it was trained on overlap
    channels: Annotated[list[str], Len(1, 16)]
    exclusive: bool
    normalization: _Normalization
    split: _Split
    trained_patients: list[str] = []
    validation_patients: list[str] = []
    metrics: dict[str, float | None]
    epoch: Annotated[int, Ge(0)]
    step: Annotated[int, Ge(0)]
    fingerprint: str
    initial_weights: dict[str, Any] | None = None  # which of them come from `train.init_from`
    precision: str
    device: str
    threads: Annotated[int, Ge(1), Field(le=4096)]
    compile: bool
    plugins: list[_Plugin]
    versions: dict[str, str]
    state: Any = None


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint: weights, the fields of `Meta`, and the training state, if requested and present."""

    weights: dict[str, Tensor]
    meta: dict[str, Any]
    state: Any


def save(path: Path, weights: Mapping[str, Tensor], meta: dict[str, Any], state: Any = None) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: the file.
        weights: a model's state dict, in any memory format.
        meta: the fields of `Meta` but for `format` and `state`.
        state: nested plain values and tensors.

    Raises:
        UserError: the file cannot be written.
    """
    extra, skeleton = flatten(state)
    tensors = {f"model.{name}": tensor for name, tensor in weights.items()} | extra
    content = {**meta, "format": FORMAT, "state": skeleton}
    save_tensors(path, tensors, Meta.model_validate(content).model_dump())


def save_tensors(path: Path, tensors: Mapping[str, Tensor], meta: dict[str, Any]) -> None:
    """Write tensors and a JSON string with the hash of both, whole or not at all."""
    from safetensors.torch import save as encode

    plain = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    text = json.dumps(meta, allow_nan=False)
    # one string: safetensors writes several in any order, and the bytes would differ from save to save
    files.write_bytes(path, encode(plain, {KEY: f"{_digest(plain, text)} {text}"}))


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_meta(path: Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint without reading its tensors; the hash is not checked.

    Raises:
        UserError: the file is missing, damaged or not a checkpoint.
    """
    found = _meta(path, _stored(path)[1])
    found.pop("state")
    return found


def _stored(path: Path) -> tuple[str, str]:
    """Return the hash and the JSON text of the header's metadata; safetensors checks the header before reading on."""
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file():
            path.stat()
            known = [*path.glob("best.safetensors"), *sorted(path.glob("*/*/best.safetensors")), "best.safetensors"]
            raise UserError(f"{path}: {files.kind_of(path)}. A checkpoint is a file such as {known[0]}.")
        with open(path, "rb") as file:
            if file.read(2) in (b"PK", b"\x80\x02"):
                raise UserError(f"{path}: a pickle (.pt, .pth), which segkit never reads. Use a .safetensors file.")
        with safe_open(path, framework="numpy") as opened:
            found = opened.metadata()
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except SafetensorError as error:
        raise UserError(f"{path}: damaged or not a checkpoint: {sentence(error)} Use another copy.") from None
    if KEY not in (found or {}):
        raise UserError(f"{path}: a safetensors file, but not written by segkit.")
    digest, _, text = found[KEY].partition(" ")
    return digest, text


def _embedded(data: bytes) -> tuple[str, str]:
    """Return the same of a file's bytes, whose header safetensors has checked."""
    length = int.from_bytes(data[:8], "little")
    digest, _, text = json.loads(data[8 : 8 + length])["__metadata__"][KEY].partition(" ")
    return digest, text


def _from_format_1(content: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of format 1 (segkit 0.1.0) in format 3; format 2 says how the numbers were made."""
    train = content["recipe"]["train"]
    recipe = content["recipe"] | {"train": train | {"threads": content["threads"] or "auto"}}
    made = {"training_number": 1, "compile": train["compile"], "threads": content["threads"] or 1, "recipe": recipe}
    return _from_format_2(content | made)


def _from_format_2(content: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of format 2, of models with one grey input, in format 3."""
    normalization = {name: [value] for name, value in content["normalization"].items()}
    return content | {"format": 3, "inputs": ["image"], "normalization": normalization}


def _upgraded(text: str) -> str:
    """Return metadata of any format in the current one; what is damaged is returned as it is, for `Meta` to refuse.

    Raises:
        ValueError: a newer segkit wrote it.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("format"), int) or content["format"] == FORMAT:
        return text
    if content["format"] > FORMAT:
        raise ValueError(f"a newer segkit wrote it (format {content['format']}, this one reads up to {FORMAT})")
    with contextlib.suppress(KeyError, TypeError, AttributeError):
        upgrade = {1: _from_format_1, 2: _from_format_2}.get(content["format"])
        return json.dumps(upgrade(content)) if upgrade else text
    return text


def _meta(path: Path, text: str) -> dict[str, Any]:
    try:
        return Meta.model_validate_json(_upgraded(text), strict=True).model_dump()
    except json.JSONDecodeError:
        raise UserError(f"{path}: its metadata is damaged: it is not JSON.") from None
    except ValidationError as error:
        place, why, _ = translate_errors(error, json.loads(text), lambda path: [], "name")[0]
        where = ".".join(str(part) for part in place)
        raise UserError(f"{path}: its metadata is damaged or of another version: {where}: {sentence(why)}") from None
    except RecursionError:
        raise UserError(f"{path}: its metadata is nested too deeply.") from None
    except ValueError as error:
        raise UserError(f"{path}: cannot be read: {sentence(error)} Use a newer version.") from None


def load(path: Path, *, with_state: bool = False) -> Checkpoint:
    """Return a checkpoint, its hash checked.

    Raises:
        UserError: the file is missing, damaged, forged or not a checkpoint.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as decode

    first = _stored(path)
    meta = _meta(path, first[1])
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES:,} bytes, which no checkpoint is.")
    try:
        data = path.read_bytes()
        tensors, found = decode(data), _embedded(data)
        del data
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, RuntimeError, OSError) as error:
        raise UserError(f"{path}: damaged: {sentence(error)} Use another copy, or train again.") from None
    if found[0] != _digest(tensors, found[1]):
        raise UserError(f"{path}: damaged: its content does not match its hash. Use another copy, or train again.")
    if found != first:  # a training has replaced the file in between
        meta = _meta(path, found[1])
    skeleton = meta.pop("state")
    state = None
    if with_state and skeleton is not None:
        try:
            state = unflatten(skeleton, {name: t for name, t in tensors.items() if name.startswith("state")})
        except ValueError as error:
            raise UserError(f"{path}: damaged: {sentence(error)}") from None
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    return Checkpoint(weights, meta, state)


def load_into(model: nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    """Copy weights into a model; raises as `check_fit` does."""
    check_fit(model, weights, path)
    model.load_state_dict(dict(weights))


def check_fit(model: nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    """Raise unless weights have the names and shapes of a model's, which may be on the meta device.

    Raises:
        UserError: names or shapes differ; the first few are named.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights]
    unknown = [name for name in weights if name not in own]
    shapes = [
        f"{name} {tuple(found.shape)}, not {tuple(own[name].shape)}"
        for name, found in weights.items()
        if name in own and found.shape != own[name].shape
    ]
    for label, found in (("missing", missing), ("unexpected", unknown), ("other shapes", shapes)):
        if found:
            raise UserError(f"{path}: does not fit the recipe's model: {label}: {first_few(found, 3)}.")
