"""`Info.cfg` of the Automated Cardiac Diagnosis Challenge: which frames are ED and ES, and the patient's group."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from segkit.components.datasets import reading
from segkit.errors import UserError

NAME = "Info.cfg"
LINE = re.compile(r"[ \t]*(\w+)[ \t]*:[ \t]*(.*?)[ \t]*")


class Frames:
    """The phases of frames, read once a folder.

    Args:
        root: the dataset's folder, resolved; files outside are not read.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[Path, dict[str, str]] = {}

    def tags(self, image: Path, fields: Mapping[str, str]) -> dict[str, str]:
        """Return "phase" and "group" of an image whose name has the field "frame"; {} where nothing says so.

        Raises:
            UserError: the folder's `Info.cfg` is no text, or gives no number for a phase.
        """
        if "frame" not in fields:
            return {}
        info = self._info(image.parent)
        phases = [phase for phase in ("ED", "ES") if phase in info and info[phase] == fields["frame"].lstrip("0")]
        return {**({"phase": phases[0]} if phases else {}), **({"group": info["Group"]} if info.get("Group") else {})}

    def _info(self, folder: Path) -> dict[str, str]:
        if folder not in self._read:
            self._read[folder] = {}
            path = folder / NAME
            if os.path.lexists(path):
                self._read[folder] = _parse(reading.inside(self._root, path))
        return self._read[folder]


def _parse(path: Path) -> dict[str, str]:
    text = reading.decode(reading.read_bytes(path, reading.MOST_TEXT), str(path))
    found = {match[1]: match[2] for line in text.splitlines() if (match := LINE.fullmatch(line))}
    for phase in {"ED", "ES"} & found.keys():
        if not re.fullmatch("[0-9]{1,6}", found[phase]):
            raise UserError(f"{path}: a phase is no number of a frame ({phase}: {found[phase]!r}). Write e.g. ED: 1.")
        found[phase] = found[phase].lstrip("0")
    return found
