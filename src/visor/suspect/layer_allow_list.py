"""The allow-list: layers that a stranger's network may have, and a check for every value that reaches one.

Whatever would change what a network computes and is not on the list refuses the file. Initialisers, regularisers and
the like leave no trace in a trained network.
"""

from collections.abc import Callable, Mapping
from typing import Any

MAX_WHOLE, MAX_NUMBER = 1 << 20, 1e30
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16"})
# Not hard_sigmoid: it is one function in Keras 2 and another in Keras 3.
ACTIVATIONS = frozenset("linear relu relu6 softmax sigmoid tanh elu selu softplus softsign silu swish gelu".split())  # noqa: SIM905


def check_int(value: Any) -> int:
    """Check a whole number."""
    if type(value) is not int or not -MAX_WHOLE <= value <= MAX_WHOLE:
        raise ValueError(f"{value!r:.60} is no whole number up to {MAX_WHOLE:,}")
    return value


def check_float(value: Any) -> float:
    """Check a number that float32 holds."""
    if type(value) not in (int, float) or not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise ValueError(f"{value!r:.60} is no number")
    return float(value)


def check_optional_float(value: Any) -> float | None:
    """Check a finite number, or none."""
    return None if value is None else check_float(value)


def check_bool(value: Any) -> bool:
    """Check a truth value."""
    if type(value) is not bool:
        raise ValueError(f"{value!r:.60} is neither true nor false")
    return value


def check_ints(value: Any) -> Any:
    """Check a whole number or up to 4 of them, nested as in paddings."""
    if isinstance(value, list) and 0 < len(value) <= 4:
        return tuple(check_ints(item) for item in value)
    return check_int(value)


def check_optional_ints(value: Any) -> Any:
    """Check whole numbers, or none."""
    return None if value is None else check_ints(value)


def axis(value: Any) -> int:
    """Check an axis; Keras 2 wraps it in a list."""
    return check_int(value[0] if isinstance(value, list) and len(value) == 1 else value)


def padding(value: Any) -> str:
    """Check a way of padding."""
    if value not in ("valid", "same"):
        raise ValueError(f"{value!r:.60} is neither 'valid' nor 'same'")
    return str(value)


def channels_last(value: Any) -> str:
    """Check the order of axes."""
    if value not in (None, "channels_last"):
        raise ValueError(f"{value!r:.60} is not channels_last")
    return "channels_last"


def floats(value: Any) -> str:
    """Check the type that a layer computes in, plain or as Keras wraps it: a quantised layer is another function."""
    if isinstance(value, Mapping) and value.get("class_name") in ("DTypePolicy", "FloatDTypePolicy", "Policy"):
        value = value["config"]["name"]
    if value is not None and (type(value) is not str or value not in FLOATS):
        raise ValueError(f"type {value!r:.60} is none of {', '.join(sorted(FLOATS))}")
    return value or "float32"


def activation(value: Any) -> str:
    """Check the name of an activation, plain or as Keras 3.0 wraps it."""
    if isinstance(value, Mapping) and value.get("module") in ("builtins", "keras.activations"):
        value = value.get("config")
    if type(value) is not str or value not in ACTIVATIONS:
        raise ValueError(f"{value!r:.60} is none of {', '.join(sorted(ACTIVATIONS))}")
    return str(value)


Checks = Mapping[str, Callable[[Any], Any]]
POOL: Checks = {
    "pool_size": check_ints,
    "strides": check_optional_ints,
    "padding": padding,
    "data_format": channels_last,
}
GLOBAL: Checks = {"data_format": channels_last, "keepdims": check_bool}
DENSE: Checks = {"units": check_int, "activation": activation, "use_bias": check_bool}
WINDOW: Checks = {"kernel_size": check_ints, "strides": check_ints, "dilation_rate": check_ints, "groups": check_int}
CONVOLUTION: Checks = {
    "padding": padding,
    "data_format": channels_last,
    "activation": activation,
    "use_bias": check_bool,
}
ALLOWED_LAYERS: Mapping[str, Checks] = {
    "Activation": {"activation": activation},
    "Add": {},
    "Average": {},
    "AveragePooling2D": POOL,
    "BatchNormalization": {"axis": axis, "epsilon": check_float, "center": check_bool, "scale": check_bool},
    "Concatenate": {"axis": axis},
    "Conv2D": {"filters": check_int, **WINDOW, **CONVOLUTION},
    "Dense": DENSE,
    "Dropout": {"rate": check_float},
    "Flatten": {"data_format": channels_last},
    "GlobalAveragePooling2D": GLOBAL,
    "GlobalMaxPooling2D": GLOBAL,
    "InputLayer": {},
    "MaxPooling2D": POOL,
    "Maximum": {},
    "Multiply": {},
    "ReLU": {"max_value": check_optional_float, "negative_slope": check_float, "threshold": check_float},
    "Rescaling": {"scale": check_float, "offset": check_float},
    "Reshape": {"target_shape": check_ints},
    "Softmax": {"axis": axis},
    "ZeroPadding2D": {"padding": check_ints, "data_format": channels_last},
}
IGNORED_KEYS = {"name", "trainable", "batch_input_shape", "batch_shape", "momentum", "renorm_momentum", "seed"}
IGNORED_SUFFIXES = ("_initializer", "_regularizer", "_constraint")
