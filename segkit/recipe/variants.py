"""The variants of a recipe: every listed variant at every point of the grid, with its layers, label and folder."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from segkit.errors import UserError, first_unprintable, join_mistakes, printable, sentence, suggest, truncate
from segkit.recipe import merge, toml
from segkit.recipe.paths import KeyPath, parse_path, tree_at
from segkit.recipe.sections import Split, Study
from segkit.recipe.source import Source

Point = tuple[str, dict[str, Any], Source]  # a value of a key of the grid: its label text, patch and source
MAX_TRIALS = 10_000
MAX_LABEL = 500  # characters
MAX_TEXT = 100  # characters of a value of the grid, in a label
MAX_FOLDER = 100  # bytes
# other names in a run folder, and those that Windows reserves for devices
RESERVED = re.compile(
    r"(figures|overlays|predictions|logs|cache|.*\.(toml|csv|json|html|md|pdf|safetensors|lock|tmp)"
    r"|(con|prn|aux|nul|com\d|lpt\d)(\..*)?)$",
    re.IGNORECASE,
)


def folder_name(label: str) -> str:
    """Return the folder name of a label: letters of any script, digits and `.=+-`; at most `MAX_FOLDER` bytes."""
    plain = unicodedata.normalize("NFC", label)
    kept = "".join(char if char in ".=+-" or unicodedata.category(char)[0] in "LMN" else "_" for char in plain)
    name = re.sub("_+", "_", kept).strip("._")
    while name and (name[0] in "._" or unicodedata.category(name[0]) == "Mn"):  # an accent whose letter is gone
        name = name[1:]
    name = name or "variant"
    if RESERVED.match(name):
        name = f"variant_{name}"
    return name if len(name.encode()) <= MAX_FOLDER else _with_hash(name, label)


def _with_hash(name: str, label: str, digits: int = 6) -> str:
    """Return a name with the first digits of its label's hash, cut to `MAX_FOLDER` bytes."""
    suffix = "-" + hashlib.sha256(label.encode()).hexdigest()[:digits]
    return name.encode()[: MAX_FOLDER - len(suffix)].decode(errors="ignore").rstrip("._") + suffix


def assign_folders(labels: Iterable[str], owner: Callable[[str], str | None] = lambda name: None) -> dict[str, str]:
    """Return the folder of each label's trials; the order of the labels does not matter.

    A label keeps the folder that already holds its trials. Otherwise it gets its plain name, unless another label of
    the study has the same one or another label's trials are there; then it gets the plain name with a hash of the
    label. Folders differ even on file systems that ignore case or Unicode normalization. `owner` returns the label
    whose trials a folder of the run holds, or None.
    """
    plain = {label: folder_name(label) for label in sorted(set(labels))}
    names = {
        label: [name, *(_with_hash(name, label, digits) for digits in (6, 16, 64))] for label, name in plain.items()
    }
    shared = Counter(map(_file_system_key, plain.values()))
    held = functools.cache(lambda name: normalize_label(owner(name) or "") or None)
    found: dict[str, str] = {}
    taken: set[str] = set()

    def take(label: str, choice: Iterable[str]) -> None:
        name = next((name for name in choice if _file_system_key(name) not in taken), None)
        if name is not None and label not in found:
            found[label] = name
            taken.add(_file_system_key(name))

    for label, choice in names.items():
        old = re.sub(r"[^A-Za-z0-9.=+-]+", "_", label).strip("._") or "variant"  # of segkit 0.1.0
        take(label, (name for name in (*choice, old) if held(name) == normalize_label(label)))
    for label, (name, *_) in names.items():
        take(label, [name] if shared[_file_system_key(name)] == 1 and held(name) is None else [])
    for label, (_, *marked) in names.items():
        take(label, marked)
    return found


def normalize_label(text: str) -> str:
    """Return a label with Unicode and white space normalized, as labels are compared and shown."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _file_system_key(name: str) -> str:
    """Return a key that is equal for names that some file systems treat as one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", name).casefold())


def variants(study: Study, split: Split, title: str, document: merge.Document) -> Iterator[tuple[str, merge.Document]]:
    """Yield (label, merged layers) of each variant: every listed variant at every point of the grid.

    Raises:
        UserError: a variant has no label of its own, a grid path is invalid, or there are too many trials.
    """
    check_size(study, split, document)
    base = document.copy()
    base.tree.pop("study", None)
    listed = list(_listed(study, document, base)) or [("", base)]
    points = list(itertools.product(*grid_axes(study, document)))
    labels = [variant_label(label, [text for text, _, _ in point], title) for label, _ in listed for point in points]
    _check_labels(labels, study, document)
    for label, ((_, layers), point) in zip(labels, itertools.product(listed, points), strict=True):
        variant = layers.copy()
        for _, patch, source in point:
            variant.merge(patch, source)
        yield label, variant


def variant_label(label: str, values: Iterable[str], title: str) -> str:
    """Return the label of a variant at a point of the grid; without either, the title of the study."""
    parts = [part for part in (normalize_label(label), *values) if part]
    return ", ".join(parts) or normalize_label(printable(title)) or "baseline"


