"""Allow-list of the layers of an untrusted network, with a check for every value that reaches one.

A file is rejected if it holds anything that is not on the list and changes what a network computes. Initialisers,
regularisers and the like leave no trace in a trained network.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

MAX_INT, MAX_FLOAT = 1 << 20, 1e30
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16"})
# Not hard_sigmoid: it is one function in Keras 2 and another in Keras 3.
ACTIVATIONS = frozenset("linear relu relu6 softmax sigmoid tanh elu selu softplus softsign silu swish gelu".split())  # noqa: SIM905


def check_int(value: Any) -> int:
    """Return a whole number up to ``MAX_INT``, or raise ValueError, as all checks do."""
    if type(value) is not int or not -MAX_INT <= value <= MAX_INT:
        raise ValueError(f"{value!r:.60} is not a whole number up to {MAX_INT:,}")
    return value


def check_one(value: Any) -> int:
    """Return 1."""
    if type(value) is not int or value != 1:
        raise ValueError(f"{value!r:.60} is not 1")
    return value


def check_float(value: Any) -> float:
    """Return a number that float32 can hold."""
    if type(value) not in (int, float) or not -MAX_FLOAT <= value <= MAX_FLOAT:
        raise ValueError(f"{value!r:.60} is not a finite number")
    return float(value)


def check_bool(value: Any) -> bool:
    """Return True or False."""
    if type(value) is not bool:
        raise ValueError(f"{value!r:.60} is neither true nor false")
    return value


def check_ints(value: Any) -> Any:
    """Return a whole number or a tuple of up to 4, nested as in paddings."""
    if isinstance(value, list) and 0 < len(value) <= 4:
        return tuple(check_ints(item) for item in value)
    return check_int(value)


def check_axis(value: Any) -> int:
    """Return an axis; Keras 2 wraps it in a list."""
    return check_int(value[0] if isinstance(value, list) and len(value) == 1 else value)


def check_name(value: Any, allowed: Collection[str]) -> str:
    """Return one of the allowed names."""
    if type(value) is not str or value not in allowed:
        raise ValueError(f"{value!r:.60} is none of {', '.join(sorted(allowed))}")
    return value


def check_dtype(value: Any) -> str:
    """Return the type a layer computes in, plain or as Keras wraps it; a quantised layer is another function."""
    if isinstance(value, Mapping) and value.get("class_name") in ("DTypePolicy", "FloatDTypePolicy", "Policy"):
        value = value["config"]["name"]
    return check_name("float32" if value is None else value, FLOATS)


def check_activation(value: Any) -> str:
    """Return the name of an activation, plain or as Keras 3.0 wraps it."""
    if isinstance(value, Mapping) and value.get("module") in ("builtins", "keras.activations"):
        value = value.get("config")
    return check_name(value, ACTIVATIONS)


def check_data_format(value: Any) -> str:
    """Return the order of axes, which must be channels last."""
    return check_name("channels_last" if value is None else value, ["channels_last"])


def _optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


Checks = Mapping[str, Callable[[Any], Any]]
FORMAT: Checks = {"data_format": check_data_format}
PADDING: Checks = {"padding": partial(check_name, allowed=("valid", "same")), **FORMAT}
POOL: Checks = {"pool_size": check_ints, "strides": _optional(check_ints), **PADDING}
GLOBAL: Checks = {"keepdims": check_bool, **FORMAT}
DENSE: Checks = {"activation": check_activation, "use_bias": check_bool}
WINDOW: Checks = {"kernel_size": check_ints, "strides": check_ints, "dilation_rate": check_ints, "groups": check_int}
ALLOWED_LAYERS: Mapping[str, Checks] = {
    "Activation": {"activation": check_activation},
    "Add": {},
    "Average": {},
    "AveragePooling2D": POOL,
    "BatchNormalization": {"axis": check_axis, "epsilon": check_float, "center": check_bool, "scale": check_bool},
    "Concatenate": {"axis": check_axis},
    "Conv2D": {"filters": check_int, **WINDOW, **PADDING, **DENSE},
    "Conv2DTranspose": {
        "filters": check_int,
        "output_padding": _optional(check_ints),
        **WINDOW,
        "groups": check_one,
        **PADDING,
        **DENSE,
    },
    "Cropping2D": {"cropping": check_ints, **FORMAT},
    "Dense": {"units": check_int, **DENSE},
    "Dropout": {"rate": check_float},
    "Flatten": FORMAT,
    "GlobalAveragePooling2D": GLOBAL,
    "GlobalMaxPooling2D": GLOBAL,
    "InputLayer": {},
    "LeakyReLU": {"alpha": check_float, "negative_slope": check_float},  # the first is Keras 2's name
    "MaxPooling2D": POOL,
    "Maximum": {},
    "Multiply": {},
    "ReLU": {"max_value": _optional(check_float), "negative_slope": check_float, "threshold": check_float},
    "Rescaling": {"scale": check_float, "offset": check_float},
    "Reshape": {"target_shape": check_ints},
    "Softmax": {"axis": check_axis},
    "UpSampling2D": {
        "size": check_ints,
        "interpolation": partial(check_name, allowed=("nearest", "bilinear")),
        **FORMAT,
    },
    "ZeroPadding2D": {"padding": check_ints, **FORMAT},
}
CHECKED_ONLY = {"Conv2DTranspose": ("dtype", "groups")}  # arguments that Keras 3 is not given; of other layers: dtype
IGNORED_KEYS = {"name", "trainable", "batch_input_shape", "batch_shape", "momentum", "renorm_momentum", "seed"}
IGNORED_SUFFIXES = ("_initializer", "_regularizer", "_constraint")
