"""Defences, by what they look at: images, training sets, or networks."""
