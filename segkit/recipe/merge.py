"""The merged layers of a recipe: files, overlays, flags, variants."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segkit import files, plugins
from segkit.errors import UserError, sentence, suggest, truncate
from segkit.files import display_path
from segkit.recipe import toml
from segkit.recipe.document import Document as Document
from segkit.recipe.paths import KeyPath, parse_path, tree_at
from segkit.recipe.source import Source as Source

MAX_BYTES = 1_000_000
MAX_CHAIN = 32  # files that extend one another


def read_file(path: Path, flag: str = "") -> tuple[dict[str, Any], Source]:
    """Read one TOML file; `flag` is the flag that names it, e.g. "--with laptop.toml".

    Raises:
        UserError: the file is missing, unreadable, too large, empty, or not valid TOML.
    """
    name = display_path(path)
    if not os.path.lexists(path):
        near = suggest(path.name, [p.name for p in path.parent.glob("*.toml")]) if path.parent.is_dir() else ""
        raise UserError(f"{name}: no such recipe. {near}".rstrip())
    text = files.read_text(path, MAX_BYTES)
    try:
        tree = toml.read(text)
    except files.UnreadableError as error:
        place = f"{name}:{error.line}" if error.line else name
        raise UserError(f"{place}: {error}.") from None
    if not tree:
        raise UserError(f"{name}: is empty. A recipe has tables such as [data], [model] and [train].")
    return tree, Source(name, text, path.resolve().parent, flag=flag)


def merge_file(document: Document, path: Path, flag: str = "", chain: tuple[Path, ...] = ()) -> None:
    """Merge a file over the document, after the file that it extends.

    Raises:
        UserError: a file cannot be read, extends itself, or the chain of files is too long.
    """
    patch, source = read_file(path, flag)
    chain = (*chain, path.resolve())
    base = patch.pop("extends", None)
    if base is not None:
        place = source.place(("extends",))
        if not isinstance(base, str) or not base or "\0" in base:
            raise UserError(f'{place}: extends: must be the name of one file, as in extends = "baseline.toml".')
        target = source.folder / base
        if target.resolve() in chain:
            raise UserError(f"{place}: extends: '{base}' extends this file in turn.")
        if len(chain) >= MAX_CHAIN:
            raise UserError(
                f"{place}: extends: a chain of more than {MAX_CHAIN} files, from {display_path(chain[0])} to "
                f"{display_path(target)}: use fewer."
            )
        if not os.path.lexists(target):
            raise UserError(f"{place}: extends: no such file: {display_path(target)}.")
        merge_file(document, target, flag, chain)
    document.merge(patch, source)


def compose(path: str | Path, *, overlays: Iterable[str | Path] = (), sets: Iterable[str] = ()) -> Document:
    """Return the merged layers of a recipe: `extends`, the file, each overlay, each setting."""
    plugins.load()
    document = Document()
    merge_file(document, Path(path))
    for overlay in overlays:
        before = _model(document)
        merge_file(document, Path(overlay), flag=f"--with {overlay}")
        after = _model(document)
        if before and after and before != after:
            text = f"model.{after} takes the place of model.{before}, whose settings do not count any more."
            document.warnings.append(f"{document.place(('model', after))}: {text}")
    for assignment in sets:
        apply_setting(document, assignment)
    return document


def _model(document: Document) -> str:
    """Return the name of the model so far; "" for none, or none that can be told."""
    model = document.tree.get("model")
    return next(iter(model), "") if isinstance(model, dict) else ""


def apply_setting(document: Document, assignment: str) -> None:
    """Apply one `--set path=value`; see `parse_setting`."""
    flag, path, value = parse_setting(assignment)
    document.merge(tree_at(path, value), Source(flag, None, Path.cwd(), flag=flag))


def parse_setting(assignment: str) -> tuple[str, KeyPath, Any]:
    """Parse one `--set path=value` into the flag as typed, the path and the value: TOML, or a bare word.

    Raises:
        UserError: the assignment has no `=`, no path or no value; it names the flag.
    """
    flag = f"--set {truncate(assignment, 200)}"
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise UserError(f"{flag}: must be path=value, as in --set loss.dice_mix.lambda=0.6.")
    if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in assignment):  # bytes that are not UTF-8
        raise UserError(f"{flag}: not text in UTF-8.")
    try:
        path = parse_path(name.strip())
    except ValueError as error:
        raise UserError(f"{flag}: {sentence(error)}") from None
    return flag, path, _parse_value(flag, text.strip())


def _parse_value(flag: str, text: str) -> Any:
    if not text:
        raise UserError(f"{flag}: has no value. Write an empty string as '\"\"'.")
    try:
        tree = toml.read(f"value = {text}")
        if len(tree) == 1:
            return tree["value"]
    except files.UnreadableError as error:
        if "TOML" not in str(error):
            raise UserError(f"{flag}: {sentence(error)}") from None
    if text[0] in "[{\"'" or "\n" in text:
        raise UserError(f"{flag}: the value is not valid TOML: {truncate(text)}")
    return text
