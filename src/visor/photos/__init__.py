"""People's own photos: find the faces in them, hide those from a detector, or fool a recogniser with them.

``photos.py`` reads and writes the files, ``choice.py`` opens detectors and recognisers. ``hiding.py`` searches for the
perturbation that hides, ``album.py`` goes through a whole collection, ``near_faces.py`` hides
single faces by the pixels around them. ``face_finding.py`` finds faces whichever way up,
``face_choice.py`` says which are meant, ``recognising.py`` who they are; ``fooling.py`` searches for the perturbation
that fools, ``fooled_photos.py`` goes through a whole collection.
"""
