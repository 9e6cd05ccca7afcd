"""The Python API for notebooks and scripts: run, load, evaluate."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit import plugins
from segkit.data.cache import DataCache, existing_cache
from segkit.errors import UserError, counted, suggest
from segkit.plugins.sources import how_to_get
from segkit.recipe import merge
from segkit.recipe.model import Recipe, validate
from segkit.registry.faults import ComponentError, plugin_parts

if TYPE_CHECKING:
    from segkit.data.cases import StoredCase
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
        cache: where data are kept, decoded, for other studies too; by default `.cache` in `out`.
        on_event: called with each event of each trial.

    Raises:
        UserError: the recipe or the run folder cannot be used.
    """
    from segkit.study import runs

    plugins.load()
    kept = None if cache is None else Path(cache)
    (study,) = runs.plan_studies([Path(recipe)], [Path(path) for path in overlays], sets, Path(out), cache=kept)
    for event in study.execute(jobs=jobs, mix_hardware=mix_hardware):
        on_event(event)
    return conclude(study)


def conclude(study: StudyRun) -> Outcome:
    """Write the report of a study, unless it is up to date; return the outcome of the study."""
    from segkit.report.render import read_table, write_report

    outcome = study.finish()
    try:
        if study.folder.is_dir():  # else it was removed or moved, which the trials report
            table = read_table(study.folder) if outcome.unchanged else None
            outcome.table = write_report(study.folder) if table is None else table
    finally:
        study.close()
    return outcome


def load(
    path: str | Path, *, sets: Iterable[str] = (), trust_plugins: bool = False, device: str | None = None
) -> Predictor:
    """Return the model of a checkpoint, ready to predict; its losses, optimizer etc. need not be available.

    Args:
        path: a best or last checkpoint.
        sets: `path=value` settings merged over its recipe, e.g. "data.rvsc.root=/data/rvsc".
        trust_plugins: run the plugin code inside the checkpoint, if the plugin is not installed.
        device: the device to use; by default the one it was trained on, or an available one.

    Raises:
        UserError: the file is damaged or not a checkpoint, a plugin is missing, or a setting is wrong.
    """
    import torch

    from segkit.device import choose_for_checkpoint
    from segkit.evaluation.predictor import Predictor
    from segkit.training import checkpoint
    from segkit.training.setup import build_model

    sets = list(sets)
    found = checkpoint.load(Path(path))
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
    path: str | Path,
    *,
    on: str | None = None,
    sets: Iterable[str] = (),
    trust_plugins: bool = False,
    device: str | None = None,
    cache: DataCache | None = None,
) -> list[Row]:
    """Return the per-case rows of a checkpoint on one of its sets, or on every case of other data.

    Each row says of which set its case is; "train" too where other data have a patient that it was trained on.

    Args:
        path: a checkpoint.
        on: "train", "validation", "test" or "all" (every case with masks). By default the test set, or where there is
            none the validation set; on other data all.
        sets: settings merged over its recipe; one of `data` evaluates other data.
        trust_plugins: as in `load`.
        device: as in `load`.
        cache: of data, for further checkpoints with the same; by default that beside the checkpoint's run, if any.

    Raises:
        UserError: as in `load`; there is no such set; the data lack cases of the set or channels of the model.
    """
    from segkit.evaluation.rows import in_set

    sets = list(sets)
    changed = {merge.parse_setting(assignment)[1][0] for assignment in sets}
    predictor = load(path, sets=sets, trust_plugins=trust_plugins, device=device)
    for part in ("data", "metrics"):
        if part in predictor.missing and part not in changed:
            raise UserError(predictor.missing[part])
    split = predictor.meta["split"]
    if on is None:
        on = ALL if "data" in changed else "test" if split["test"] else "validation"
    if on != ALL and not split.get(on):
        have = suggest(on, [ALL, *(name for name, names in split.items() if names)])
        raise UserError(f"{path}: it has no {on} set. {have}")
    if cache is None:
        above = Path(path).absolute().parents  # trial, variant, run, and the folder of runs
        cache = DataCache(existing_cache(above[3]) if len(above) > 3 else None)
    data = cache.read(predictor.recipe.data, predictor.recipe.intensity)
    for verb, own, other in (("predicts", predictor.channels, data.channels), ("takes", predictor.inputs, data.inputs)):
        if own != other:
            text = f"{verb} {', '.join(own)}, but the data has {', '.join(other)}"
            raise UserError(f"{path}: {text}. Both must have the same names, in the same order.")
    chosen = _by_set(data.cases, predictor.meta) if on == ALL else {on: _named(data.cases, split[on], on, path)}
    if not chosen:
        raise UserError(f"{path}: no case of {data.name} has masks, so there is nothing to compare with: use predict.")
    with predictor.threads():
        return [
            row
            for name, cases in chosen.items()
            for row in in_set(predictor.evaluator(data, cases).run(predictor.model, predictor.recipe.metrics)[0], name)
        ]


ALL = "all"
NEW = "new"  # cases that are in no set of the checkpoint


def _named(cases: Sequence[StoredCase], names: Sequence[str], on: str, path: str | Path) -> list[int]:
    """Return the numbers of the cases of a set, in its order."""
    by_name = {case.name: number for number, case in enumerate(cases)}
    missing = [name for name in names if name not in by_name]
    unlabelled = [name for name in names if name in by_name and not cases[by_name[name]].labelled]
    for found, what in ((missing, ""), (unlabelled, "masks of ")):
        if found:
            count = f"{len(found)} of its {counted(len(names), f'{on} case')}"
            raise UserError(f"{path}: the data lack {what}{count}, e.g. {found[0]}.")
    return [by_name[name] for name in names]


def _by_set(cases: Sequence[StoredCase], meta: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return all cases with masks by the set of the checkpoint that their patients, or else they themselves, are in.

    Checkpoints name the cases of each set and the patients of the training set; those of older versions only the cases.
    """
    sets = {case: name for name, names in reversed(meta["split"].items()) for case in names}
    sets |= dict.fromkeys(meta["split"].get("unlabelled", ()), "train")
    patients = {case.patient: sets[case.name] for case in cases if case.patient is not None and case.name in sets}
    patients |= dict.fromkeys(meta["trained_patients"], "train")
    found: dict[str, list[int]] = {name: [] for name in (*meta["split"], NEW)}
    for number, case in enumerate(cases):
        if case.labelled:
            own = patients.get(case.patient) if case.patient is not None else None
            found[own or sets.get(case.name, NEW)].append(number)
    return {name: part for name, part in found.items() if part}
