"""Checkpoints that are damaged, forged or hostile give one message; good ones come back to the bit."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import resource
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import segkit
from segkit import UserError
from segkit.registry.plausible import filled
from segkit.training import checkpoint
from segkit.training.flatten import flatten, unflatten
from tests.small import kinds, train

FOLDER = Path("only/seed-1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert kinds(train(folder, "train.epochs=1"))[-1] == "finished"
    return folder / FOLDER


def forged(source: Path, target: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> Path:
    """Write a copy whose metadata and tensors were changed, with a hash that fits them."""
    with safe_open(source, framework="numpy") as opened:
        meta = json.loads(opened.metadata()["segkit"].partition(" ")[2])
    tensors = load_file(source)
    change(meta, tensors)
    text = json.dumps(meta)
    save_file(tensors, target, {"segkit": f"{checkpoint._digest(tensors, text)} {text}"})
    return target


def refused(path: Path, match: str) -> None:
    for read in (lambda: checkpoint.load(path, with_state=True), lambda: segkit.load(path)):
        with pytest.raises(UserError, match=match) as caught:
            read()
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_tensors_of_every_kind_come_back(tmp_path: Path, kind: torch.dtype) -> None:
    tensor = (torch.randn(3, 4, 5, 2) * 3).to(kind).to(memory_format=torch.channels_last)
    checkpoint.save_tensors(tmp_path / "x.safetensors", {"a": tensor, "scalar": torch.tensor(1, dtype=kind)}, {})
    found = load_file(tmp_path / "x.safetensors")
    assert found["a"].dtype == kind
    assert torch.equal(found["a"], tensor)


@pytest.mark.parametrize("name", segkit.optimizers.names())
def test_the_state_of_every_optimizer_comes_back(name: str) -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))
    optimizer = segkit.optimizers.build(name, filled(segkit.optimizers[name], {})[0], [weight])
    for _ in range(3):
        (weight**2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    tensors, skeleton = flatten(optimizer.state_dict())
    back = unflatten(json.loads(json.dumps(skeleton)), {key: value.clone() for key, value in tensors.items()})
    assert repr(back) == repr(optimizer.state_dict())


@pytest.mark.parametrize(
    "value", [float("inf"), float("-inf"), -0.0, 1e-320, 2**60, -(2**70), "ü", (1, [2, {"a": None}])]
)
def test_odd_values_come_back(value: Any) -> None:
    tensors, skeleton = flatten({"x": value, 3: True})
    assert repr(unflatten(json.loads(json.dumps(skeleton)), tensors)) == repr({"x": value, 3: True})


def test_what_only_pickle_could_save_is_refused() -> None:
    with pytest.raises(TypeError, match=r"state\.x: a function cannot be saved without pickle"):
        flatten({"x": forged})


def test_cut_off_at_any_byte(run: Path, tmp_path: Path) -> None:
    data, path = (run / "last.safetensors").read_bytes(), tmp_path / "cut.safetensors"
    chance = random.Random(1)
    for length in [0, 1, 7, 8, 9, 100, len(data) - 1, *(chance.randrange(len(data)) for _ in range(40))]:
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cut.safetensors: .*damaged"):
            checkpoint.load(path, with_state=True)


def test_every_flipped_bit_is_noticed(run: Path, tmp_path: Path) -> None:
    data, path = bytearray((run / "last.safetensors").read_bytes()), tmp_path / "flipped.safetensors"
    chance = random.Random(2)
    places = [*range(0, 200, 7), *(chance.randrange(len(data)) for _ in range(60))]
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"flipped\.safetensors: "):
            checkpoint.load(path, with_state=True)


def test_a_file_that_a_training_replaces_while_it_is_read_is_whole(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, last = (next(run.rglob(f"{name}.safetensors")) for name in ("best", "last"))
    path, header = tmp_path / "last.safetensors", checkpoint._stored
    path.write_bytes(best.read_bytes())

    def replaced(read: Path) -> tuple[str, str]:
        found = header(read)
        path.write_bytes(last.read_bytes())
        return found

    monkeypatch.setattr(checkpoint, "_stored", replaced)
    found = checkpoint.load(path, with_state=True)
    assert found.meta["kind"] == "last"
    assert found.state is not None


def test_files_of_another_kind(run: Path, tmp_path: Path) -> None:
    torch_like = tmp_path / "zip.safetensors"
    with zipfile.ZipFile(torch_like, "w") as archive:
        archive.writestr("data.pkl", b"x")
    refused(torch_like, "a pickle .*which segkit never reads")
    pickled = tmp_path / "pickle.safetensors"
    pickled.write_bytes(pickle.dumps({"a": 1}, protocol=2))
    refused(pickled, "a pickle")
    text = tmp_path / "text.safetensors"
    text.write_text("hello, this is no checkpoint at all")
    refused(text, "damaged or not a checkpoint: .*header too large")
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    refused(tmp_path / "foreign.safetensors", "not written by segkit")
    refused(tmp_path / "nothing.safetensors", "no such checkpoint")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "a folder")


@pytest.mark.parametrize("length", [2**63, 2**32, 10**6])
def test_a_header_longer_than_the_file_is_never_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "long.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{" * 50)
    refused(path, "damaged or not a checkpoint: .*header")


def test_a_tensor_larger_than_the_file_takes_no_memory(tmp_path: Path) -> None:
    header = {
        "a": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]},
        "__metadata__": {"segkit": "x {}"},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "vast.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, "metadata is damaged|damaged")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def set_at(*path: str, value: Any) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], None]:
    def change(meta: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        node: Any = meta
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = value

    return change


PLUGIN = {"module": "segkit_plugins.evil", "origin": "evil.py", "sha256": "0" * 64, "sources": {}}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (set_at("format", value=0), "format"),
        (set_at("surprise", value=1), "surprise"),
        (set_at("channels", value=["x"] * 17), "channels"),
        (set_at("normalization", "std", value=0), "normalization.std"),
        (set_at("epoch", value=-1), "epoch"),
        (set_at("threads", value=10**9), "threads"),
        (set_at("plugins", value=[{**PLUGIN, "module": "../../evil"}]), "plugins.0.module"),
        (set_at("plugins", value=[{**PLUGIN, "sources": {"a/b": ""}}]), "plugins.0.sources"),
        (set_at("plugins", value=[{**PLUGIN, "sources": {"..": ""}}]), "plugins.0.sources"),
    ],
)  # fmt: skip
def test_metadata_that_breaks_the_format(run: Path, tmp_path: Path, change: Any, match: str) -> None:
    refused(forged(run / "best.safetensors", tmp_path / "x.safetensors", change), rf"metadata is damaged .*{match}")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (set_at("recipe", "model", value={"unet": {"widths": [10**6, 10**6]}}), "does not fit the recipe's model"),
        (set_at("recipe", "model", value={"unet": {"widths": [2**40]}}), "cannot be built|does not fit"),
        (set_at("recipe", "model", value={"os.system": {}}), "no such model"),
        (set_at("recipe", "transforms", value=5), "transforms"),
        (set_at("recipe", "channels", value=[5]), "channels"),
        (set_at("recipe", value={}), "train|damaged|fit"),
        (set_at("recipe", "train", "device", value="cuda:0; rm"), "train.device"),
        (set_at("recipe", "extends", value="/etc/passwd"), "extends"),
        (set_at("channels", value=["wall"]), "does not fit the recipe's model"),
    ],
)  # fmt: skip
def test_recipes_that_ask_for_something_else(run: Path, tmp_path: Path, change: Any, match: str) -> None:
    path = forged(run / "best.safetensors", tmp_path / "x.safetensors", change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=match):
        segkit.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024


def test_a_file_of_a_newer_version_says_so(run: Path, tmp_path: Path) -> None:
    path = forged(run / "best.safetensors", tmp_path / "x.safetensors", set_at("format", value=99))
    with pytest.raises(UserError, match=r"x\.safetensors: cannot be read: a newer segkit wrote it \(format 99, .* 3\)"):
        checkpoint.read_meta(path)


@pytest.mark.parametrize(
    ("part", "value"),
    [("loss", {"gone": {}}), ("regularizer", {"gone": {}}), ("optimizer", {"gone": {}}), ("scheduler", {"gone": {}}),
     ("data", {"gone": {}}), ("metrics", {"gone": {}}), ("transforms", {"train": [{"gone": {}}], "eval": []}),
     ("step", {"gone": {}})],
)  # fmt: skip
def test_predicting_needs_only_the_model(run: Path, tmp_path: Path, part: str, value: Any) -> None:
    path = forged(run / "best.safetensors", tmp_path / "x.safetensors", set_at("recipe", part, value=value))
    predictor = segkit.load(path)
    assert [name.split(".")[0] for name in predictor.missing] == [part]
    image = np.full((16, 16), 7, np.uint8)
    assert predictor.predict(image).shape == (2, 16, 16)
    if part in ("data", "metrics"):
        with pytest.raises(UserError, match=f"{part}.gone: no such"):
            segkit.evaluate(path)
    elif part != "transforms":
        assert segkit.evaluate(path) == segkit.evaluate(run / "best.safetensors")


def test_weights_of_another_shape(run: Path, tmp_path: Path) -> None:
    def shrink(meta: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if name.endswith("weight"))
        tensors[name] = tensors[name][:1].clone()

    path = forged(run / "best.safetensors", tmp_path / "x.safetensors", shrink)
    with pytest.raises(UserError, match=r"does not fit the recipe's model: other shapes: .*weight"):
        segkit.load(path)


@pytest.mark.parametrize("bomb", [{"t": "nowhere"}, {"d": [[1]]}, {"x": 1}, [1, 2], {"i": 5}, {"f": "1" * 10**6}])
def test_a_state_that_is_none(run: Path, tmp_path: Path, bomb: Any) -> None:
    path = forged(run / "last.safetensors", tmp_path / "x.safetensors", set_at("state", value=bomb))
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(path, with_state=True)


def test_code_inside_never_runs_by_itself(run: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    source = f"from pathlib import Path\nPath({str(marker)!r}).write_text('x')\n"
    digest = hashlib.sha256(source.encode()).hexdigest()
    plugin = {**PLUGIN, "sha256": digest, "sources": {"segkit_plugins.evil": source}}
    path = forged(run / "best.safetensors", tmp_path / "x.safetensors", set_at("plugins", value=[plugin]))
    segkit.evaluate(path)
    assert not marker.exists()
    checkpoint.read_meta(path)
    assert not marker.exists()
    segkit.load(path, trust_plugins=True)  # and this is what it takes
    assert marker.exists()


def test_no_pickle_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: Any, **named: Any) -> Any:
        raise AssertionError("pickle or the network was used")

    for module, names in (
        (pickle, ("load", "loads", "dump", "dumps", "Pickler", "Unpickler")),
        (torch, ("load", "save")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, never)
    monkeypatch.setattr(socket, "socket", never)
    monkeypatch.setattr(socket, "create_connection", never)
    assert kinds(train(tmp_path, "train.epochs=2", stop_after=2))[-1] == "interrupted"
    assert kinds(train(tmp_path, "train.epochs=2"))[-1] == "finished"
    assert segkit.evaluate(tmp_path / FOLDER / "best.safetensors")
