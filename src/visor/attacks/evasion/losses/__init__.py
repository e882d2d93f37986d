"""Losses that evasion attacks maximise, for detectors and for recognisers."""
