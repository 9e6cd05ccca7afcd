"""The compiled model: once an architecture in a process, whatever the number of trials."""

from __future__ import annotations

from torch import nn

from segkit.types import Forward

PROGRAMS = 64  # of one function, which torch keeps; it runs further ones uncompiled, and says nothing
ARCHITECTURES = 16  # that are kept, each in a program for every size of a batch

_kept: set[str] = set()


def compiled(model: nn.Module) -> tuple[Forward, str]:
    """Return the compiled model, and whether its first step compiles it, in words.

    Its graph may be differentiated several times, as on a first batch it is.

    A model that is built like an earlier one of this process needs no compilation of its own; across processes torch
    keeps what takes longest in a folder (TORCHINDUCTOR_CACHE_DIR). Every size of a batch has a program of its own, so
    that what is computed does not depend on what this process compiled before.
    """
    import torch._dynamo
    from torch._functorch import config

    config.donated_buffer = False  # else torch refuses that of a graph which its cache has from a later batch
    torch._dynamo.config.recompile_limit = PROGRAMS
    architecture = f"{model} {[tuple(weight.shape) for weight in model.parameters()]}"
    known = architecture in _kept
    if not known and len(_kept) == ARCHITECTURES:
        torch.compiler.reset()
        _kept.clear()
    _kept.add(architecture)
    return torch.compile(model, dynamic=False), "its network known from an earlier trial" if known else "with compiling"
