"""Every kind of data, from the folder to the table of results: `segkit check` prints the lines that train on it."""

from __future__ import annotations

import csv
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import segkit
from segkit.checks.data import check_data
from segkit.cli import main
from segkit.recipe import toml
from tests.rvsc_like import patient
from tests.volumes import AFFINE, acdc, decathlon, load, nnunet, save

RECIPES = Path(__file__).parents[1] / "recipes"
SETTINGS: dict[str, Any] = {
    "split": {"validation": 0.34},
    "transforms": {"train": [], "eval": []},
    "model": {"unet": {"widths": [2, 4]}},
    "loss": {"dice": {}},
    "optimizer": {"Adam": {"lr": 1e-2}},
    "train": {"epochs": 2, "batch_size": 4, "device": "cpu", "threads": 1},
}
SHAPE = (16, 12, 4)
Make = Callable[[Path], object]


def blobs(shape: tuple[int, ...], seed: int) -> Any:
    """Return a mask of a box at a place of its own."""
    mask = np.zeros(shape, np.uint8)
    rows, columns = np.random.default_rng(seed).integers(0, 5, 2)
    mask[rows : rows + 7, columns : columns + 6] = 1
    return mask


def ct(root: Path) -> None:
    for number in range(5):
        mask = blobs(SHAPE, number)
        air = np.random.default_rng(number).normal(-1000, 20, SHAPE)
        save(root / f"images/ct{number}.nii.gz", (air + 1050.0 * mask).astype(np.int16))
        save(root / f"labels/ct{number}.nii.gz", mask)


def stacks(root: Path) -> None:
    for number in range(4):
        random = np.random.default_rng(number)
        pages = np.stack([blobs((16, 12), number)] * 3)
        for folder, values in (("images", pages * 90 + random.integers(0, 60, pages.shape)), ("masks", pages)):
            path = root / f"{folder}/patient{number}/stack.tif"
            path.parent.mkdir(parents=True)
            assert cv2.imwritemulti(str(path), list(values.astype(np.uint8)))


def listed(root: Path) -> None:
    rows = ["t1,t2,label map,subject,scanner"]
    for number in range(4):
        random = np.random.default_rng(number)
        for name in ("a", "b"):
            save(root / f"scans/{number}{name}.nii.gz", random.integers(0, 900, SHAPE).astype(np.int16))
        save(root / f"scans/{number}m.nii.gz", blobs(SHAPE, number))
        rows.append(",".join(f"scans/{number}{name}.nii.gz" for name in "abm") + f",s{number},{'AB'[number % 2]}")
    (root / "cases.csv").write_text("\n".join(rows), encoding="utf-8")


