"""The cache: read once, the same bytes as without it, safe when processes start at once or die."""

from __future__ import annotations

import errno
import functools
import json
import multiprocessing
import os
import pickle
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segkit
from segkit import UserError
from segkit.checks.recipe import check_trials
from segkit.components.datasets.case import Case, Dataset
from segkit.components.datasets.reading import DatasetError
from segkit.data.cache import DataCache
from segkit.data.cases import Data
from segkit.data.filling import fill
from segkit.data.preparing import prepare
from segkit.plugins import isolated
from segkit.recipe import merge
from segkit.recipe.model import validate
from segkit.recipe.source import Source
from segkit.registry.faults import ComponentError
from segkit.study.plan import plan_trials
from segkit.training.run import run_trial
from segkit.training.status import Status
from segkit.training.trial import Limit
from segkit.types import Array
from tests.small import BASE, kinds, recipe, trial

READS = "reads.txt"  # in the folder of the data: a line for each case read


def read_file(path: Path, wait: float = 0.0) -> tuple[Array, Array | None]:
    time.sleep(wait)
    with open(path.with_name(READS), "a") as log:
        log.write(f"{path.name}\n")
    image = np.load(path)
    if image.ndim == 1:
        raise UserError(f"{path}: has one axis. Save it with two.")
    return image, image[None] > 1000


def folder_of_arrays(root: Path, count: int = 5, wait: float = 0.0) -> Dataset:
    """Return a data set of the arrays in a folder, read when they are needed."""
    paths = sorted(root.glob("*.npy"))[:count]
    cases = (Case(p.stem, p.stem, load=functools.partial(read_file, p, wait), files=(p,)) for p in paths)
    return Dataset("arrays", ("bright",), tuple(cases))


@pytest.fixture(autouse=True)
def _reader() -> Iterator[None]:
    with isolated():
        register()
        yield


def register() -> None:
    @segkit.datasets.register("arrays")
    def arrays(*, root: Path, wait: float = 0.0) -> Dataset:
        """Arrays in a folder."""
        return folder_of_arrays(root, wait=wait)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(5):
        image = np.random.default_rng(number).integers(0, 2000, (20 + number, 24)).astype(np.uint16)
        np.save(folder / f"case{number}.npy", image)
    return folder


def read(cache: DataCache, root: Path, **values: Any) -> Data:
    component = segkit.datasets.component("arrays", {"root": str(root), **values})
    return cache.read(component, segkit.intensities.component("percentile"))


def reads(root: Path) -> int:
    log = root / READS
    return len(log.read_text().splitlines()) if log.exists() else 0


def same(one: Data, other: Data) -> bool:
    pixels = all(
        np.array_equal(one.slices.image(n), other.slices.image(n))
        and np.array_equal(one.slices.bits(n), other.slices.bits(n))
        for n in range(len(one.slices))
    )
    return pixels and (one.cases, one.fingerprint, one.notes) == (other.cases, other.fingerprint, other.notes)


def test_data_are_read_once_for_all_trials_processes_and_commands(root: Path, tmp_path: Path) -> None:
    cache = DataCache(tmp_path / "cache")
    first = read(cache, root)
    assert reads(root) == 5
    assert read(cache, root) is first
    other = read(pickle.loads(pickle.dumps(cache)), root)  # another process
    again = read(DataCache(tmp_path / "cache"), root)  # another command
    assert reads(root) == 5
    alone = fill(folder_of_arrays(root), segkit.intensities.component("percentile"))
    assert same(first, alone)
    assert same(other, alone)
    assert same(again, alone)


@pytest.mark.parametrize("change", ["content", "time", "more"])
def test_a_stale_entry_is_read_again_and_thrown_away(root: Path, tmp_path: Path, change: str) -> None:
    cache = tmp_path / "cache"
    before = read(DataCache(cache), root)
    path = root / "case3.npy"
    if change == "more":
        path.unlink()
    elif change == "time":
        os.utime(path, ns=(1, 1))
    else:
        times = os.stat(path)
        np.save(path, np.zeros((23, 24), np.uint16))  # of the same size, and dated back
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = read(DataCache(cache), root)
    assert reads(root) == (9 if change == "more" else 10)
    assert same(before, after) is (change == "time")
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 1


