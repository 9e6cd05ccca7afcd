"""The device and precision that a trial computes with, and the process-wide settings that it changes."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from torch import Tensor

from segkit.errors import UserError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
COUNTED = 0.95  # of a share of a GPU's memory: torch does not count what CUDA takes for every process
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """A device and a precision."""

    device: torch.device
    precision: str  # "float32", "bf16" or "fp16"
    text: str  # both, for the log

    @property
    def is_cuda(self) -> bool:
        """Whether copies are pinned and asynchronous."""
        return self.device.type == "cuda"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the model runs; losses stay outside it."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=AUTOCAST[self.precision])

    def scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaling of fp16; a disabled one otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def limit_memory(self, share: float) -> None:
        """Let this process take at most a share of a GPU's memory; beyond it torch raises OutOfMemoryError.

        What earlier trainings in the process have left there is given back, and does not count as taken.
        """
        if self.is_cuda:
            mine = share if share == 1 else COUNTED * share
            torch.cuda.set_per_process_memory_fraction(mine, self.device)  # first: it initializes CUDA
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def memory_taken(self) -> str:
        """Return how much of a GPU's memory this process has taken at most, as text; "" elsewhere."""
        if not self.is_cuda:
            return ""
        total = torch.cuda.get_device_properties(self.device).total_memory
        return f"{torch.cuda.max_memory_reserved(self.device) / 2**30:.1f} of {total / 2**30:.1f} GiB"


def put(array: Any, device: torch.device) -> Tensor:
    """Return a numpy array on a device; the host does not wait for the copy to a GPU."""
    made = torch.from_numpy(array)
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


@torch.inference_mode()
def fetch(*tensors: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """Begin to copy tensors to the host; return what waits for the copies, in any thread, and returns them."""
    if not tensors[0].is_cuda:
        found = tuple(tensor.cpu() for tensor in tensors)
        return lambda: found
    copies = tuple(torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in tensors)
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(tensors[0].device))

    def wait() -> tuple[Tensor, ...]:
        arrived.synchronize()
        return copies

    return wait


def choose(device: str, precision: str) -> Device:
    """Return the device and precision for `train.device` and `train.precision` of a recipe.

    Raises:
        UserError: the machine does not have what was asked for.
    """
    chosen = _device(device)
    computed = _precision(chosen, precision)
    if chosen.type == "cuda":
        os.environ.setdefault(WORKSPACE, ":4096:8")  # deterministic; torch reads it once, at the first product
    return Device(chosen, computed, f"{_describe(chosen)}; precision {computed}")


def memory(device: str) -> int | None:
    """Return the bytes of a CUDA device, used or not; None for any other device, and for one that is not there."""
    try:
        chosen = _device(device)
    except UserError:
        return None
    return int(torch.cuda.get_device_properties(chosen).total_memory) if chosen.type == "cuda" else None


def choose_for_checkpoint(device: str, precision: str, requested: str | None) -> Device:
    """Return the device for a trained model: the requested one, else the one it was trained on, else "auto".

    Raises:
        UserError: the machine does not have the requested device.
    """
    with contextlib.suppress(UserError):
        return choose(requested or device, precision)
    try:
        return choose(requested or "auto", "auto")
    except UserError as error:
        raise UserError(str(error).replace("train.device", "device")) from None


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        known = '"auto", "cpu", "mps", "cuda" or "cuda:N"'
        raise UserError(f'train.device: must be {known}, got "{name}".') from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"train.device: '{name}' is not available: torch sees {count} CUDA devices. Use \"auto\".")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("train.device: 'mps' is not available. Use \"auto\".")
    return device


def _precision(device: torch.device, name: str) -> str:
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        return "bf16" if device.type == "cuda" and has_bf16 else "float32"
    if name == "bf16" and not has_bf16:
        raise UserError('train.precision: this CUDA device does not compute in bf16. Use "fp16" or "float32".')
    if name == "fp16" and device.type == "cpu":
        raise UserError('train.precision: "fp16" needs a GPU, and the device is cpu. Use "auto", "bf16" or "float32".')
    return name


def _describe(device: torch.device) -> str:
    """Describe a device; of a CPU also why "auto" may have chosen it."""
    if device.type == "cuda":
        return f"device {device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu" and not torch.cuda.is_available() and not torch.backends.mps.is_available():
        return "device cpu (torch sees no CUDA device and no MPS)"
    return f"device {device}"


def hardware_name(device: torch.device) -> str:
    """Return the model of the GPU or CPU, for reports."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Use `count` CPU threads in torch within the block; their number changes the last bits of sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def preserved_process_state(count: int) -> Iterator[None]:
    """Use `count` CPU threads, and restore threads, determinism and random state of the process after the block."""
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    opencv, gpus = cv2.getNumThreads(), range(torch.cuda.device_count() if begun else 0)
    with cpu_threads(count), restored_determinism(), torch.random.fork_rng(gpus):
        try:
            cv2.setNumThreads(0)  # its threads cost more than they save on images of this size
            yield
        finally:
            cv2.setNumThreads(opencv)


@contextlib.contextmanager
def restored_determinism(wanted: bool = False) -> Iterator[None]:
    """Restore after the block which operations torch allows; within it only deterministic ones, if they are wanted."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        if wanted:
            use_deterministic_algorithms()
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark


def use_deterministic_algorithms() -> None:
    """Allow only deterministic operations until `restored_determinism` ends; torch names any other that runs."""
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
