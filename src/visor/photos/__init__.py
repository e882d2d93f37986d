"""People's own photos, for the command line and the app alike.

``files.py`` collects, reads and writes them; ``faces.py`` finds faces; ``networks.py`` opens detectors and recognisers.
``hide.py`` hides faces from a detector, ``evade.py`` evades a recogniser, both with ``restarts.py``;
``identify.py`` recognises people, ``outcome.py`` holds each network's result for a face, before and after.
"""
