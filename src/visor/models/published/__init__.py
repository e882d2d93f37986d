"""Published networks: a catalogue, a cache that is checked at each load, and one file for each network.

A network's file has ``build(image_shape) -> keras.Model`` and ``read_weights(files)``, the arrays of each layer, read
as plain numbers: nothing in a file is executed. A recogniser's file also has ``TEMPLATE``, where the landmarks of a
face belong in its crops (None, and ``MARGIN``, if it takes boxes), and ``SAME_PERSON``, the cosine similarity from
which two faces count as one person; a detector's file is one of ``visor.models.detectors``. Listing and fetching need
no TensorFlow.

To add a network: its row in ``assets/networks.yaml`` and, for a recogniser, one file here and its name in the registry
of ``loading.py``; for a detector what any detector needs.
"""
