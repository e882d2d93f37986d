"""Joins model, attack and defence into named numbers and pictures."""
