"""Adversarial perturbations: an attack of ``registry.py`` maximises a loss of ``losses/``, saved by ``quantise.py``."""
