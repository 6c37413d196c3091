"""A device that exists on paper: its tensors are in host memory, and every read by the host is recorded."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

NAME = "lazy:0"
TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "adaptivefreeze"

aten = torch.ops.aten
READS = {aten._local_scalar_dense, aten.nonzero, aten.equal, aten.is_nonzero, aten.masked_select}
TRANSFERS = {aten._to_copy, aten.copy_}


class DeviceTensor(torch.Tensor):
    """A tensor on the device."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> DeviceTensor:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), dtype=values.dtype, device=NAME
        )
        tensor.values = values
        return tensor

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({self.values!r})"

    def data_ptr(self) -> int:
        return self.values.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of a SimulatedDevice")


class SimulatedDevice(TorchDispatchMode):
    """Runs the operations on the device.

    Attributes:
        reads: The operations by which this package made the host wait for the device, each with its place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[str, str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        found: list[torch.Tensor] = []
        tree_map(lambda v: found.append(v) if isinstance(v, torch.Tensor) else None, (args, kwargs))
        on_device = [isinstance(t, DeviceTensor) for t in found]
        packet = func.overloadpacket
        target = kwargs.get("device")
        if packet in TRANSFERS:
            to_device = torch.device(target).type == "lazy" if target is not None else on_device[0]
            if any(on_device) and not to_device:
                self._record(func)
        else:
            mixed = [t for t, there in zip(found, on_device, strict=True) if any(on_device) and not there and t.dim()]
            if mixed and packet not in {aten.index, aten._index_put_impl_, aten.index_put_}:
                raise AssertionError(f"{func} mixes devices")
            if mixed or (any(on_device) and packet in READS):
                self._record(func)
            to_device = any(on_device) or (target is not None and torch.device(target).type == "lazy")
        if target is not None and torch.device(target).type == "lazy":
            kwargs["device"] = torch.device("cpu")
        plain = tree_map(lambda v: v.values if isinstance(v, DeviceTensor) else v, (args, kwargs))
        result = func(*plain[0], **plain[1])
        if args and func._schema.name.endswith("_") and result is plain[0][0]:
            return args[0]
        return tree_map(lambda v: DeviceTensor(v) if isinstance(v, torch.Tensor) and to_device else v, result)

    def _record(self, func: Any) -> None:
        """Record a read, unless the code of the model or of the test asked for it."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if PACKAGE in path.parents:
                self.reads.append((str(func), f"{path.relative_to(PACKAGE)}:{frame.f_lineno}"))
                return
            if "transformers" in path.parts or path.parent.parent == TESTS:
                return
            frame = frame.f_back


def put_on_device(model: nn.Module) -> nn.Module:
    """Move all parameters and buffers of `model` to the device."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = nn.Parameter(DeviceTensor(parameter.detach()))
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = DeviceTensor(buffer)
    return model
