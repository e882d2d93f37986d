"""Attacks: backdoors that are planted in training sets, and evasion at test time."""
