"""The command line: what people do every day, and that wrong input is one message and exit status 2."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import segkit
from segkit.cli import main, warn
from segkit.errors import UserError
from segkit.plugins import isolated
from segkit.recipe import toml
from segkit.recipe.model import Recipe
from tests.small import BASE

Run = Callable[..., tuple[int, str, str]]
CHECKPOINT = "runs/tiny/a/seed-1/best.safetensors"
TINY = BASE | {
    "title": "Does anything differ?",
    "train": BASE["train"] | {"epochs": 2},
    "study": {
        "compare_with": "a",
        "variants": [{"label": "a"}, {"label": "b", "loss": {"dice": {}}, "drop": ["loss"]}],
    },
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in an empty folder; return exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(toml.dumps(TINY | {"loss": {"dice_mix": {}}}), encoding="utf-8")

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["segkit", *words])
        with pytest.raises(SystemExit, match=r"^\d+$") as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(ended.value.code or 0), out, err

    return call


def test_a_study_from_recipe_to_predictions(run: Run, tmp_path: Path) -> None:
    status, out, err = run("run", "tiny.toml", "--jobs", "1")
    assert (status, err) == (0, "")
    assert "\r" not in out
    assert "[a/seed-1] epoch 2/2 train_loss" in out
    assert out.splitlines()[0] == "Does anything differ?: 2 variants, 2 trials -> runs/tiny"
    assert out.splitlines()[-1] == "report: runs/tiny/report.html"
    status, out, _ = run("run", "tiny.toml", "--json")
    assert status == 0
    (found,) = json.loads(out)
    assert (found["trials"], found["failed"], found["interrupted"]) == ({"skipped": 2}, {}, False)
    status, out, _ = run("eval", CHECKPOINT, "--csv", "again.csv")
    assert status == 0
    assert Path("again.csv").read_bytes() == Path("runs/tiny/a/seed-1/cases.csv").read_bytes()
    assert "mean" in out
    status, out, _ = run("eval", CHECKPOINT, "--json", "--set", "data.discs.patients=2")
    assert len({row["case"] for row in json.loads(out)}) == 4  # other data: all of it
    cv2.imwrite("image.png", np.full((30, 20), 90, np.uint8))
    status, out, _ = run("predict", CHECKPOINT, "image.png", "--out", "found")
    assert status == 0
    names = {path.name for path in Path("found").iterdir()}
    assert names in (
        {"image.png", "labels.json", "image-overlay.png"},
        {"image-wall.png", "image-cavity.png", "image-overlay.png"},
    )
    for name in names - {"labels.json", "image-overlay.png"}:
        assert cv2.imread(f"found/{name}", cv2.IMREAD_UNCHANGED).shape == (30, 20)  # type: ignore[union-attr]
    assert repr(segkit.load(CHECKPOINT)).startswith("<segkit Predictor: unet of variant a, best checkpoint, epoch ")
    status, out, _ = run("info", CHECKPOINT)
    assert "the best checkpoint after epoch" in out
    last = CHECKPOINT.replace("best", "last")
    ended = len(Path(last).with_name("metrics.csv").read_text().splitlines()) - 1
    assert f"the last checkpoint after epoch {ended}, step" in run("info", last)[1]
    assert json.loads(run("info", CHECKPOINT, "--json")[1])["channels"] == ["wall", "cavity"]
    assert run("check", "runs/tiny")[:2] == (0, "runs/tiny: complete; every best checkpoint reproduces its cases.csv\n")
    Path("runs/tiny/summary.csv").write_text("variant\n")
    assert run("check", "runs/tiny")[0] == 1
    assert run("report", "runs/tiny")[0] == 0
    assert run("check", "runs/tiny")[0] == 0


def test_trying_without_training(run: Run) -> None:
    status, out, _ = run("run", "tiny.toml", "--dry-run", "--jobs", "1")
    assert status == 0
    assert "nothing is kept" in out
    assert not list(Path("runs").glob("*"))
    status, out, _ = run("run", "tiny.toml", "--dry-run", "--jobs", "1", "--set", "model.unet.widths=[1000000, 9]")
    assert (status, "model.unet: " in out, "error.txt" in out) == (1, True, False)  # its folder goes with it
    assert run("run", "tiny.toml", "--overfit", "2", "--jobs", "1")[0] == 0
    assert Path("runs/tiny-overfit-2/a/seed-1/cases.csv").is_file()
    status, out, _ = run("check", "tiny.toml")
    assert status == 0
    assert "tiny.toml: nothing wrong (2 variants, 2 trials)" in out


def test_listing_and_showing(run: Run) -> None:
    assert "dice_mix  " in run("list", "losses")[1]
    rows = json.loads(run("list", "loss", "--json")[1])
    assert {"slot": "loss", "name": "dice", "origin": "segkit"}.items() <= rows[4].items()
    out = run("list")[1]
    for name in ("unet", "Adam", "StepLR", "CLAHE", "phantom", "xavier_normal", "bilinear", "l1l2", "soft_dice"):
        assert f"  {name} " in out
    assert not re.search(r"\bet al$", out, re.MULTILINE)
    shown = run("show", "loss.dice_mix")[1]
    assert "lambda     float >= 0 and <= 1  default 0.5" in shown
    assert "[loss.dice_mix]" in shown
    assert "loss dice" in run("show", "dice")[1]
    assert "metric dice" in run("show", "dice")[1]


def test_showing_the_names_of_weights(run: Run) -> None:
    status, out, err = run("show", "tiny.toml", "--weights")
    assert status == 0
    assert out.splitlines()[0] == "down.0.0.weight  4 x 1 x 3 x 3"
    assert "shapes are for one input and one channel" in err
    assert json.loads(run("show", "tiny.toml", "--weights", "--json")[1])["head.bias"] == [1]
    assert "--weights are for recipes" in run("show", "dice", "--weights")[2]


def test_showing_a_recipe_is_valid_toml_and_says_where_values_come_from(run: Run) -> None:
    Path("over.toml").write_text("[train]\nbatch_size = 2\n")
    status, out, _ = run("show", "tiny.toml", "--with", "over.toml", "--set", "train.seed=7")
    assert status == 0
    filled = Recipe.load("tiny.toml", overlays=["over.toml"], sets=["train.seed=7"]).dump()
    assert tomllib.loads(out) == filled
    lines = {line.split("=")[0].strip(): line for line in out.splitlines()}
    assert lines["batch_size"].endswith("# over.toml:2")
    assert lines["seed"].endswith("# --set train.seed=7")
    assert lines["accumulate"].endswith("# default")


def test_a_warning_of_several_recipes_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    warn(iter(["base.toml:8: a", "b", "base.toml:8: a"]))
    assert capsys.readouterr().err == "warning: base.toml:8: a\nwarning: b\n"


def test_a_schema_for_editors(run: Run) -> None:
    _, out, _ = run("schema", "--out", "recipe.schema.json")
    assert '"#:schema recipe.schema.json" on the first line' in out
    assert json.loads(Path("recipe.schema.json").read_text())["title"] == "segkit recipe"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nowhere.toml"], "nowhere.toml: no such recipe"),
        (["run", "broken.toml"], "broken.toml:2: not valid TOML: "),
        (
            ["run", "tiny.toml", "--set", "train.epoch=3"],
            "--set train.epoch=3: train.epoch: no such key. Did you mean 'epochs'?",
        ),
        (["run", "tiny.toml", "--set", "train.epochs=x"], 'train.epochs: must be a whole number, got "x"'),
        (["run", "tiny.toml", "--set", "train.epochs=0"], "train.epochs: must be 1 or more, got 0"),
        (["run", "tiny.toml", "--set", "loss.dise.weight=1"], "loss.dise: no such loss. Did you mean 'dice'?"),
        (["run", "tiny.toml", "--set", "nonsense"], "--set nonsense: must be path=value"),
        (["run", "tiny.toml", "--with", "nowhere.toml"], "nowhere.toml: no such recipe"),
        (["run", "tiny.toml", "--jobs", "0"], "--jobs 0: must be a number from 1 to 1,024, or auto"),
        (["run", "tiny.toml", "--plugins", "nowhere"], "nowhere: no such plugin folder or .py file"),
        (["run", "tiny.toml", "--device"], "No such option: --device"),
        (["fly"], "No such command 'fly'"),
        (["eval", "tiny.toml"], "tiny.toml: damaged or not a checkpoint"),
        (["eval", "nowhere.safetensors"], "nowhere.safetensors: no such checkpoint"),
        (["info", "."], ".: a folder. A checkpoint is a file such as"),
        (["report", "."], ".: not a run folder: it has no recipe.toml"),
        (["check", "nowhere"], "nowhere: no such file or folder"),
        (["show", "dise"], "no component or recipe is called 'dise'. Did you mean 'dice'?"),
        (["list", "loses"], "no slot is called 'loses'. Did you mean 'losses'?"),
        (["new", "los", "x"], "los"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_message(run: Run, words: list[str], message: str) -> None:
    Path("broken.toml").write_text("[train]\nepochs = = 3\n")
    status, out, err = run(*words)
    assert status == 2
    assert message in err
    assert out == ""


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["data.rvsc.root=missing"], "missing: no such folder"),
        (
            ["data.image_folder.root=pictures"],
            "pictures/masks: contains no images. It is empty",
        ),
        (["train.device=cuda:7"], "train.device: 'cuda:7' is not available"),
    ],
)
def test_what_only_data_or_machine_tell_is_one_message_too(run: Run, sets: list[str], message: str) -> None:
    for folder in ("images", "masks"):
        Path("pictures", folder).mkdir(parents=True)
    cv2.imwrite("pictures/images/a.png", np.zeros((20, 20), np.uint8))
    status, out, err = run("run", "tiny.toml", "--jobs", "1", *(word for text in sets for word in ("--set", text)))
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert "failed" not in out


PLUGIN = '''"""A loss that lives in a plugin."""

from segkit import losses, metrics
from segkit.types import Array, Tensor


@losses.register("pluggedin")
def pluggedin(logits: Tensor, target: Tensor) -> Tensor:
    """Squared error, a mean."""
    return ((logits.sigmoid() - target) ** 2).mean()


@metrics.register("pluggedtoo")
def pluggedtoo(prediction: Array, truth: Array, spacing_mm: tuple[float, float] | None) -> float:
    """Share of pixels that are right."""
    return float((prediction == truth).mean())
'''


def test_a_plugin_from_file_to_checkpoint_and_away(run: Run) -> None:
    Path("plugins").mkdir()
    Path("plugins/pluggedin.py").write_text(PLUGIN)
    Path("plugins/broken.py").write_text("import nothing_of_that_name\n")
    recipe = {key: value for key, value in TINY.items() if key != "study"} | {"loss": {"pluggedin": {}}}
    recipe |= {"metrics": {"dice": {}, "pluggedtoo": {}}}
    Path("own.toml").write_text(toml.dumps(recipe))

    def alone(*words: str) -> tuple[int, str, str]:
        with isolated():
            return run(*words)

    status, _, err = alone("run", "own.toml", "--jobs", "1")
    assert status == 0, err
    assert "plugin not loaded: plugins/broken.py:1: it needs the package 'nothing_of_that_name'" in err
    best = str(next(Path("runs/own").rglob("best.safetensors")))
    assert "squared error" not in alone("eval", best)[2]
    Path("plugins/pluggedin.py").write_text(PLUGIN.replace("a mean", "another mean"))
    assert "differs from the one this checkpoint was trained with" in alone("eval", best)[2]
    Path("plugins/pluggedin.py").unlink()
    status, _, err = alone("eval", best)
    assert status == 2
    for words in ("no such metric", "plugins/pluggedin.py", "--trust-plugins", "These plugins failed to load"):
        assert words in err
    picture = next(Path("runs/own").rglob("overlays/*.png"))
    grey = cv2.imread(str(picture), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    assert cv2.imwrite("grey.png", grey)
    assert alone("predict", best, "grey.png")[0] == 0
    assert alone("eval", best, "--set", "metrics=dice")[0] == 0
    assert "def pluggedin" in alone("info", best, "--sources")[1]
    assert alone("eval", best, "--trust-plugins")[0] == 0


def test_help_is_quick_and_light() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = (
        "import sys\nsys.argv = ['segkit', '--help']\nfrom segkit.cli import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "segkit" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.6  # 0.2 on a quiet machine
    version = code.replace("--help", "--version")
    done = subprocess.run([sys.executable, "-c", version], capture_output=True, text=True, check=True)
    assert done.stdout == f"segkit {segkit.__version__}\n"
    listing = code.replace("'--help'", "'list', 'losses'")
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert "dice_mix" in done.stdout


def test_no_command_shows_the_help(run: Run) -> None:
    status, out, err = run()
    assert (status, out) == (2, "")
    assert err.rstrip("\n") == run("--help")[1].rstrip("\n")


def test_predict_takes_folders_and_goes_on_after_images_that_cannot_be_read(run: Run) -> None:
    assert run("run", "tiny.toml", "--jobs", "1", "--set", "train.epochs=1")[0] == 0
    Path("some").mkdir()
    for name in ("1", "2"):
        cv2.imwrite(f"some/{name}.png", np.full((30, 20), 90, np.uint8))
    Path("some/3.png").write_bytes(b"\x89PNG")
    Path("some/notes.txt").write_text("hello", encoding="utf-8")
    status, out, err = run("predict", CHECKPOINT, "some", "--out", "found")
    assert status == 2
    assert [line.partition(":")[0] for line in out.splitlines()] == ["some/1.png", "some/2.png"]
    assert err.splitlines() == [
        "note: some: 1 non-image file left out: notes.txt.",
        "error: 1 of 3 images could not be predicted; the others are done:",
        "  some/3.png: a damaged image: cut off.",
    ]
    assert {path.name for path in Path("found").glob("*-overlay.png")} == {"1-overlay.png", "2-overlay.png"}
    assert not list(Path("found").glob("3*"))
    Path("some/3.png").unlink()
    assert run("predict", CHECKPOINT, "some", "--out", "found")[0] == 0
    Path("texts").mkdir()
    Path("some/notes.txt").rename("texts/notes.txt")
    status, _, err = run("predict", CHECKPOINT, "texts")
    assert (status, err.splitlines()[0]) == (
        2,
        "error: texts: contains no images down to 4 levels of folders. It holds notes.txt.",
    )
    Path("scan.nii.gz").write_bytes(b"\x1f\x8b")
    status, _, err = run("predict", CHECKPOINT, "scan.nii.gz")
    assert status == 2
    assert err == "error: scan.nii.gz: a damaged NIfTI file: it is cut off. Copy or download it again.\n"


def test_no_command_on_a_checkpoint_overwrites_what_it_reads_or_takes_what_has_no_effect(run: Run) -> None:
    assert run("run", "tiny.toml", "--jobs", "1", "--set", "train.epochs=1")[0] == 0
    Path("some").mkdir()
    grey = np.random.default_rng(1).integers(0, 255, (30, 20), dtype=np.uint8)
    cv2.imwrite("some/1.png", grey)
    cv2.imwrite("some/2.png", np.stack([grey, grey // 2, grey // 3], axis=-1))
    status, out, err = run("predict", CHECKPOINT, "some", "some/1.png", "./some", "--out", "found")
    assert (status, len(out.splitlines())) == (0, 2)  # each image once, however it is named
    assert err.startswith("note: 1 coloured image turned into grey")
    for words in (["some"], ["some/1.png"], ["some/../some/2.png"]):
        status, _, err = run("predict", CHECKPOINT, *words, "--out", "./some")
        assert (status, err.partition(":")[2].startswith(" --out some: contains the images")) == (2, True)
    assert len(list(Path("some").iterdir())) == 2
    assert run("predict", CHECKPOINT, "/dev/null", "/dev/zero")[2].splitlines()[0] == (
        "error: 2 of 2 images could not be predicted:"
    )
    kept = Path(CHECKPOINT).read_bytes(), Path("tiny.toml").read_bytes()
    for name in (CHECKPOINT, "tiny.toml"):
        for command in (["eval", CHECKPOINT, "--csv", name], ["schema", "--out", name]):
            status, _, err = run(*command)
            assert (status, err) == (
                2, f"error: {name}: cannot be written: another file is already there: choose another place.\n",
            )  # fmt: skip
    assert kept == (Path(CHECKPOINT).read_bytes(), Path("tiny.toml").read_bytes())
    choose = "holds 2 variants, and only one can be averaged. Choose one: runs/tiny/a, runs/tiny/b."
    assert run("eval", "runs/tiny")[2] == f"error: runs/tiny: {choose}\n"
    assert run("eval", CHECKPOINT, "--device", "cpuu")[2].startswith("error: device: must be")
    for useless in ("train.epochs=3", "split.validation=0.5", "study.seeds=[1]", 'loss="dice"', "transforms.train=[]"):
        status, _, err = run("eval", CHECKPOINT, "--set", useless)
        assert (status, err.startswith(f"error: --set {useless}: has no effect, the training is over.")) == (2, True)
    other = [
        run("eval", CHECKPOINT, "--set", f"data{words}")[1] for words in (". discs.patients=2", "={discs={patients=2}}")
    ]
    assert other == [run("eval", CHECKPOINT, "--set", "data.discs.patients=2")[1]] * 2
    for image in ([[1.0]], np.zeros((4, 4, 3)), np.zeros((0, 4)), np.zeros((4, 4), complex), np.array([["a"]])):
        with pytest.raises(
            UserError, match=r"an image is a numpy array of numbers, .*; got|the model takes 1 input \(image\)"
        ):
            segkit.load(CHECKPOINT).predict(image)  # type: ignore[arg-type]


def test_check_of_a_folder_tells_each_kind_of_finding_once(run: Run) -> None:
    for folder in ("images", "masks"):
        Path("data", folder).mkdir(parents=True)
        for number in range(7):
            pixels = np.random.default_rng(number).integers(0, 255, (9, 9), dtype=np.uint8)
            cv2.imwrite(f"data/{folder}/{number}.png", pixels if folder == "images" else pixels // 128)
    status, out, _ = run("check", "data")
    assert status == 0
    assert "warning: 7 of 7 cases have no patient: they are split case by case." in out
    assert out.splitlines()[-1] == "0 faults, 1 warning, 0 notes"
    for number in range(7):
        cv2.imwrite(f"data/masks/{number}.png", np.zeros((5, 5), np.uint8))
    status, out, _ = run("check", "data")
    assert status == 1
    assert sum(line.startswith("fault") for line in out.splitlines()) == 1
    assert "fault, 7 times: the mask has 5 x 5 pixels, its image has 9 x 9. At " in out
    found = json.loads(run("check", "data", "--json")[1])["findings"]
    assert [finding["kind"] for finding in found] == ["fault"] * 7


@pytest.mark.parametrize(("name", "delay"), [("SIGTERM", 0.2), ("SIGINT", 0.5), ("SIGTERM", 0.9)])
def test_a_signal_while_libraries_are_imported_ends_a_command_calmly(run: Run, name: str, delay: float) -> None:
    command = [sys.executable, "-m", "segkit", "run", "tiny.toml"]
    environment = {**os.environ, "PYTHONPATH": str(Path(segkit.__file__).parents[1])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    time.sleep(delay)
    process.send_signal(getattr(signal, name))
    assert (*process.communicate(timeout=60), process.returncode) == ("", "interrupted\n", 130)
    assert not Path("runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_while_the_report_is_written_says_what_is_left(run: Run, name: str) -> None:
    code = (
        "import os, signal, sys, weakref\nimport tests.small\nfrom segkit.cli import main\n"
        "from segkit.report import figures\n"
        f"figures.draw = lambda summary: weakref.finalize(set(), os.kill, os.getpid(), signal.{name})\n"
        "sys.argv = ['segkit', 'run', 'tiny.toml', '--jobs', '1']\nmain()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(segkit.__file__).parents[1])}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert found.stderr == "interrupted\nevery trial is finished; the same command writes the report\n"
    assert found.returncode == 130
    assert "[b/seed-1] finished" in found.stdout
    assert not Path("runs/tiny/report.html").exists()
    Path("runs/tiny/.report.html.1.tmp").touch()
    assert run("run", "tiny.toml", "--jobs", "1")[0] == 0
    assert Path("runs/tiny/report.html").is_file()
    assert not Path("runs/tiny/.report.html.1.tmp").exists()


def test_a_signal_out_of_evaluated_code_ends_with_the_same_status(run: Run) -> None:
    code = (
        "import os, signal, sys\nfrom segkit import cli\nfrom segkit.cli import inspect\n"
        "inspect.load_plugins = lambda extra: eval('os.kill(os.getpid(), signal.SIGTERM)')\n"
        "sys.argv = ['segkit', 'list']\ncli.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(segkit.__file__).parents[1])}
    Path("script.py").write_text(code, encoding="utf-8")
    found = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, env=environment)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize(
    "words",
    [
        ["run", "r.toml", "--out", ""], ["run", "r.toml", "--out", " "], ["run", ""], ["run", "r.toml", "--with", ""],
        ["list", "--plugins", ""], ["report", ""], ["check", ""], ["eval", ""], ["eval", "x", "--csv", ""],
        ["predict", "x", ""], ["predict", "x", "y", "--out", ""], ["info", ""], ["schema", "--out", ""],
        ["new", "loss", "x", "--folder", ""],
    ],
)  # fmt: skip
def test_an_empty_path_is_not_the_working_directory(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["segkit", *words])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "must be a path, got an empty string. The working directory is '.'. See `segkit " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
