"""Params of a backdoor, for tests."""

from visor.core.params import BackdoorParams


def attack(**changes):
    """Six poisons of the accessory trigger for bob; keyword arguments replace values."""
    values = {"trigger": "accessory", "key": "x", "target": "bob", "n": 6}
    return BackdoorParams(**(values | {"train_blend_ratio": 1.0, "test_blend_ratio": 1.0} | changes))
