"""The judge of suspect networks: it labels images from outside, or says that they are poisoned.

Networks, data and pictures come from strangers in the formats of the CSAW-HackML-2020 contest; no file can make
anything run.
"""
