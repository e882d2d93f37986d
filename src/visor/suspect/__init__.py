"""Untrusted networks and images: an image gets the network's class, or is flagged as poisoned.

Networks and data come in the formats of the CSAW-HackML-2020 contest; no file can execute code.
"""
