"""The command line: the only part that prints or exits."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer

app = typer.Typer(
    name="segkit",
    help="Medical image segmentation, trained from recipes, extended by plugins.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DONE, TRIAL_FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def main() -> None:
    """Run the command line; a mistake of the user is one message and exit status 2, never a traceback."""
    for module in ("run", "checkpoint", "inspect", "check", "new"):
        importlib.import_module(f"segkit.cli.{module}")
    from segkit.errors import UserError

    try:
        status: Any = app(standalone_mode=False)
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # the reader of our output has gone (`segkit list | head`); nothing is left to be told
        sys.stderr.close()
        sys.exit(DONE)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        show = getattr(error, "show", None)
        if show:
            show()
        sys.exit(WRONG_INPUT)
    sys.exit(status if isinstance(status, int) else DONE)


def fail(message: str) -> None:
    """Print a mistake of the user to standard error and exit."""
    for line in message.splitlines():
        print(line if line.startswith(" ") else f"error: {line}", file=sys.stderr)
    sys.exit(WRONG_INPUT)
