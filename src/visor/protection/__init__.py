"""People's own photos: find the faces in them, and hide those from a detector.

``photos.py`` reads and writes the files, ``choice.py`` opens the detector, ``hiding.py`` searches for the perturbation,
``album.py`` goes through a whole collection.
"""