def check_size(study: Study, split: Split, document: merge.Document) -> None:
    """Raise UserError for a study of more than `MAX_TRIALS` trials, before its variants are built."""
    counts = [len(values) for values in study.grid.values()]
    factors = {
        "variants": max(1, len(study.variants)), "points of the grid": math.prod(counts),
        "seeds": len(study.seeds or (1,)), "folds": (split.fold_count or 1) if split.fold is None else 1,
    }  # fmt: skip
    trials = math.prod(factors.values())
    if trials > MAX_TRIALS:
        product = " x ".join(f"{count:,} {name}" for name, count in factors.items() if count > 1)
        raise UserError(
            f"{document.place(('study',))}: study: {trials:,} trials ({product}), more than {MAX_TRIALS:,}. "
            "Vary fewer keys, or give each fewer values."
        )


def _listed(study: Study, document: merge.Document, base: merge.Document) -> list[tuple[str, merge.Document]]:
    """Return (label, merged layers) of each variant in study.variants."""
    mistakes: list[str] = []
    listed: list[tuple[str, merge.Document]] = []
    numbers: dict[str, int] = {}
    for number, variant in enumerate(study.variants):
        patch, path = dict(variant), ("study", "variants", str(number))
        label, place = patch.pop("label", None), f"{document.place(path)}: {'.'.join(path)}"
        problem = _label_problem(label)
        label = normalize_label(str(label))
        nested = sorted(name for name in patch if name in ("study", "title"))
        first = numbers.setdefault(label, number)
        if problem:
            mistakes.append(f"{place}.label: {problem}.")
        elif first != number:
            same = document.place(("study", "variants", str(first), "label"))
            mistakes.append(
                f"{document.place((*path, 'label'))}: {'.'.join(path)}.label: {toml.format_value(truncate(label))} is "
                f"the label of the variant at {same} already. Give each its own."
            )
        elif nested:
            mistakes.append(f"{place}: a variant cannot set {', '.join(nested)}.")
        else:
            layers, source = base.copy(), document.origin(path)
            assert source is not None, "every variant has a source"
            try:
                layers.merge(patch, source.at(*path))
                listed.append((label, layers))
            except UserError as error:
                mistakes.append(str(error))
    if mistakes:
        raise join_mistakes(mistakes)
    return listed


def _label_problem(label: Any) -> str:
    """Return what is wrong with a label, or ""."""
    if not isinstance(label, str) or not label.strip():
        return 'a variant needs a label, a string such as label = "dropout 0.5"'
    if "\n" in label.strip():
        return "must be one line"
    if first_unprintable(label.strip()):
        return f"contains the control character {first_unprintable(label.strip())}. Leave it out"
    if len(label) > MAX_LABEL:
        return f"has {len(label):,} characters; at most {MAX_LABEL} are allowed"
    return ""


def grid_axes(study: Study, document: merge.Document) -> list[list[Point]]:
    """Return the points of each key that the grid varies."""
    axes: list[list[Point]] = []
    paths: dict[str, KeyPath] = {}
    for name in study.grid:
        try:
            paths[name] = parse_path(name)
        except ValueError as error:
            raise UserError(f"{document.place(('study', 'grid', name))}: study.grid: {sentence(error)}") from None
    last = [path[-1] for path in paths.values()]
    for name, values in study.grid.items():
        path, own = paths[name], ("study", "grid", name)
        source = document.origin(own)
        assert source is not None, "every grid has a source"
        key = path[-1] if last.count(path[-1]) == 1 else ".".join(path)
        axes.append([(f"{key}={_label_text(value)}", tree_at(path, value), source.at(*own)) for value in values])
        texts = [text for text, _, _ in axes[-1]]
        twice = next((text for number, text in enumerate(texts) if text in texts[:number]), None)
        if twice is not None:
            place = f"{document.place(own)}: study.grid.{toml.format_key(name)}"
            raise UserError(f"{place}: {twice} is listed twice. List each value once.")
    return axes


def _label_text(value: Any) -> str:
    """Return a value of the grid as part of a label; a very long one is cut and gets its hash."""
    text = normalize_label(printable(value if isinstance(value, str) else toml.format_value(value)))
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}... {hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _check_labels(labels: list[str], study: Study, document: merge.Document) -> None:
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            place = document.place(("study", "variants")) or document.place(("study", "grid"))
            raise UserError(
                f"{place}: study: two variants have the label '{truncate(label)}' once the grid's values are "
                "appended. Give each its own."
            )
        seen.add(label)
    reference = normalize_label(study.compare_with or "")
    if study.compare_with is None or reference in seen:
        return
    place = f"{document.place(('study', 'compare_with'))}: study.compare_with"
    if len(labels) == 1:
        raise UserError(f"{place}: there is only one variant. Give more, as study.variants or study.grid, or drop it.")
    raise UserError(f"{place}: no variant is labelled '{truncate(reference)}'. {suggest(reference, labels)}")
