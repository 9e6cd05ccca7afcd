"""The Python API for notebooks and scripts: run, load, evaluate."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from segkit import plugins
from segkit.data.cache import DataCache, existing_cache
from segkit.errors import UserError
from segkit.plugins.sources import how_to_get
from segkit.recipe import merge
from segkit.recipe.model import Recipe, validate
from segkit.registry.faults import ComponentError, plugin_parts

if TYPE_CHECKING:
    from segkit.evaluation.ensemble import Ensemble
    from segkit.evaluation.predictor import Predictor
    from segkit.evaluation.rows import Row
    from segkit.study.runs import Outcome, StudyRun
    from segkit.training.trial import Event


def run(
    recipe: str | Path,
    *,
    out: str | Path = "runs",
    overlays: Iterable[str | Path] = (),
    sets: Iterable[str] = (),
    jobs: int | str = 1,
    mix_hardware: bool = False,
    wait: bool = True,
    on: str | None = None,
    cache: str | Path | None = None,
    on_event: Callable[[Event], Any] = lambda event: None,
) -> Outcome:
    """Train every trial of a recipe, evaluate, report: `segkit run` from Python.

    Args:
        recipe: the recipe file.
        out: the parent of run folders.
        overlays: files merged over the recipe.
        sets: `path=value` settings.
        jobs: trials side by side, or "auto"; more than one needs a script guarded by `if __name__ == "__main__"`.
        mix_hardware: allow trials with different devices, precisions and numbers of threads.
        wait: wait for the trials that other processes work on in the same run folder.
        on: "ray", or "ray://HOST:PORT": train on a Ray cluster; see docs/machines.md.
        cache: where data are kept, decoded, for other studies too; by default `.cache` in `out`.
        on_event: called with each event of each trial.

    Raises:
        UserError: the recipe or the run folder cannot be used.
    """
    from segkit.study import runs
    from segkit.study.executor import place_of

    plugins.load()
    kept = None if cache is None else Path(cache)
    (study,) = runs.plan_studies([Path(recipe)], [Path(path) for path in overlays], sets, Path(out), cache=kept)
    for event in study.execute(jobs=jobs, mix_hardware=mix_hardware, wait=wait, place=place_of(on)):
        on_event(event)
    return conclude(study)


def conclude(study: StudyRun) -> Outcome:
    """Write the report of a study, unless it is up to date or others still train; return the outcome of the study."""
    from segkit.report.render import read_table, write_report

    outcome = study.finish()
    try:
        # without its folder, it was removed or moved, which the trials report
        if study.folder.is_dir() and "elsewhere" not in outcome.counts:
            with study.reporting() as is_newer:
                table = read_table(study.folder) if outcome.unchanged or is_newer else None
                outcome.table = write_report(study.folder) if table is None else table
    finally:
        study.close()
    return outcome


@overload
def load(  # type: ignore[overload-overlap]  # a text is a sequence of texts too
    path: str | Path, *, sets: Iterable[str] = (), trust_plugins: bool = False, device: str | None = None
) -> Predictor: ...


@overload
def load(
    path: Sequence[str | Path], *, sets: Iterable[str] = (), trust_plugins: bool = False, device: str | None = None
) -> Ensemble: ...


def load(
    path: str | Path | Sequence[str | Path],
    *,
    sets: Iterable[str] = (),
    trust_plugins: bool = False,
    device: str | None = None,
) -> Predictor | Ensemble:
    """Return the model of a checkpoint, ready to predict; its losses, optimizer etc. need not be available.

    Args:
        path: a best or last checkpoint. A list is an ensemble, whose probabilities are averaged: of files and of
            folders, which stand for the best checkpoints of all seeds and folds of a variant.
        sets: `path=value` settings merged over its recipe, e.g. "data.rvsc.root=/data/rvsc".
        trust_plugins: run the plugin code inside the checkpoint, if the plugin is not installed. Of several versions in
            a list the first runs for all.
        device: the device to use; by default the one it was trained on, or an available one.

    Raises:
        UserError: a file is damaged or not a checkpoint, a plugin is missing, or a setting is wrong; checkpoints of a
            list are of different structures or inputs.
    """
    from segkit.evaluation.ensemble import Ensemble
    from segkit.study.checkpoints import find_checkpoints

    options = list(sets), trust_plugins, device
    if isinstance(path, (str, Path)):
        return _load(Path(path), *options)
    files = find_checkpoints(map(Path, path))
    return Ensemble(tuple(_load(file, *options) for file in files), tuple(map(str, files)))


def _load(path: Path, sets: Sequence[str], trust_plugins: bool, device: str | None) -> Predictor:
    """Return the model of a checkpoint."""
    import torch

    from segkit.device import choose_for_checkpoint
    from segkit.evaluation.predictor import Predictor
    from segkit.training import checkpoint
    from segkit.training.setup import build_model

    found = checkpoint.load(path)
    meta = found.meta
    plugins.load()
    loaded = {plugin.module for plugin in plugins.loaded()}
    offered = [plugin for plugin in meta["plugins"] if plugin["module"] not in loaded]
    if trust_plugins and offered:
        with tempfile.TemporaryDirectory(prefix="segkit-plugins-") as folder:
            failures = plugins.load_sources(offered, Path(folder))
        if failures:
            raise UserError("\n".join(f"plugin of the checkpoint not loaded: {failure}" for failure in failures))
    advice = "" if trust_plugins else how_to_get(offered)
    tree, missing = _available(meta["recipe"], str(path))
    document = merge.Document.from_tree(tree, str(path))
    for assignment in sets:
        merge.apply_setting(document, assignment)
    try:
        recipe = validate(document)
    except UserError as error:
        raise UserError(f"{error}{advice}") from None
    for flag, where, _ in map(merge.parse_setting, sets):
        if not SETTABLE.match(".".join(where)):
            raise UserError(
                f"{flag}: has no effect, the training is over. A checkpoint takes data, metrics, evaluation, "
                "transforms.eval, train.batch_size, train.device and train.precision."
            )
    channels = tuple(meta["channels"])
    chosen = choose_for_checkpoint(recipe.train.device, recipe.train.precision, device)
    _check_sizes(recipe, len(meta["inputs"]), channels, found.weights, str(path))
    with torch.random.fork_rng(devices=[]):  # the initial weights are random, and replaced below
        model = build_model(recipe, len(meta["inputs"]), len(channels), filled=True)
    model = model.to(chosen.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint.load_into(model, found.weights, str(path))
    return Predictor(
        model.eval(), recipe, channels, meta, chosen, {name: f"{why}{advice}" for name, why in missing.items()}
    )


# the parts of a recipe that a trained model depends on
SETTABLE = re.compile(
    r"(data|metrics|evaluation(?!\.during_training)|model|channels|drop|transforms\.eval"
    r"|train\.(batch_size|device|precision))\b"
)
NOT_FOR_PREDICTION = ("loss", "regularizer", "optimizer", "scheduler", "step", "metrics", "data")


def _available(tree: dict[str, Any], name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a recipe without the parts that are not available and not needed for prediction, and why they are not."""
    try:
        Recipe.from_dict(tree, name)
        return tree, {}
    except UserError:
        missing: dict[str, str] = {}
    kept = dict(tree)
    for part in [part for part in NOT_FOR_PREDICTION if part in tree]:
        try:
            Recipe.from_dict({"channels": tree.get("channels", "independent"), part: tree[part]}, name)
        except UserError as error:
            missing[part] = str(error)
            kept.pop(part)
    transforms: Any = kept.get("transforms")
    try:
        if isinstance(transforms, dict):  # otherwise validating the whole recipe reports it
            Recipe.from_dict({"transforms": {"train": transforms.get("train", [])}}, name)
    except UserError as error:
        missing["transforms.train"] = str(error)
        kept["transforms"] = {**transforms, "train": []}
    return kept, missing