@pytest.mark.parametrize("name", ["index.json", "cases.json", "images.bin", "moments.npy"])
@pytest.mark.parametrize("damage", ["gone", "cut", "garbage"])
def test_a_damaged_entry_is_made_again(root: Path, tmp_path: Path, name: str, damage: str) -> None:
    cache = tmp_path / "cache"
    before = fill(folder_of_arrays(root), segkit.intensities.component("percentile"))
    read(DataCache(cache), root)
    (path,) = cache.glob(f"*/{name}")
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"{}")
    assert same(read(DataCache(cache), root), before)
    assert reads(root) == 15


def test_nothing_in_the_cache_is_a_pickle(root: Path, tmp_path: Path) -> None:
    data = read(DataCache(tmp_path / "cache"), root)
    prepare(data, [segkit.transforms.component("HorizontalFlip", {"p": 1})], exclusive=False)
    kinds = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert kinds == {"index.json", "cases.json", "images.bin", "bits.bin", "moments.npy"}
    for path in (tmp_path / "cache").rglob("*.json"):
        json.loads(path.read_text())
    for path in (tmp_path / "cache").rglob("*.npy"):
        np.load(path, allow_pickle=False)


def _start(root: Path, cache: Path, results: Any) -> None:
    register()
    results.put(read(DataCache(cache), root, wait=0.05).fingerprint)


