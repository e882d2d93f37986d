"""Defences: filters of inputs and of training sets, and methods that inspect a trained network."""
