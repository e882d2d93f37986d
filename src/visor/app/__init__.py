"""The privacy app: photos in, protected photos out, in the memory of one process and nowhere else.

``limits.py`` says how much, ``uploads.py`` reads strangers' files, ``onlookers.py`` opens the networks, ``faces.py``
finds faces, ``levels.py`` is the slider. ``protecting.py`` works on one photo: ``searching.py`` changes it,
``verdicts.py`` says who still sees what. ``desk.py`` is the queue, ``jobs.py`` what lies in it. None of these imports
Streamlit.
"""
