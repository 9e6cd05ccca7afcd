"""The command line: the only part that prints or exits."""

from __future__ import annotations

import atexit
import errno
import importlib
import io
import re
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from segkit import interrupts

app = typer.Typer(
    name="segkit",
    help="Medical image segmentation, trained from recipes, extended by plugins.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DONE, TRIAL_FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, interrupts.EXIT_STATUS


# regular expressions of the option parser's messages, and their replacements
REWORDED = {
    r"Input should be a valid integer.*": "must be a whole number",
    r"(?<=: )'.*' is not a valid int.*": "must be a whole number",
    r"Input should be greater than or equal to (\d+).*": r"must be \1 or more",
    r"(?<=: ).* is not in the range x>=(\d+)\.?": r"must be \1 or more",
}


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # takes a while to import

        echo(f"segkit {version('segkit')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Show the help if no command is given; `version` is handled by its callback."""
    if context.invoked_subcommand is None:
        echo(context.get_help(), err=True)
        raise typer.Exit(WRONG_INPUT)


def main() -> None:
    """Run the command line; mistakes of the user end in one message and exit status 2, never a traceback."""
    interrupts.exit_immediately()
    for module in ("run", "checkpoint", "predict", "inspect", "check", "new"):
        importlib.import_module(f"segkit.cli.{module}")
    from segkit.errors import UserError, sentence

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal's encoding may be limited
    try:
        interrupts.raise_interrupt()
        status: Any = app(standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # the reader of the output is gone (`segkit list | head`)
        sys.stderr.close()
        sys.exit(DONE)
    except RecursionError:
        fail("the input is nested too deeply.")
    except OSError as error:  # outside a trial
        place = f"{error.filename}: " if error.filename else "output: " if error.errno == errno.ENOSPC else ""
        fail(f"{place}{sentence(error.strerror or error)}")
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        fail(_usage(error))
    finally:
        atexit.register(interrupts.ignore)  # registered last, so it runs first
    sys.exit(status if isinstance(status, int) else DONE)


def _usage(error: Any) -> str:
    """Return the message about wrong options of a command, and how to list them."""
    from segkit.errors import sentence

    context = getattr(error, "ctx", None)
    command = f"segkit {context.info_name}" if context and context.parent else "segkit"
    text = str(error.format_message())
    for pattern, replacement in REWORDED.items():
        text = re.sub(pattern, replacement, text)
    return f"{sentence(text)} See `{command} --help`."


def echo(text: object = "", *, err: bool = False) -> None:
    """Print a text with control characters escaped, to standard error if `err`; commands print by nothing else."""
    from segkit.errors import printable

    print(printable(str(text)), file=sys.stderr if err else sys.stdout, flush=True)


def warn(lines: Iterable[str]) -> None:
    """Print warnings to standard error, each once: several recipes may have one in common."""
    for line in dict.fromkeys(lines):
        echo(f"warning: {line}", err=True)


def fail(message: str) -> None:
    """Print an error message to standard error and exit."""
    for line in message.splitlines():
        echo(line if line.startswith(" ") else f"error: {line}", err=True)
    sys.exit(WRONG_INPUT)
