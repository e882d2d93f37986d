"""Readers of strangers' files, fuzzed: each returns something valid or refuses in one sentence."""
