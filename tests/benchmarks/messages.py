"""What segkit and others say to the same mistakes: `python -m tests.benchmarks.messages [--show]`.

Each gets a configuration file with one mistake, in its own words: a key with a typo, text for a number, a value out of
bounds, a component that does not exist. Counted are the lines it prints (stdout and stderr, empty ones left out), and
whether they hold the file, the line, and the name that was meant. Needs: pip install hydra-core lightning mmengine
"jsonargparse[signatures]"; what is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

MISTAKES = ("key", "type", "bounds", "component")
MEANT = {"key": "epochs", "type": "epochs", "bounds": "dropout", "component": "dice"}
VALUES = {
    "key": {"epoch": "3"}, "type": {"epochs": '"ten"'}, "bounds": {"dropout": "1.5"}, "component": {"loss": "dise"},
}  # fmt: skip

SEGKIT = "from segkit.cli import main\nimport sys\nsys.argv = ['segkit', 'show', 'conf.toml']\nmain()\n"
PYDANTIC = """
import tomllib
from typing import Annotated, Literal
from pydantic import BaseModel, ConfigDict, Field
class Conf(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    epochs: int = 1
    dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    loss: Literal["dice", "inverse_dice", "dice_mix", "bce"] = "dice"
Conf(**tomllib.load(open("conf.toml", "rb")))
"""
TRAINER = """
class Dice:
    pass
class Model:
    def __init__(self, epochs: int = 1, dropout: float = 0.0, loss: object = None):
        self.epochs = epochs
"""
HYDRA = """
from dataclasses import dataclass
from typing import Any
import hydra
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
@dataclass
class Conf:
    epochs: int = 1
    dropout: float = 0.0
    loss: Any = None
ConfigStore.instance().store(name="schema", node=Conf)
@hydra.main(version_base=None, config_path=".", config_name="conf")
def main(conf):
    instantiate(conf.loss)
main()
"""
MMENGINE = (
    TRAINER
    + """
from mmengine import Config, Registry
LOSSES, MODELS = Registry("loss"), Registry("model")
LOSSES.register_module(name="dice")(Dice)
MODELS.register_module(name="unet")(Model)
conf = Config.fromfile("conf.py")
if conf.model.get("loss"):
    LOSSES.build(conf.model.pop("loss"))
MODELS.build(conf.model)
"""
)
LIGHTNING = """
import warnings
warnings.filterwarnings("ignore")
import lightning
from lightning.pytorch.cli import LightningCLI
class Loss:
    pass
class Dice(Loss):
    pass
class Model(lightning.LightningModule):
    def __init__(self, epochs: int = 1, dropout: float = 0.0, loss: Loss | None = None):
        super().__init__()
import sys
sys.argv = ["main.py", "--config", "conf.yaml"]
LightningCLI(Model, run=False)
"""


def files(tool: str, mistake: str) -> dict[str, str]:
    """Return the script and the configuration with a mistake, as each tool writes it."""
    ((key, value),) = VALUES[mistake].items()
    if tool == "segkit":
        tables = {"key": "train", "type": "train", "bounds": "model.unet"}
        table = f"[{tables.get(mistake, 'loss.dise')}]\n"
        return {
            "main.py": SEGKIT,
            "conf.toml": "# a recipe\n" + table + (f"{key} = {value}\n" if mistake in tables else ""),
        }
    if tool == "pydantic":
        return {
            "main.py": PYDANTIC,
            "conf.toml": f"# a file\n{key} = {chr(34) + value + chr(34) if key == 'loss' else value}\n",
        }
    if tool == "hydra":
        loss = "loss:\n  _target_: __main__.dise\n" if key == "loss" else f"{key}: {value}\n"
        return {"main.py": HYDRA, "conf.yaml": f"defaults:\n  - schema\n  - _self_\n{loss}"}
    if tool == "mmengine":
        entry = 'loss=dict(type="dise")' if key == "loss" else f"{key}={value}"
        return {"main.py": MMENGINE, "conf.py": f'model = dict(\n    type="unet",\n    {entry},\n)\n'}
    entry = "    loss:\n    class_path: __main__.dise\n" if key == "loss" else f"  {key}: {value}\n"
    return {"main.py": LIGHTNING, "conf.yaml": "model:\n" + entry.replace("    loss", "  loss", 1)}


def output(tool: str, mistake: str) -> tuple[int, list[str]]:
    """Return the exit status and the lines that a tool prints."""
    with tempfile.TemporaryDirectory() as name:
        for file, text in files(tool, mistake).items():
            (Path(name) / file).write_text(text, encoding="utf-8")
        done = subprocess.run([sys.executable, "main.py"], cwd=name, capture_output=True, text=True, check=False)
        lines = [line for line in (done.stdout + done.stderr).replace(name, "").splitlines() if line.strip()]
    return done.returncode, lines


def main() -> None:
    """Print a table; with --show, every output in full."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    tools = [
        tool for tool in ("segkit", "pydantic", "hydra", "mmengine", "lightning") if importlib.util.find_spec(tool)
    ]
    for mistake in MISTAKES:
        for tool in tools:
            status, lines = output(tool, mistake)
            text = "\n".join(lines)
            if not status:
                print(f"{mistake:9} {tool:9} accepted without a word")
                continue
            said = [
                name
                for name, found in {
                    "file": "conf." in text,
                    "line": any(f"conf.toml:{n}" in text or f"conf.yaml:{n}" in text for n in range(1, 9)),
                    "what was meant": MEANT[mistake] in text,
                }.items()
                if found
            ]
            print(
                f"{mistake:9} {tool:9} {len(lines):3} line(s); names {', '.join(said) or 'none of file, line, meaning'}"
            )
            if options.show:
                print("    " + "\n    ".join(lines))


if __name__ == "__main__":
    main()
