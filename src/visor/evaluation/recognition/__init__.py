"""Attacks on recognisers of faces, measured: who is fooled, by what, and who else."""