def short_axis(root: Path) -> None:
    for number in range(1, 5):
        patient(
            root,
            number,
            [0, 20, 8, 28],
            header=lambda frame: {"ImagePositionPatient": [0, 0, 8 * (frame // 20)]},
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )


def uncommented(lines: str) -> str:
    """Return recipe lines with those that are suggested."""
    return re.sub(r"^ *# (?=\[intensity|low|high|volumes)", "", lines, flags=re.MULTILINE)


# The folder, its reader, the model's inputs, a fact that `segkit check` states, a case of the validation, and how many
# images `segkit predict` finds in the folder.
KINDS: dict[str, tuple[Make, str, tuple[str, ...], dict[str, str], str, int]] = {
    "ACDC": (
        lambda root: acdc(root, 4, SHAPE),
        "nifti", ("image",), {"tag phase": "ED (4), ES (4)"}, r"patient00\d/frame12", 8,
    ),
    "nnU-Net": (lambda root: nnunet(root, 4), "nnunet", ("T1", "T2"), {"inputs": "T1, T2"}, r"case\d", 4),
    "Decathlon": (
        lambda root: decathlon(root, 4, 2, SHAPE),
        "nnunet", ("MRI0", "MRI1"), {"patients": "4"}, r"hippocampus_00\d", 4,
    ),
    "stacks": (stacks, "image_folder", ("image",), {"sizes": "3 x 16 x 12 (4)"}, r"patient\d/stack", 4),
    "table": (listed, "table", ("t1", "t2"), {"tag scanner": "A (2), B (2)"}, r"scans/\da", 0),
    "short axis": (short_axis, "rvsc", ("image",), {"empty masks": "0"}, r"patient0\d/ES", 20),
    "CT": (ct, "nifti", ("image",), {"spacing": "8 x 1.5 x 1.5 mm (5)"}, r"ct\d", 5),
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return what runs a command of segkit in a folder of its own, and gives back what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["segkit", *words])
        with pytest.raises(SystemExit, match=r"^\d+$") as ended:
            main()
        out, err = capsys.readouterr()
        assert ended.value.code == 0, out + err
        return out

    return call


def trained(run: Callable[..., str], *words: str) -> tuple[Path, list[dict[str, str]]]:
    """Run a recipe; return its checkpoint and the rows of cases.csv, which `segkit eval` gives to the last bit."""
    run("run", *words, "--jobs", "1", "--name", "run")
    (checkpoint,) = Path("runs/run").glob("*/seed-*/best.safetensors")
    run("eval", str(checkpoint), "--csv", "again.csv")
    tables = checkpoint.with_name("cases.csv"), Path("again.csv")
    rows, again = (list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) for path in tables)
    same = ("case", "channel", "metric", "value")
    assert rows
    assert [[row[name] for name in same] for row in again] == [[row[name] for name in same] for row in rows]
    return checkpoint, rows


def recipe(lines: str, settings: dict[str, Any]) -> str:
    """Write a recipe; return its name."""
    Path("recipe.toml").write_text(lines + toml.dumps(settings), encoding="utf-8")
    return "recipe.toml"


@pytest.mark.parametrize(("make", "layout", "inputs", "facts", "case", "images"), KINDS.values(), ids=KINDS)
def test_the_lines_of_check_train_eval_reproduces_and_predict_reads(
    tmp_path: Path,
    make: Make,
    layout: str,
    inputs: tuple[str, ...],
    facts: dict[str, str],
    case: str,
    images: int,
    run: Callable[..., str],
) -> None:
    make(tmp_path / "data")
    out = run("check", "data")
    assert {f"layout: {layout}", *(f"{name}: {text}" for name, text in facts.items())} <= set(out.splitlines())
    assert "warning" not in out
    lines = out.partition("In a recipe:\n")[2].partition("\n\n")[0]
    checkpoint, rows = trained(run, recipe(uncommented(lines) + "\n", SETTINGS))
    assert segkit.load(checkpoint).inputs == inputs
    assert any(re.fullmatch(case, row["case"]) for row in rows)
    if images:  # which input a file is, only a table says
        assert len(run("predict", str(checkpoint), "data", "--out", "found").splitlines()) == images
    for path in Path("found").rglob("*.nii.gz"):
        assert np.array_equal(load(path).affine, AFFINE)


def test_every_table_that_check_prints_may_be_used(tmp_path: Path, run: Callable[..., str]) -> None:
    ct(tmp_path / "data")
    assert "intensity.window" not in tomllib.loads(check_data(tmp_path / "data").recipe)
    text = uncommented(check_data(tmp_path / "data").recipe)
    assert tomllib.loads(text)["intensity"] == {"window": {"low": -160, "high": 240}}


def coloured(root: Path) -> None:
    """Discs that differ from the ground in colour, and in brightness not at all."""
    for number in range(12):
        random = np.random.default_rng(number)
        rows, columns = np.mgrid[:32, :32]
        inside = np.hypot(rows - random.integers(8, 24), columns - random.integers(8, 24)) < 7
        red, blue = np.where(inside, 150, 50), np.full((32, 32), 90)
        green = (110 - 0.299 * red - 0.114 * blue) / 0.587
        picture = np.stack([blue, green, red], axis=-1) + random.integers(-20, 20, (32, 32, 1))  # in OpenCV's order
        for folder, pixels in (("images", picture), ("masks", inside * 255)):
            path = root / f"{folder}/p{number}/1.png"
            path.parent.mkdir(parents=True)
            assert cv2.imwrite(str(path), pixels.astype(np.uint8))


@pytest.mark.slow
def test_a_structure_that_only_colour_shows(tmp_path: Path, run: Callable[..., str]) -> None:
    coloured(tmp_path / "data")
    report = check_data(tmp_path / "data")
    settings = {**SETTINGS, "model": {"unet": {"widths": [8, 16]}}, "train": {**SETTINGS["train"], "epochs": 25}}
    name = recipe(report.recipe, settings)
    dice = {}
    for grey in ("false", "true"):
        _, rows = trained(run, name, "--set", f"data.image_folder.grey={grey}", "--fresh")
        scores = [float(row["value"]) for row in rows if row["metric"] == "dice"]
        dice[grey] = sum(scores) / len(scores)
    assert dice["false"] > 0.8, dice
    assert dice["true"] < 0.5, dice


@pytest.mark.parametrize(
    ("name", "make", "root"),
    [
        ("acdc", lambda root: acdc(root, 4, (16, 12, 3)), "data.nifti.root=data"),
        ("decathlon", lambda root: decathlon(root, 4, 1, (16, 4, 10)), "data.nnunet.root=data"),
    ],
)
def test_example_recipes_train(name: str, make: Make, root: str, run: Callable[..., str]) -> None:
    make(Path("data"))
    sets = (root, "model.unet.widths=[2, 4]", "train.epochs=2", "train.device=cpu", "train.threads=1")
    _, rows = trained(run, str(RECIPES / f"examples/{name}.toml"), *(word for text in sets for word in ("--set", text)))
    assert {row["metric"] for row in rows} == {"dice", "hd95"}
