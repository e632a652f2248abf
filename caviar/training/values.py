"""What a model of the user's own keeps, taken apart into arrays and text, and put together again to the same bits."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from caviar.errors import TrainableError

#: What safetensors holds as it is; others lie in it as bytes.
_KEPT_AS_IT_IS = frozenset("biuf")
_WIDEST = 8
_TENSORS_KEPT = frozenset(
    ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")  # as NumPy has them
)
#: What is no array of a value is an array of this name beside them.
LAYOUT = "numbers and texts"
_TAKEN = ("__metadata__", LAYOUT)
_KINDS = "tensors, arrays, numbers, texts and bytes in dicts, lists and tuples"


def pack(value: Any, what: str) -> tuple[dict[str, np.ndarray], str]:
    """Take a value apart: the arrays in it, which are copies, by where they are, and how all hangs together, as JSON.

    Args:
        value: tensors of PyTorch, arrays, numbers, texts, bytes and None, in dicts, lists and tuples. Of subclasses of
            these, the plain class is kept; so are other arrays, as those of JAX, as NumPy's.
        what: gave it, for messages.

    Raises:
        TrainableError: there is something else in it.
    """
    packer = _Packer(what)
    try:
        return packer.arrays, json.dumps(packer.node(value, ()))
    except RecursionError:
        raise TrainableError(f"expected {what} to give {_KINDS}, found one within itself") from None


def unpack(arrays: Mapping[str, np.ndarray], layout: str) -> Any:
    """Return what `pack` took apart; the arrays in it are the caller's own.

    Raises:
        KeyError, TypeError, ValueError: they do not belong together.
        ImportError: it holds tensors, and PyTorch is not installed.
    """
    return _value(json.loads(layout), arrays)


class _Packer:
    def __init__(self, what: str) -> None:
        self._what = what
        self.arrays: dict[str, np.ndarray] = {}

    def node(self, value: Any, path: tuple[str, ...]) -> Any:
        """Return a value as JSON; an array in it by its name."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, np.ndarray):
            return self._array("array", value, path)
        if isinstance(value, str):
            return str(value)
        if isinstance(value, np.generic):
            return self._array("scalar", np.asarray(value), path)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value)
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, bytes | bytearray):
            return {"bytes": self._add(np.frombuffer(bytes(value), np.uint8), path)}
        if isinstance(value, dict):
            pairs = [
                [self.node(key, (*path, "key")), self.node(each, (*path, str(key)))] for key, each in value.items()
            ]
            return {"dict": pairs}
        if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [self.node(each, (*path, str(index))) for index, each in enumerate(value)]}
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            return self._tensor(torch, value, path)
        if all(hasattr(value, name) for name in ("__array__", "dtype", "shape")) and not hasattr(value, "iloc"):
            return self._array("array", self._as_array(value, path), path)
        raise self._refusal(value, path)

    def _array(self, kind: str, array: np.ndarray, path: tuple[str, ...]) -> dict[str, Any]:
        dtype = array.dtype
        if dtype.hasobject or dtype.fields is not None or isinstance(array, np.ma.MaskedArray):
            raise self._refusal(array, path)
        if dtype.kind in _KEPT_AS_IT_IS and dtype.itemsize <= _WIDEST and dtype.isnative:
            return {kind: self._add(array, path)}
        name = dtype.name if dtype.kind == "V" else dtype.str  # V: of ml_dtypes, as bfloat16
        raw = np.frombuffer(array.tobytes(), np.uint8)
        return {kind: self._add(raw, path), "dtype": name, "shape": array.shape}

    def _tensor(self, torch: Any, tensor: Any, path: tuple[str, ...]) -> dict[str, Any]:
        try:
            here = tensor.detach().cpu().resolve_conj().resolve_neg()
            if str(here.dtype).removeprefix("torch.") in _TENSORS_KEPT:
                return {"tensor": self._add(here.numpy(), path)}
            raw = here.contiguous().reshape(-1).view(torch.uint8).numpy() if here.numel() else np.zeros(0, np.uint8)
            kind = {"dtype": str(here.dtype).removeprefix("torch."), "shape": list(here.shape)}
            return {"tensor": self._add(raw, path), **kind}
        except (RuntimeError, TypeError, NotImplementedError):  # sparse, or quantized
            raise self._refusal(tensor, path) from None

    def _as_array(self, value: Any, path: tuple[str, ...]) -> np.ndarray:
        try:
            return np.asarray(value)
        except Exception:  # noqa: BLE001 - whatever a library raises of what is no array
            raise self._refusal(value, path) from None

    def _add(self, array: np.ndarray, path: tuple[str, ...]) -> str:
        place = (".".join(path) or "all").encode(errors="backslashreplace").decode()
        name, n = place, 1
        while name in self.arrays or name in _TAKEN:
            n += 1
            name = f"{place} ({n})"
        self.arrays[name] = np.array(array, order="C")  # the model goes on to change its own
        return name

    def _refusal(self, value: Any, path: tuple[str, ...]) -> TrainableError:
        where = f" at {'.'.join(path)!r:.80}" if path else ""
        hint = "; of a pytree give jax.tree.leaves(...)" if hasattr(value, "_fields") else ""
        if type(value).__name__ == "PRNGKeyArray":
            hint = "; give jax.random.key_data(...), and take it back with wrap_key_data"
        return TrainableError(f"expected {self._what} to give {_KINDS}, found {type(value).__name__}{where}{hint}")


def _value(node: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(node, dict):
        return node
    kind, inner = next(iter(node.items()))
    if kind == "dict":
        return {_value(key, arrays): _value(each, arrays) for key, each in inner}
    if kind in ("list", "tuple"):
        found = [_value(each, arrays) for each in inner]
        return found if kind == "list" else tuple(found)
    if kind == "complex":
        return complex(*inner)
    array = np.array(arrays[inner])
    if kind == "bytes":
        return array.tobytes()
    if kind == "tensor":
        torch = import_module("torch")  # which whoever kept it had imported, too
        tensor = torch.from_numpy(array)
        if "dtype" not in node:
            return tensor
        dtype = getattr(torch, node["dtype"])
        return tensor.view(dtype).reshape(node["shape"]) if len(array) else torch.empty(node["shape"], dtype=dtype)
    if "dtype" in node:
        array = np.frombuffer(array.tobytes(), _dtype(node["dtype"])).reshape(node["shape"]).copy()
    return array[()] if kind == "scalar" else array


def _dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        import_module("ml_dtypes")  # whose types have names once it is imported
        return np.dtype(name)
