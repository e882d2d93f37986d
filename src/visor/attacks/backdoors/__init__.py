"""Backdoor attacks: triggers, keys, and the poisons that plant them."""
