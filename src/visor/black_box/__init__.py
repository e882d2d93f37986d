"""Face comparison as a black box: a range on this machine to practise on, and clients for services elsewhere.

The range is ``service.py`` (HTTP; ``serving.py`` runs it), ``ledger.py`` (keys, budgets, rates), ``matching.py`` (what
it sees in pictures) and ``calibration.py`` (its threshold); it takes networks as functions. A client is one file that
ends in ``connect(…) -> Service``, chosen by ``services.py``; ``memory.py`` keeps its answers, ``transfer.py`` asks it
about clean and attacked photos, which ``albums.py`` finds.
"""
