"""The checkpoint reader, fed with damaged files and with forged ones whose hash fits."""

from __future__ import annotations

import atexit
import functools
import json
import random
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import segkit
from segkit import UserError
from segkit.training import checkpoint
from tests.fuzz.mutation import mutated
from tests.small import train


@functools.cache
def folder() -> Path:
    """Return a folder that goes with the process."""
    made = tempfile.mkdtemp(prefix="segkit-fuzz-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


@functools.cache
def seed() -> bytes:
    """Return a checkpoint with optimizer state."""
    run = folder() / "run"
    train(run, "train.epochs=1", "model.unet.widths=[2]")
    return (run / "only/seed-1/last.safetensors").read_bytes()


def mutate(chance: random.Random) -> bytes:
    """Return a damaged checkpoint, or one whose metadata were changed and whose hash was made to fit."""
    data = seed()
    if chance.random() < 0.5:
        return mutated(data, chance)
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    meta = json.loads(header["__metadata__"]["segkit"].partition(" ")[2])
    for _ in range(chance.randint(1, 3)):
        _change(meta, chance)
    text = json.dumps(meta)
    from safetensors.torch import load

    header["__metadata__"]["segkit"] = f"{checkpoint._digest(load(data), text)} {text}"
    changed = json.dumps(header).encode()
    return struct.pack("<Q", len(changed)) + changed + data[8 + length :]


def _change(node: Any, chance: random.Random) -> None:
    """Change something at a random depth."""
    odd: list[Any] = [
        None,
        -1,
        2**62,
        1e308,
        "",
        "../../x",
        "x" * 5000,
        [],
        {},
        [[[]]],
        True,
        {"t": "model.x"},
        {"widths": [2**31]},
    ]
    while isinstance(node, (dict, list)) and node:
        key = chance.choice(list(node)) if isinstance(node, dict) else chance.randrange(len(node))
        if chance.random() < 0.4 or not isinstance(node[key], (dict, list)) or not node[key]:
            if chance.random() < 0.2:
                del node[key]
            else:
                node[key] = chance.choice(odd)
            return
        node = node[key]


def one(data: bytes) -> bool:
    """Read it, with state and as a model; return whether it was refused. Anything but a message is a crash."""
    path = folder() / "x.safetensors"
    path.write_bytes(data)
    try:
        checkpoint.load(path, with_state=True)
        segkit.load(path)
    except UserError as error:
        assert str(error)
        return True
    return False
