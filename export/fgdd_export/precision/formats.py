"""The two low-precision number formats: how values are rounded to them and written in ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.optional_imports import import_optional
from fgdd_export.graphs.graph import EXTRA

if TYPE_CHECKING:
    import onnx

LowPrecision = Literal["fp16", "bf16"]
_BFLOAT16_BITS = 16  # what bfloat16 keeps of a float32: sign, exponent and the first 7 bits of the fraction


@dataclass(frozen=True)
class LowFormat:
    """A number format of 16 bits.

    Attributes:
        precision: its short name.
        type_name: ONNX's name of the tensor type.
    """

    precision: LowPrecision
    type_name: Literal["FLOAT16", "BFLOAT16"]

    @property
    def element_type(self) -> int:
        """ONNX's number of the tensor type."""
        onnx_: Any = import_optional("onnx", EXTRA)
        return int(onnx_.TensorProto.DataType.Value(self.type_name))

    @property
    def schema_type(self) -> str:
        """The tensor type as operator schemas spell it."""
        return f"tensor({self.type_name.lower()})"

    def round(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The nearest values that the format holds, ties to even; infinite where out of its range."""
        if self.precision == "bf16":
            return (self._bits(values).astype(np.uint32) << _BFLOAT16_BITS).view(np.float32)
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)

    def encode(self, values: NDArray[np.float32], name: str) -> onnx.TensorProto:
        """A constant in this format, of `values` rounded to it."""
        onnx_: Any = import_optional("onnx", EXTRA)
        data = self._bits(values).astype("<u2").tobytes()
        return onnx_.helper.make_tensor(name, self.element_type, values.shape, data, raw=True)  # type: ignore[no-any-return]

    def decode(self, constant: onnx.TensorProto) -> NDArray[np.float32]:
        """The values of a constant that `encode` made."""
        bits = np.frombuffer(constant.raw_data, "<u2").reshape(tuple(constant.dims))
        if self.precision == "bf16":
            return (bits.astype(np.uint32) << _BFLOAT16_BITS).view(np.float32)
        return bits.view(np.float16).astype(np.float32)

    def _bits(self, values: NDArray[np.float32]) -> NDArray[np.uint16]:
        if self.precision == "fp16":
            with np.errstate(over="ignore"):
                return values.astype(np.float16).view(np.uint16)
        wide = np.asarray(values, order="C").view(np.uint32)
        to_even = (wide >> _BFLOAT16_BITS) & 1
        bits = ((wide.astype(np.uint64) + 0x7FFF + to_even) >> _BFLOAT16_BITS).astype(np.uint16)
        return np.where(np.isnan(values), np.uint16(0x7FC0), bits)


FORMATS: dict[LowPrecision, LowFormat] = {
    "fp16": LowFormat("fp16", "FLOAT16"),
    "bf16": LowFormat("bf16", "BFLOAT16"),
}
