"""Adversarial perturbations: one search (pgd.py) for what objectives.py says, saved by eight_bit.py."""