def test_two_that_start_at_once_read_once(root: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_start, args=(root, tmp_path / "cache", results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = {results.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1
    assert reads(root) == 5


def test_one_that_is_killed_leaves_nothing_that_counts(root: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_start, args=(root, tmp_path / "cache", results))
    process.start()
    until = time.monotonic() + 60
    while reads(root) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.join()
    left = list((tmp_path / "cache").glob(".*-*"))
    found = read(DataCache(tmp_path / "cache"), root, wait=0.05)
    assert same(found, fill(folder_of_arrays(root), segkit.intensities.component("percentile")))
    assert not [path for path in left if path.exists()]


def test_training_is_the_same_to_the_bit_with_and_without_it(tmp_path: Path) -> None:
    weights = []
    for name in ("with", "again", "without"):
        cache = DataCache(None if name == "without" else tmp_path / "cache")
        events = list(run_trial(trial(tmp_path / name, recipe("train.epochs=2")), stop=lambda: False, cache=cache))
        assert events[-1].kind == "finished", events[-1].text
        folder = tmp_path / name / "only" / "seed-1"
        weights.append(((folder / "best.safetensors").read_bytes(), (folder / "cases.csv").read_bytes()))
    assert weights[0] == weights[1] == weights[2]
    assert list((tmp_path / "cache").glob("*/prepared-*/images.bin"))


def test_problems_of_all_cases_are_reported_together_and_nothing_is_kept(root: Path, tmp_path: Path) -> None:
    for number in (1, 3):
        np.save(root / f"case{number}.npy", np.zeros(9, np.uint8))
    with pytest.raises(DatasetError, match=r"case1.npy: has one axis. Save it with two. .*case3.npy: 2 in all"):
        read(DataCache(tmp_path / "cache"), root)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


@pytest.mark.parametrize("failure", [ValueError("boom"), SystemExit(3)])
def test_a_plugin_that_fails_while_it_reads_a_case_is_named_with_its_line(tmp_path: Path, failure: Any) -> None:
    def load(number: int) -> tuple[Array, Array]:
        if number == 2:
            raise failure
        return np.eye(4, dtype=np.uint8), np.eye(4)[None] > 0

    @segkit.datasets.register("failing")
    def failing() -> Dataset:
        """The third case fails."""
        cases = (Case(f"c{number}", None, load=functools.partial(load, number)) for number in range(4))
        return Dataset("failing", ("a",), tuple(cases))

    line = load.__code__.co_firstlineno + 2
    said = r"ValueError: boom \(while c2 was read\)" if isinstance(failure, ValueError) else r"it calls sys\.exit\(3\)"
    with pytest.raises(ComponentError, match=rf"data\.failing \(.*test_cache\.py:{line}\): {said}"):
        DataCache(tmp_path).read(segkit.datasets.component("failing"), segkit.intensities.component("percentile"))
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_an_entry_that_is_removed_is_made_again_for_the_next_trial(root: Path, tmp_path: Path) -> None:
    cache = DataCache(tmp_path / "cache")
    before = read(cache, root)
    shutil.rmtree(tmp_path / "cache")
    after = read(cache, root)
    assert same(after, before)
    assert reads(root) == 10
    assert len(pickle.loads(pickle.dumps(after.slices))) == len(before.slices)  # a worker can open it


def test_the_trials_of_a_study_are_trained_on_the_same_data(root: Path, tmp_path: Path) -> None:
    cache = DataCache(tmp_path / "cache")
    read(cache, root)
    np.save(root / "case3.npy", np.eye(24, dtype=np.uint16))
    assert read(DataCache(tmp_path / "cache"), root).cases[3].shape == (24, 24)  # another command, which removes it
    for own in (cache, pickle.loads(pickle.dumps(cache))):
        with pytest.raises(UserError, match=r"data\.arrays: the data have changed since this command began"):
            read(own, root)


def test_a_check_reads_the_data_once_for_all_variants(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(root / "case0.npy", np.arange(1 << 18).reshape(512, 512).astype(np.uint16))  # 1 MiB: masks, and CLAHE
    variants = [{"label": "a"}, {"label": "b", "optimizer": {"Adam": {"lr": 0.1}}}]
    document = merge.Document.from_tree(BASE | {"data": {"arrays": {"root": str(root)}}}, "small.toml")
    document.merge({"study": {"variants": variants}, "loss": {"dice_mix": {}}}, Source("x", None, root))
    document.merge({"transforms": {"train": []}}, Source("y", None, root))
    monkeypatch.setattr("segkit.checks.recipe.BATCH", 1)
    found = list(check_trials(plan_trials(validate(document), document)))
    assert [variant for variant, _, _ in found] == ["a", "b"]
    assert not [finding.text for _, findings, _ in found for finding in findings if finding.kind == "fault"]
    assert reads(root) == 5
    first, last = (re.findall(r"cache: (\d+\.\d) MiB of decoded data", "\n".join(log)) for _, _, log in found)
    assert (first, last) == ([], ["1.0"])


def test_a_dry_run_evaluates_no_more_volumes_than_a_batch_has_slices(tmp_path: Path) -> None:
    @segkit.datasets.register("volumes")
    def volumes() -> Dataset:
        """Volumes of two slices."""
        rng = np.random.default_rng(0)
        images = rng.integers(0, 200, (20, 1, 2, 24, 24), dtype=np.uint8)
        cases = (Case(f"c{n:02}", None, image, image > 99) for n, image in enumerate(images))
        return Dataset("volumes", ("a",), tuple(cases))

    made = recipe("data.volumes={}", "split.test=0.34", "transforms.train=[]", "transforms.eval=[]")
    small = trial(tmp_path, made, limit=Limit(batches=1))  # of three slices
    assert kinds(list(run_trial(small, stop=lambda: False)))[-1] == "finished"
    split = Status.read(small.path).split
    assert split is not None
    assert {name: len(cases) for name, cases in split.items()} == {"train": 6, "validation": 2, "test": 2}


def test_a_file_system_without_locks_is_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UserError, match=r"\.lock: cannot be written: the file system has no locks"):
        read(DataCache(tmp_path / "cache"), root)


def test_what_is_not_read_yet_is_left_after_an_interruption(tmp_path: Path) -> None:
    read_so_far: list[int] = []

    def load(number: int) -> tuple[Array, None]:
        time.sleep(0.05)
        read_so_far.append(number)
        return np.eye(4, dtype=np.uint8), None

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    cases = (Case(f"c{number}", None, load=functools.partial(load, number), labelled=False) for number in range(99))
    slow = Dataset("slow", ("a",), tuple(cases))
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        fill(slow, segkit.intensities.component("percentile"), None, interrupt)
    before = len(read_so_far)
    time.sleep(0.2)
    assert len(read_so_far) == before < 20


def test_a_cache_that_cannot_be_written_says_where(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{tmp_path}/file"):
        read(DataCache(tmp_path / "file"), root)


@pytest.mark.parametrize("side", [4, 64, 512])  # less than a file's buffer, as much, and more
@pytest.mark.parametrize("name", ["images.bin", "bits.bin", "moments.npy"])
def test_a_full_disk_is_named_whenever_it_is_noticed(tmp_path: Path, name: str, side: int) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    image = np.full((side, side), 7, np.uint8)
    cases = tuple(Case(f"c{number}", None, image, image[None] > 0) for number in range(3))
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be written: the disk is full: free some space"):
        fill(Dataset("made", ("a",), cases), segkit.intensities.component("percentile"), tmp_path)


def test_what_a_killed_process_left_of_prepared_slices_is_removed(root: Path, tmp_path: Path) -> None:
    flip = [segkit.transforms.component("HorizontalFlip", {"p": 1})]
    data = read(DataCache(tmp_path / "cache"), root)
    prepare(data, flip, exclusive=False)
    (whole,) = (tmp_path / "cache").glob("*/prepared-*/")
    left = whole.rename(whole.with_name(f".{whole.name}"))
    (left / "index.json").unlink()
    slices, _ = prepare(read(DataCache(tmp_path / "cache"), root), flip, exclusive=False)
    assert np.array_equal(slices.image(0), data.slices.image(0)[:, ::-1])
    assert not left.exists()


@pytest.mark.parametrize("number", [np.float32, np.int64, int])
def test_spacing_may_be_of_any_type_of_number(tmp_path: Path, number: Any) -> None:
    @segkit.datasets.register("spaced")
    def spaced() -> Dataset:
        """One case."""
        image = np.arange(16, dtype=np.uint8).reshape(4, 4)
        return Dataset("spaced", ("a",), (Case("c", "p", image, image[None] > 4, (number(2), number(1))),))

    intensity = segkit.intensities.component("percentile")
    for _ in range(2):
        (case,) = DataCache(tmp_path).read(segkit.datasets.component("spaced"), intensity).cases
        assert case.spacing_mm == (2.0, 1.0)


def test_one_data_set_has_one_depth() -> None:
    images: list[Array] = [np.zeros((4, 4), np.uint8), np.ones((4, 4), np.float32)]
    cases = tuple(Case(f"c{n}", None, image, np.zeros((1, 4, 4), bool)) for n, image in enumerate(images))
    with pytest.raises(UserError, match=r"c1: its image is float32, those before it are uint8: .* one depth"):
        fill(Dataset("mixed", ("a",), cases), segkit.intensities.component("none"))


def test_volumes_inputs_and_cases_without_masks_are_stored_slice_by_slice(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volume, masks = rng.integers(-900, 900, (2, 3, 5, 4)).astype(np.int16), rng.random((9, 3, 5, 4)) > 0.5
    flat = rng.integers(-900, 900, (2, 6, 7)).astype(np.int16)
    cases = (
        Case("volume", "p", volume, masks, (8.0, 1.0, 1.5), tags={"phase": "ED"}),
        Case("flat", "q", flat, None, (1.0, 1.0)),
    )
    channels = tuple(f"s{number}" for number in range(9))
    data = fill(Dataset("made", channels, cases, inputs=("t1", "t2")), segkit.intensities.component("none"), tmp_path)
    first, second = data.cases
    assert (first.shape, second.shape) == ((3, 5, 4), (6, 7))
    assert (first.labelled, second.labelled) == (True, False)
    assert (list(first.slices), list(second.slices)) == ([0, 1, 2], [3])
    assert dict(first.tags) == {"phase": "ED"}
    assert np.array_equal(data.masks(0), masks)
    for place in range(3):
        assert np.array_equal(data.slices.image(place), np.moveaxis(volume[:, place], 0, -1).astype(np.float32))
    assert np.array_equal(data.slices.image(3), np.moveaxis(flat, 0, -1).astype(np.float32))
    means, deviations = data.slices.mean_std([0, 1, 2, 3])
    for place in range(2):
        values = np.concatenate([volume[place].ravel(), flat[place].ravel()]).astype(float)
        assert (means[place], deviations[place]) == pytest.approx((values.mean(), values.std()), rel=1e-9)
    assert (data.kind.inputs, data.kind.dtype, data.kind.bounded) == (2, "float32", False)
