"""segkit predict: masks and overlays of images, in their own format and geometry."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os.path import dirname, realpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segkit.cli import DONE, app, echo
from segkit.cli.checkpoint import CheckpointOrFolder, Device, Settings, Trust, WithCheckpoints, prepare
from segkit.cli.options import Plugins, parse_path
from segkit.errors import UserError, counted, first_few

if TYPE_CHECKING:
    from segkit.components.datasets.scans import Scan
    from segkit.evaluation.ensemble import Ensemble
    from segkit.evaluation.outputs import Outputs, Written
    from segkit.evaluation.predictor import Predictor


@app.command()
def predict(
    path: CheckpointOrFolder,
    images: Annotated[
        list[Path],
        typer.Argument(
            parser=parse_path,
            metavar="IMAGE-OR-FOLDER...",
            help="NIfTI, DICOM, PNG, JPEG, BMP or TIFF files, DICOM series, or folders of them.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", parser=parse_path, metavar="DIR", help="Where masks and overlays go.")
    ] = Path("predictions"),
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write each structure's probabilities, as 32-bit numbers.")
    ] = False,
    others: WithCheckpoints = None,
    sets: Settings = None,
    plugins: Plugins = None,
    trust_plugins: Trust = False,
    device: Device = None,
) -> int:
    """Write label maps and overlays of images; no ground truth is needed."""
    from segkit import api, files
    from segkit.components.datasets.finding import find_scans
    from segkit.evaluation.outputs import Outputs

    predictor = api.load(prepare(path, others, plugins), sets=sets or [], trust_plugins=trust_plugins, device=device)
    outputs = Outputs(predictor, out, probabilities=probabilities)
    found = find_scans(images, outputs.conventions(), out)
    for line in found.notes:
        echo(f"note: {line}", err=True)
    _check_apart(out, found.scans)
    files.make_folder(out)
    unread = _segment(predictor, outputs, found.scans)
    _report([*found.problems, *unread], len(found.scans) + len(found.problems))
    return DONE


def _check_apart(out: Path, scans: Sequence[Scan]) -> None:
    """Raise if results would lie beside images."""
    homes = {dirname(realpath(file)) for scan in scans for file in scan.files}
    if any(realpath((out / scan.name).parent) in homes for scan in scans):
        raise UserError(
            f"--out {out}: contains the images, and masks would be written among them. Choose another folder."
        )


def _segment(predictor: Predictor | Ensemble, outputs: Outputs, scans: Sequence[Scan]) -> list[str]:
    """Predict images one after the other, and write what is found; return why some could not be read."""
    from segkit.components.datasets.loading import COLOURED
    from segkit.registry.faults import ComponentError

    unread: list[str] = []
    coloured: list[str] = []
    overlapping: list[str] = []
    with _progress(len(scans)) as show:
        for scan in scans:
            try:
                opened = scan.read()
                found = predictor.infer(opened.image, opened.spacing_mm)
            except ComponentError:  # a fault of the model or of a plugin, the same for every image
                raise
            except UserError as error:
                unread.append(str(error))
                show(None)
                continue
            written = outputs.write(scan.name, opened, found)
            coloured += [scan.source] if opened.coloured else []
            overlapping += [scan.source] if written.overlapping else []
            show(f"{scan.source}: {_described(written)}")
    if coloured:
        echo(f"note: {counted(len(coloured), 'coloured image')} {COLOURED}: {first_few(coloured)}.", err=True)
    if overlapping and len(overlapping) < len(scans) - len(unread):
        some = f"{counted(len(overlapping), 'image')} whose structures overlap"
        echo(f"note: {some} got one mask a structure in place of a label map: {first_few(overlapping)}.", err=True)
    return unread


def _described(written: Written) -> str:
    sizes = ", ".join(f"{name} {counted(size, written.noun)}" for name, size in written.sizes.items())
    return f"{sizes} -> {written.target}"


def _report(problems: Sequence[str], total: int) -> None:
    """Raise if some images could not be used: faults of one kind are one line."""
    from segkit.components.datasets.reading import merged

    if not problems:
        return
    if total == 1:
        raise UserError(problems[0])
    done = "; the others are done" if len(problems) < total else ""
    lines = [f"  {line}" for text in merged(problems) for line in text.splitlines()]
    raise UserError("\n".join([f"{len(problems)} of {total} images could not be predicted{done}:", *lines]))


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Give what is called after each image with its line: below the lines a terminal shows a bar with the time left."""
    if not sys.stdout.isatty() or total < 2:
        yield lambda line: echo(line) if line else None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from segkit.errors import printable

    console = Console(highlight=False, markup=False, soft_wrap=True)
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True)
    with Progress(*columns, console=console, refresh_per_second=4, transient=True) as progress:
        task = progress.add_task("images", total=total)

        def show(line: str | None) -> None:
            if line:
                console.print(printable(line))
            progress.advance(task)

        yield show
