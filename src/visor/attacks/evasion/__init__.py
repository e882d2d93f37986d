"""Adversarial perturbations: searches.py find what goals.py or objectives.py say, saved by eight_bit.py."""
