"""The run report: one self-contained HTML page in which every number is taken from ``metrics/``.

``inputs`` reads the files, one module per section makes tables and figures of them, ``page`` puts these together.
"""
