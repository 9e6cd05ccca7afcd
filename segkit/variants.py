"""A recipe's variants: every listed one at every point of the grid, each with its own layers and folder."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

from segkit import layers, toml
from segkit.doubts import of_recipe, of_settings
from segkit.errors import UserError, several, shortened, suggest
from segkit.recipe import Recipe, validate

MAX_TRIALS = 10_000
MAX_LABEL = 500  # characters
MAX_TEXT = 100  # characters of a value of the grid, in a label
MAX_FOLDER = 100  # bytes
# what is in a run folder beside its variants, and what Windows keeps for devices
TAKEN = re.compile(
    r"(figures|overlays|predictions|logs|cache|.*\.(toml|csv|json|html|md|pdf|safetensors|lock|tmp)"
    r"|(con|prn|aux|nul|com\d|lpt\d)(\..*)?)$",
    re.IGNORECASE,
)


def slug(label: str) -> str:
    """Return a label as the name of a folder: letters of any script, digits and `.=+-`; at most 100 bytes."""
    plain = unicodedata.normalize("NFC", label)
    kept = "".join(char if char in ".=+-" or unicodedata.category(char)[0] in "LMN" else "_" for char in plain)
    name = re.sub("_+", "_", kept).strip("._")
    while name and unicodedata.category(name[0]) == "Mn":  # an accent whose letter is gone
        name = name[1:]
    name = name or "variant"
    if TAKEN.match(name):
        name = f"variant_{name}"
    return name if len(name.encode()) <= MAX_FOLDER else _marked(name, label)


def _marked(name: str, label: str, digits: int = 6) -> str:
    """Return a name, cut where it must be, with the first digits of its label's hash."""
    mark = "-" + hashlib.sha256(label.encode()).hexdigest()[:digits]
    return name.encode()[: MAX_FOLDER - len(mark)].decode(errors="ignore").rstrip("._") + mark


def folders(labels: Iterable[str]) -> dict[str, str]:
    """Return the folder of each label's trials: the first of a name has it plain, others with a mark of their label.

    No two are the same for a file system that takes no notice of case or of how an accent is written.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for label in labels:
        plain = slug(label)
        names = (plain, *(_marked(plain, label, digits) for digits in (6, 16, 64)))
        found[label] = next(name for name in names if _same(name) not in taken)
        taken.add(_same(found[label]))
    return found


def _same(name: str) -> str:
    """Return what two names have in common that some file systems take for one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", name).casefold())


def variants(recipe: Recipe, document: layers.Document) -> Iterator[tuple[str, layers.Document]]:
    """Yield (label, merged layers) of each variant: every listed variant at every point of the grid.

    Raises:
        UserError: a variant without a label, two with the same one, a grid path that is none, or far too many trials.
    """
    _check_size(recipe, document)
    base = document.copy()
    base.tree.pop("study", None)
    listed = _listed(recipe, document, base)
    axes = _axes(recipe, document)
    labels: dict[str, int] = {}
    for number, (label, laid) in enumerate(listed or [("", base)]):
        for point in itertools.product(*axes):
            own = ", ".join(part for part in (label, *(text for text, _, _ in point)) if part)
            own = own or recipe.title or "baseline"
            if labels.setdefault(unicodedata.normalize("NFC", own), number) != number or own in labels:
                pass
            yield own, _set(laid, point)


