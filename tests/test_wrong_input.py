"""What people type by mistake: each is answered with one message that names it and says what to do, and status 2."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from segkit.cli import main
from segkit.recipe import toml
from tests.small import BASE, train

VARIED = {"compare_with": "a", "variants": [{"label": "a"}, {"label": "b", "train": {"seed": 2}}]}
BEST = "runs/tiny/only/seed-1/best.safetensors"
FILES = {
    "tiny.toml": toml.dumps(BASE | {"loss": {"dice_mix": {}}, "study": VARIED}),
    "one.toml": toml.dumps(BASE | {"loss": {"dice_mix": {}}}),
    "empty.toml": "",
    "blank.toml": " \n# only this\n",
    "pyproject.toml": "[build-system]\nrequires = []\n[project]\nname = 'x'\n[tool.ruff]\n",
    "broken.toml": "[train]\nepochs = = 3\n",
    "deep.toml": "a = " + "[" * 600 + "]" * 600,
    "tables.toml": f"[{'.'.join('a' * 600)}]\nb = 1\n",
    "dots.toml": "a." * 100_000 + "b = 1",
    "digits.toml": "[train]\nseed = " + "9" * 4500,
    "hex.toml": "[train]\nseed = 0x" + "f" * 4000,
    "float.toml": "[optimizer.Adam]\nlr = 1e999999\n",
    "many.toml": "\n".join(f"k{number} = 1" for number in range(20_000)),
    "big.toml": f"title = '{'x' * 1_000_000}'",
    "grid.toml": "[study.grid]\n" + "".join(f"'optimizer.Adam.{k}' = {list(range(1, 31))}\n" for k in "abcd"),
    "gridempty.toml": "[study.grid]\n'train.epochs' = []\n",
    "gridtwice.toml": "[study.grid]\n'train.epochs' = [1, 1]\n",
    "lr.toml": "[study.grid]\n'optimizer.adam.lr' = [0.1, 0.2]\n",
    "own.toml": "[[study.variants]]\nlabel = 'a'\nloss.dice.epsilon = 1.0\n[[study.variants]]\nlabel = 'b'\n"
    "loss.bce = {}\ndrop = ['loss']\n[loss.dice]\n",
    "seeded.toml": "[study]\nseeds = [1, 2]\n",
    "twice.toml": "[[study.variants]]\nlabel = 'a'\n[[study.variants]]\nlabel = 'a'\ntrain.seed = 2\n",
    "long.toml": f"[[study.variants]]\nlabel = '{'x' * 100_000}'\n",
    "lines.toml": '[[study.variants]]\nlabel = "a\\nb"\n',
    "escape.toml": '[train]\n"epo\\u001b[31mchs" = 3\n',
    "seeds.toml": "[study]\nseeds = [1, 1]\n",
    "manyseeds.toml": f"[study]\nseeds = {list(range(100_000))}\n",
    "stranger.toml": "extends = 'one.toml'\nepochs = 3\n",
    "zero.toml": "[loss.dice]\nweight = 0\n",
    "folds.toml": "[split]\nfolds = 2\nfold = 3\n",
    "manyfolds.toml": "[split]\nfolds = 1000000000\n",
    "drop.toml": "drop = ['loss']\n",
    "reference.toml": "[study]\ncompare_with = 'x'\n",
    "exclusive.toml": "[loss.cross_entropy]\n",
    "zerobyte.toml": 'extends = "a\\u0000b"\n',
    "text.txt": "hello\n",
    "listed.toml": "[split]\nfile = 'listed.csv'\n",
    "listed.csv": "patient,set\np1,train\np2,tset\n",
    "unlisted.toml": "[split]\nfile = 'unlisted.csv'\n",
}


@pytest.fixture(autouse=True)
def _soon() -> None:
    def late(number: int, frame: Any) -> None:
        raise AssertionError("takes too long")

    signal.signal(signal.SIGALRM, late)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a trained trial, recipes that are wrong, and things that are no files."""
    folder = tmp_path_factory.mktemp("wrong")
    train(folder / "runs/tiny", "train.epochs=1", "model.unet.widths=[2]")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    for number in range(3000):
        (folder / f"c{number}.toml").write_text(f'extends = "c{number + 1}.toml"\n')
    (folder / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (folder / "short.safetensors").write_bytes(b"x")
    (folder / "garbage.safetensors").write_bytes(b"x" * 100)
    for name in ("pipe.toml", "pipe.safetensors"):
        os.mkfifo(folder / name)
    (folder / "dir").mkdir()
    (folder / "dead").symlink_to("nowhere")
    (folder / "loop.toml").symlink_to("loop.toml")
    return folder


WRONG = [
    ("run listed.toml", "listed.toml:2: split.file: listed.csv:3: the set is train, validation or test, got 'tset'"),
    ("run unlisted.toml", "unlisted.toml:2: split.file: unlisted.csv: no such file"),
    ('run one.toml --set split.test=["p9"]', "split: discs has no patient or case called p9 (nearest: p5"),
    ('run one.toml --set split.test=["p1"] --set split.validation=["p1"]', '"p1" is in test and in validation'),
    ("run one.toml --set split.test=0.99", "split.test: a share of 0.99 is 6 of 6 patients"),
    ("run one.toml --set train.select_by=dise", "train.select_by: 'dise' is no metric of this recipe. Did you mean"),
    (f"eval {BEST} --on tset", "it has no tset set. Known: all, train, validation"),
    ("run", "Missing argument 'RECIPE...'. See `segkit run --help`"),
    ("run gone.toml", "gone.toml: no such recipe"),
    ("run empty.toml", "empty.toml: is empty. A recipe has tables"),
    ("run blank.toml", "blank.toml: is empty"),
    ("run stranger.toml", "stranger.toml:2: epochs: no such key"),
    ("run pyproject.toml", "pyproject.toml: not a recipe: it contains build-system, project, tool"),
    ("run broken.toml", "broken.toml:2: not valid TOML"),
    ("run binary.toml", "binary.toml: not a text file in UTF-8"),
    ("run deep.toml", "deep.toml: nested too deeply"),
    ("run tables.toml", "tables.toml:1: nested too deeply"),
    ("run dots.toml", "dots.toml:1: nested too deeply"),
    ("run digits.toml", "digits.toml:2: an integer of thousands of digits"),
    ("run hex.toml", "hex.toml: an integer of more than 64 bits"),
    ("run float.toml", "float.toml:2: optimizer.Adam.lr: must be a finite number, got inf"),
    ("run many.toml", "many.toml: not a recipe"),
    ("run big.toml", "bytes; files of this kind are read up to 1,000,000"),
    ("run grid.toml", "grid.toml:1: study: 810,000 trials"),
    ("show manyseeds.toml", "manyseeds.toml:1: study: 100,000 trials (100,000 seeds)"),
    ("run gridempty.toml", 'gridempty.toml:2: study.grid."train.epochs": must be a list of at least 1 value'),
    ("run gridtwice.toml", 'gridtwice.toml:2: study.grid."train.epochs": epochs=1 is listed twice'),
    ("run twice.toml", 'twice.toml:4: study.variants.1.label: "a" is the label of the variant at twice.toml:2'),
    ("run long.toml", "long.toml:1: study.variants.0.label: has 100,000 characters"),
    ("run lines.toml", "lines.toml:1: study.variants.0.label: must be one line"),
    ("run escape.toml", "Did you mean 'epochs'?"),
    ("run seeds.toml", "seeds.toml:2: study.seeds: 1 is listed twice"),
    ("run zero.toml", "zero.toml:1: loss: every loss has weight 0"),
    ("run folds.toml", "folds.toml:1: split: fold = 3, but there are only 2 folds"),
    ("run manyfolds.toml", "manyfolds.toml:2: split.folds: must be 1000 or less"),
    ("run drop.toml", "drop.toml:1: drop: nothing called 'loss' is inherited"),
    ("run reference.toml", "reference.toml:2: study.compare_with: there is only one variant"),
    ("run exclusive.toml", 'channels = "exclusive"'),
    ("run zerobyte.toml", "zerobyte.toml:1: extends: must be the name of one file"),
    ("run c0.toml", "extends: a chain of more than 32 files, from c0.toml to c32.toml"),
    ("run pipe.toml", "pipe.toml: a pipe, not a regular file"),
    ("run dir", "dir: a folder, not a regular file"),
    ("run dead", "dead: a link that leads nowhere"),
    ("run loop.toml", "loop.toml: a link that leads to itself"),
    ("run /dev/null", "/dev/null: a device, not a regular file"),
    ("run text.txt", "text.txt:1: not valid TOML"),
    (f"run {BEST}", "best.safetensors: not a text file"),
    ("run one.toml --with gone.toml", "gone.toml: no such recipe"),
    ("run one.toml --with pipe.toml", "pipe.toml: a pipe, not a regular file"),
    ("run one.toml --with empty.toml", "empty.toml: is empty"),
    ("run one.toml --with pyproject.toml", "pyproject.toml: not a recipe"),
    ("run one.toml --set", "Option '--set' requires an argument"),
    ("run one.toml --set x", "--set x: must be path=value"),
    ("run one.toml --set =3", "--set =3: must be path=value"),
    ("run one.toml --set train.epochs=", "--set train.epochs=: has no value"),
    ("run one.toml --set train.epochs=x", '--set train.epochs=x: train.epochs: must be a whole number, got "x"'),
    ("run one.toml --set train.epochs=-1", "train.epochs: must be 1 or more, got -1"),
    ("run one.toml --set train.epochs=1e3", "train.epochs: must be a whole number, got 1000.0"),
    ("run one.toml --set train.epochs=nan", "train.epochs: must be a whole number, got nan"),
    ("run one.toml --set train=3", "train: must be a table, got 3"),
    ("run one.toml --set train.epochs.x=3", "train.epochs: must be a whole number, got the table { x = 3 }"),
    ("run one.toml --set train..epochs=3", "'train..epochs' is not a path"),
    ("run one.toml --set train.epochs=[1", "the value is not valid TOML: [1"),
    ("run one.toml --set train.epochs=99999999999999999999", "more than 64 bits"),
    ("run one.toml --set train.device=gpu", 'must be "auto", "cpu", "mps", "cuda" or "cuda:N", got "gpu"'),
    ("run one.toml --set train.device=cuda:99", "train.device: 'cuda:99' is not available"),
    ("run one.toml --set train.precision=fp16", 'train.precision: "fp16" needs a GPU'),
    ("run one.toml --set train.workers=100000000", 'must be 1024 or less, or "auto"'),
    ("run one.toml --set optimizer.Adan.lr=1", "Did you mean 'Adam'?"),
    ("run one.toml --set model=[]", "model: must be one model"),
    ("run one.toml --set loss=3", "loss: must be a table of losses by name, got 3"),
    ("run one.toml --set channels=both", 'channels: must be "independent" or "exclusive", got "both"'),
    ("run one.toml --set split.validation=1", "split.validation: must be below 1, or a list, got 1"),
    ("run one.toml --set split.train_fraction=0", "split.train_fraction: must be above 0, got 0"),
    ("run one.toml --set data.discs.patients=1", "cannot be split"),
    ("run one.toml --set data.rvsc.root=gone", "gone: no such folder"),
    ("run one.toml --set drop=['scheduler']", "drop: nothing called 'scheduler' is inherited"),
    ("run tiny.toml --set study.variants.7.label=x", "the list has 2 items, counted from 0"),
    ("run tiny.toml --set study.compare_with=nobody", "no variant is labelled 'nobody'"),
    ("run lr.toml --set optimizer.Adam.lr=0.3", "--set optimizer.Adam.lr=0.3: has no effect: lr.toml:2 varies"),
    ("run own.toml --set loss.dice.epsilon=2", "epsilon=2: has no effect: every variant has its own loss.dice.epsilon"),
    ("run seeded.toml --set train.seed=5", "--set train.seed=5: has no effect: seeded.toml:2 sets the seeds"),
    ("run one.toml --fold 0", "--fold 0: split.fold: must be 1 or more, got 0"),
    ("run one.toml --fold 2", "--fold 2: split: fold = 2, but there are no folds"),
    ("run one.toml --fold x", "'--fold': must be a whole number"),
    ("run one.toml --jobs 0", "--jobs 0: must be a number from 1 to 1,024, or auto"),
    ("run one.toml --jobs -1", "--jobs -1: must be a number"),
    ("run one.toml --jobs abc", "--jobs abc: must be a number"),
    ("run one.toml --jobs ٣", "--jobs ٣: must be a number"),
    ("run one.toml --overfit 0", "'--overfit': must be 1 or more"),
    ("run one.toml --overfit x", "'--overfit': must be a whole number"),
    ("run one.toml --dry-run --overfit 2", "--dry-run --overfit: a dry run keeps nothing"),
    ("run one.toml --name ../x", "--name '../x': must be the name of one folder. Use --out for another place"),
    ("run one.toml --name ..", "--name '..': must be the name of one folder"),
    ("run one.toml tiny.toml --name x", "--name x: names one run folder, but 2 recipes are given"),
    ("run one.toml --out text.txt", "text.txt is a file, not a folder"),
    ("run one.toml --out /dev/null", "/dev/null is a device, not a folder"),
    ("run one.toml --out dead", "dead is a broken link"),
    ("run one.toml --out text.txt/x", "text.txt is a file, not a folder"),
    ("run one.toml --plugins gone", "gone: no such plugin folder or .py file"),
    ("run one.toml --plugins text.txt", "text.txt: no such plugin folder or .py file"),
    ("run one.toml --nonsense", "No such option: --nonsense"),
    ("eval", "Missing argument 'CHECKPOINT'"),
    ("eval gone.safetensors", "gone.safetensors: no such checkpoint"),
    ("eval one.toml", "one.toml: damaged or not a checkpoint"),
    ("eval dir", "dir: holds no best.safetensors. Give a checkpoint, or the folder of a variant"),
    ("eval garbage.safetensors", "garbage.safetensors: damaged or not a checkpoint"),
    ("eval short.safetensors", "short.safetensors: damaged or not a checkpoint"),
    ("eval pipe.safetensors", "pipe.safetensors: a pipe. A checkpoint is a file such as"),
    (f"eval {BEST} --csv dir", "dir: cannot be written: a folder is already there"),
    (f"eval {BEST} --csv text.txt/x.csv", "text.txt is a file, not a folder"),
    (f"eval {BEST} --csv /dev/null", "/dev/null: cannot be written: a device is already there"),
    (f"eval {BEST} --device gpu", 'error: device: must be "auto", "cpu", "mps", "cuda" or "cuda:N", got "gpu"'),
    (f"eval {BEST} --set x", "--set x: must be path=value"),
    (f"eval {BEST} --set data.rvsc.root=gone", "gone: no such folder"),
    (f"eval {BEST} --set data.discs.patient=3", "Did you mean 'patients'?"),
    (f"predict {BEST}", "Missing argument 'IMAGE-OR-FOLDER...'"),
    (f"predict {BEST} gone.png", "gone.png"),
    (f"predict {BEST} text.txt", "text.txt"),
    (f"predict {BEST} text.txt --out text.txt", "text.txt is a file, not a folder"),
    (f"predict {BEST} a/x.png b/x.png", "b/x.png: its results would overwrite those of a/x.png"),
    ("report", "Missing argument 'RUN'"),
    ("report gone", "gone: not a run folder"),
    ("report dir", "dir: not a run folder: it has no recipe.toml"),
    ("report text.txt", "text.txt: a file, not a run folder"),
    ("list nothing", "no slot is called 'nothing'"),
    ("list losses metrics", "unexpected extra argument"),
    ("show dise", "Did you mean 'dice'?"),
    ("show los.dice", "no slot is called 'los'. Did you mean 'loss'?"),
    ("show pipe.toml", "pipe.toml: a pipe, not a regular file"),
    ("show dice --set x=1", "dice: --set, --with and --weights are for recipes"),
    ("info one.toml", "one.toml: damaged or not a checkpoint"),
    ("info pipe.safetensors", "pipe.safetensors: a pipe. A checkpoint is"),
    ("check gone", "gone: no such file or folder"),
    ("check text.txt", "text.txt: neither a recipe"),
    ("check empty.toml", "empty.toml: is empty"),
    ("check pipe.toml", "pipe.toml: a pipe, not a regular file"),
    (f"check {BEST}", "a checkpoint"),
    ("new loss", "Missing argument 'NAME'"),
    ("new loss ../x", "'../x' is not a valid plugin name"),
    ("new loss dice", "the loss 'dice' already exists"),
    ("new loss abcd --folder text.txt", "text.txt is a file, not a folder"),
    ("schema --out dir", "dir: cannot be written: a folder is already there"),
    ("schema --out text.txt/x", "text.txt is a file, not a folder"),
    ("fly", "No such command 'fly'"),
]


def call(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of a command."""
    monkeypatch.setattr(sys, "argv", ["segkit", *words])
    with pytest.raises(SystemExit, match=r"^\d+$") as ended:
        main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def faults(line: str, message: str, *, status: int, out: str, err: str) -> list[str]:
    """Return what is wrong with the answer to a command."""
    found = {
        f"ended with status {status}": status != 2,
        f"lacks {message!r}": message not in err,
        "printed more than what was about to run": bool(out) and out.count("\n") != 1,
        "printed a traceback": "Traceback" in err,
        "took more than three lines": len(err.splitlines()) > 3,
        "printed what a terminal must not be given": not all(char.isprintable() or char == "\n" for char in err),
    }
    return [f"{line}: {fault}: {out}{err}" for fault, there in found.items() if there]


@pytest.mark.parametrize("command", sorted({line.split()[0] for line, _ in WRONG}))
def test_wrong_input_is_answered_with_one_message(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    wrong: list[str] = []
    for line, message in WRONG:
        if line.split()[0] != command:
            continue
        signal.alarm(10)  # nothing that is wrong may hang, or be trained
        try:
            status, out, err = call(line.split(), monkeypatch, capsys)
        finally:
            signal.alarm(0)
        wrong += faults(line, message, status=status, out=out, err=err)
    assert wrong == []