def _check_sizes(recipe: Recipe, inputs: int, channels: tuple[str, ...], weights: dict[str, Any], path: str) -> None:
    """Raise if the weights do not fit the recipe's model, before memory is allocated for it."""
    import torch

    from segkit.training.checkpoint import check_fit
    from segkit.training.setup import build_model

    try:
        with torch.device("meta"):
            model = build_model(recipe, inputs, len(channels), filled=True)
    except ComponentError as error:
        if not any(plugin_parts(recipe.model)):
            raise UserError(f"{path}: the model that it describes cannot be built: {error}") from None
        return  # a plugin may compute while it is built
    check_fit(model, weights, path)


def evaluate(
    path: str | Path | Sequence[str | Path],
    *,
    on: str | None = None,
    sets: Iterable[str] = (),
    trust_plugins: bool = False,
    device: str | None = None,
    cache: DataCache | None = None,
    on_note: Callable[[str], Any] = lambda text: None,
) -> list[Row]:
    """Return the per-case rows of a checkpoint on one of its sets, or on every case of other data.

    Each row says of which set its case is; "train" too where other data have a patient that it was trained on.

    Of several checkpoints, for each case those are averaged that were neither trained on its patient nor chosen by it:
    that validation chose the epoch of a checkpoint counts, unless `train.select` is "last".

    Args:
        path: a checkpoint, or a list as in `load`.
        on: "train", "validation", "test" or "all" (every case with masks). By default the test set, or where there is
            none the validation set; on other data all. Of several checkpoints, the cases that are in this set of any.
        sets: settings merged over its recipe; one of `data` evaluates other data.
        trust_plugins: as in `load`.
        device: as in `load`.
        cache: of data, for further checkpoints with the same; by default that beside the checkpoint's run, if any.
        on_note: called with a line that says how many checkpoints were averaged.

    Raises:
        UserError: as in `load`; there is no such set; the data lack cases of the set or channels of the model; none of
            several checkpoints may predict some patient.
    """
    from segkit.evaluation.ensemble import Ensemble
    from segkit.evaluation.rows import in_set
    from segkit.evaluation.sets import ALL, by_set, check_set, default_set, named_cases

    sets = list(sets)
    changed = {merge.parse_setting(assignment)[1][0] for assignment in sets}
    predictor: Predictor | Ensemble = load(path, sets=sets, trust_plugins=trust_plugins, device=device)
    metas = predictor.metas if isinstance(predictor, Ensemble) else {str(path): predictor.meta}
    first = next(iter(metas))
    if (
        isinstance(predictor, Ensemble) and len(predictor.members) == 1
    ):  # of a folder with one trial: there is no choice
        (predictor,) = predictor.members
    for part in ("data", "metrics"):
        if part in predictor.missing and part not in changed:
            raise UserError(predictor.missing[part])
    on = on or (ALL if "data" in changed else default_set(metas.values()))
    check_set(on, metas)
    if cache is None:
        above = Path(first).absolute().parents  # trial, variant, run, and the folder of runs
        cache = DataCache(existing_cache(above[3]) if len(above) > 3 else None)
    data = cache.read(predictor.recipe.data, predictor.recipe.intensity)
    for verb, own, other in (("predicts", predictor.channels, data.channels), ("takes", predictor.inputs, data.inputs)):
        if own != other:
            text = f"{verb} {', '.join(own)}, but the data has {', '.join(other)}"
            raise UserError(f"{first}: {text}. Both must have the same names, in the same order.")
    if not any(case.labelled for case in data.cases):
        raise UserError(f"{first}: no case of {data.name} has masks, so there is nothing to compare with: use predict.")
    if isinstance(predictor, Ensemble):
        return predictor.evaluate(cache, on, on_note)
    split = predictor.meta["split"]
    chosen = by_set(data.cases, predictor.meta) if on == ALL else {on: named_cases(data.cases, split[on], on, first)}
    with predictor.as_trained():
        return [
            row
            for name, cases in chosen.items()
            for row in in_set(predictor.evaluator(data, cases).run(predictor.model, predictor.recipe.metrics)[0], name)
        ]
