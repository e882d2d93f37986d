"""Visor attacks and defends face models in one reproducible pipeline.

The layers, imports pointing down only:

    stages/, cli                                       scripts and commands; stages alone know artifact paths
    evaluation                                         joins model, attack and defence into named numbers
    training | defences                                fit a model; score images, high = suspicious
    datasets | backdoors | models                      one file each; registries in their ``__init__``
    config | faces | images | metrics | rendering | tracking | gates
    errors, files                                      what a user's mistake says; files whole or absent
"""

import os

# TensorFlow reads these once, when it is first imported. The oneDNN setting is pinned because the bytes of
# trained weights depend on it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
