"""The privacy app: protects uploaded photos in the memory of one process and writes them to no file.

``settings.py`` holds levels and limits, ``uploads.py`` decodes files, ``networks.py`` loads the networks and finds
faces, ``protect.py`` processes one photo, ``job_queue.py`` queues them. Streamlit draws ``page.py`` for each
``session.py``; ``server.py`` serves it.
"""
