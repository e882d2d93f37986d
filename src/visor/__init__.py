"""Visor attacks and defends face models in one reproducible pipeline.

As a library it attacks Keras models, plants backdoors in arrays and scores images with input filters
(docs/api.md). The names below load their packages, and TensorFlow, when they are first used.

The layers: a package imports from lines below its own. ``stages/`` stands on top and alone knows where artifacts are.
docs/architecture.md says what is in a package.

    cli
    app, report
    photos, services, suspect
    evaluation
    defences
    attacks
    models
    data
    tracking
    core
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visor.attacks.backdoors.api import apply_trigger, poison
    from visor.attacks.evasion.api import AttackOptions, attack_classifier, attack_detector, attack_recogniser
    from visor.core.errors import UserError
    from visor.defences.api import fit_input_filter
    from visor.models.api import build_network, load_detector, load_network

    __version__: str

__all__ = [
    "AttackOptions",
    "UserError",
    "__version__",
    "apply_trigger",
    "attack_classifier",
    "attack_detector",
    "attack_recogniser",
    "build_network",
    "fit_input_filter",
    "load_detector",
    "load_network",
    "poison",
]

MODULES = {
    "AttackOptions": "visor.attacks.evasion.api",
    "UserError": "visor.core.errors",
    "apply_trigger": "visor.attacks.backdoors.api",
    "attack_classifier": "visor.attacks.evasion.api",
    "attack_detector": "visor.attacks.evasion.api",
    "attack_recogniser": "visor.attacks.evasion.api",
    "build_network": "visor.models.api",
    "fit_input_filter": "visor.defences.api",
    "load_detector": "visor.models.api",
    "load_network": "visor.models.api",
    "poison": "visor.attacks.backdoors.api",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        if name == "__version__":
            from importlib.metadata import version

            return version("visor")
        if name not in MODULES:
            raise AttributeError(f"module 'visor' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(MODULES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
