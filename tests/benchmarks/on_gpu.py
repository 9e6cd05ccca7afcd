"""All that wants a GPU, one after another: `python -m tests.benchmarks.on_gpu --out FOLDER`.

The suite's GPU tests; twenty kills of a training on the GPU, resumed to the same bytes; the baseline and `strong` at
full size on the images in `../shared/data/sunnybrook_endo`, or in that of SEGKIT_TEST_DATA, or on the phantom; and the
GPU benchmark. Each leaves its output in the folder, and a line here. `--only NAME...` chooses.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from tests.benchmarks.accuracy.task import DATA, ROOT


def commands(out: Path, epochs: int) -> dict[str, list[str]]:
    """Return the commands by name, as words after `python -m`."""
    folds = ["--set", "split.folds=5", "--set", "split.fold=1"]
    data = ["--set", f"data.image_folder.root={DATA}", *folds] if DATA.is_dir() else []
    run = ["segkit", "run", "--out", str(out / "runs")]
    return {
        "tests": ["pytest", "-m", "gpu", "-n", "0", "-q", "--continue-on-collection-errors"],
        "kills": ["tests.stress", "--kills", "20", "--device", "cuda"],
        "baseline": [*run, "recipes/baseline.toml", *data],
        "strong": [*run, "recipes/strong.toml", *data, "--set", f"train.epochs={epochs}"],
        "benchmark": ["tests.benchmarks.gpu"],
    }


def main() -> None:
    """Run them, and say how each ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--epochs", type=int, default=30, help="of strong, whose recipe has 300")
    parser.add_argument("--only", nargs="+", choices=["tests", "kills", "baseline", "strong", "benchmark"])
    parser.add_argument("--minutes", type=float, default=10, help="after which a command is ended")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch sees no CUDA device. `python -m tests.benchmarks.gpu` runs without one.")
    out, failed = options.out.absolute(), False
    out.mkdir(parents=True, exist_ok=True)
    # else asking for a GPU keeps forked processes from using it
    environment = os.environ | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    print(f"images: {DATA if DATA.is_dir() else 'the phantom'}", flush=True)
    for name, words in commands(out, options.epochs).items():
        if options.only and name not in options.only:
            continue
        begun = time.monotonic()
        with (out / f"{name}.txt").open("w", encoding="utf-8") as log:
            command = [sys.executable, "-m", *words]
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            try:
                status = process.wait(60 * options.minutes)
                end = "done" if status == 0 else f"status {status}"
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)  # its children too, which would disturb the next one
                process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                end = f"ended after {options.minutes:g} minutes"
        failed |= end != "done"
        print(f"{name}: {end}, {time.monotonic() - begun:.0f} s, {out / f'{name}.txt'}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
