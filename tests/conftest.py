"""How the tests run: on every core, one thread each; what takes longest only when it is asked for."""

from __future__ import annotations

import os

import pytest

# before torch is imported; workers and subprocesses inherit it: threads of several processes only wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # those of a trial that is to have several


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run a single file in this process, which is quicker than starting workers; None is a worker a core."""
    named = [config.invocation_params.dir / argument.partition("::")[0] for argument in config.args]
    return 0 if len(named) == 1 and named[0].is_file() else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out transforms that take seconds each time they are tried."""
    for item in items:
        if any(name in item.name for name in ("PiecewiseAffine", "Superpixels")):
            item.add_marker(pytest.mark.slow)
