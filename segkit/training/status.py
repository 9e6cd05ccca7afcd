"""trial.json, the status of a trial: the one place that writes and reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from segkit import files
from segkit.errors import UserError

ENDED = "ended without reporting why (killed, out of memory, or a crash in native code)"
"""Describes a trial whose status is "running" while nothing runs."""


def _named(terms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not all("term" in term for term in terms):
        raise ValueError("a term has no name")
    return terms


class Part(BaseModel):
    """A part of trial.json; a later version may know more of it."""

    model_config = ConfigDict(extra="allow", strict=True)


class Data(Part):
    """The data that a trial was trained on.

    Attributes:
        tags: of the cases that it was not trained on, by the case's name.
    """

    name: str = ""
    cases: int = 0
    patients: int = 0
    fingerprint: str | None = None
    tags: dict[str, dict[str, str]] = {}


class Status(Part):
    """The content of trial.json; what is not known yet is None, or empty.

    Attributes:
        status: "running", "finished", "failed" or "interrupted".
        training_number: see `segkit.recipe.identity`; 1 where it is not stated.
        identity, evaluation: of what it is trained and evaluated as.
        limited: whether the training was cut short on purpose.
        stopped_early: whether `train.patience` ended it, after `epochs_done`.
        split: the names of the cases of each set.
        first_batch: name, value, weight and gradient share of each summand.
        plugins: the hashes of the plugins that training and evaluation use.
        evaluated_with: what `[evaluation]` does, in words.
        select: the epoch that is evaluated, "best" or "last".
        initial_weights: the report of `segkit.training.initial.begin_with`.
        reused_from: the folder that the trial was copied from.
    """

    status: str = "running"
    training_number: Annotated[int, Field(ge=1)] = 1
    identity: str | None = None
    evaluation: str | None = None
    variant: str | None = None
    seed: int | None = None
    fold: int | None = None
    limited: bool = False
    epochs: int | None = None
    epochs_done: int = 0
    error: str | None = None
    best_epoch: int | None = None
    stopped_early: bool = False
    seconds: float = 0.0
    warnings: list[str] = []
    device: str | None = None
    hardware: str | None = None
    precision: str | None = None
    threads: int | None = None
    compile: bool | None = None
    resident: bool | None = None
    plugins: dict[str, list[str]] | None = None
    versions: dict[str, str] = {}
    data: Data = Data()
    split: dict[str, list[str]] | None = None
    channels: list[str] | None = None
    first_batch: Annotated[list[dict[str, Any]], AfterValidator(_named)] = []
    evaluated_with: str | None = None
    select: str = "best"
    initial_weights: dict[str, Any] | None = None
    reused_from: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the status in a folder.

        Raises:
            UserError: it is missing, cannot be read, or is damaged; the message names the file.
        """
        path = folder / "trial.json"
        found = files.read_json(path)
        if not isinstance(found, dict):
            raise UserError(f"{path}: damaged: not a JSON object.")
        try:
            return cls.model_validate({name: value for name, value in found.items() if value is not None})
        except ValidationError as error:
            wrong = dict.fromkeys(str(found["loc"][0]) for found in error.errors())
            raise UserError(f"{path}: damaged: {', '.join(wrong)} is not what a training writes.") from None

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """Return the status in a folder; None if there is none that can be read."""
        try:
            return cls.read(folder)
        except UserError:
            return None

    def write(self, path: Path) -> None:
        """Write a trial.json, whole or not at all."""
        files.write_text(path, json.dumps(self.known(), indent=1))

    def known(self) -> dict[str, Any]:
        """Return what is known, as plain values."""
        return {name: value for name, value in self.model_dump(exclude_unset=True).items() if value is not None}
