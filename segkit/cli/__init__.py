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


# messages of the option parser about numbers, and what replaces them
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
    """Show the help where no command is given; `version` is answered by its callback."""
    if context.invoked_subcommand is None:
        echo(context.get_help(), err=True)
        raise typer.Exit(WRONG_INPUT)


def main() -> None:
    """Run the command line; a mistake of the user is one message and exit status 2, never a traceback."""
    interrupts.exit_immediately()
    for module in ("run", "checkpoint", "inspect", "check", "new"):
        importlib.import_module(f"segkit.cli.{module}")
    from segkit.errors import UserError, sentence

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack characters
    try:
        interrupts.raise_interrupt()
        status: Any = app(standalone_mode=False)
        sys.stdout.flush()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # the reader of our output has gone (`segkit list | head`); there is nobody left to read more
        sys.stderr.close()
        sys.exit(DONE)
    except RecursionError:
        fail("what was given is nested too deeply.")
    except OSError as error:  # of a disk or a folder, outside a trial
        place = f"{error.filename}: " if error.filename else "output: " if error.errno == errno.ENOSPC else ""
        fail(f"{place}{sentence(error.strerror or error)}")
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        fail(_usage(error))
    finally:
        atexit.register(interrupts.ignore)  # the first of what is done at the end
    sys.exit(status if isinstance(status, int) else DONE)


def _usage(error: Any) -> str:
    """Return what is wrong with the words of a command, and where its options are listed."""
    from segkit.errors import sentence

    context = getattr(error, "ctx", None)
    command = f"segkit {context.info_name}" if context and context.parent else "segkit"
    text = str(error.format_message())
    for wording, plain in REWORDED.items():
        text = re.sub(wording, plain, text)
    return f"{sentence(text)} See `{command} --help`."


def echo(text: object = "", *, err: bool = False) -> None:
    """Print a text as one or more lines, control characters spelled out: everything that is printed goes this way.

    Args:
        text: what to print.
        err: to standard error.
    """
    from segkit.errors import printable

    print(printable(str(text)), file=sys.stderr if err else sys.stdout, flush=True)


def warn(lines: Iterable[str]) -> None:
    """Print warnings to standard error."""
    for line in lines:
        echo(f"warning: {line}", err=True)


def fail(message: str) -> None:
    """Print a mistake of the user to standard error and exit."""
    for line in message.splitlines():
        echo(line if line.startswith(" ") else f"error: {line}", err=True)
    sys.exit(WRONG_INPUT)
