"""The run report: one self-contained HTML page that says what a run showed, every number taken from ``metrics/``.

``reading`` reads what the page needs, one file a job turns it into tables and figures, ``page`` puts them together.
"""
