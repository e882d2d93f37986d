"""Visor attacks and defends face models in one reproducible pipeline.

The layers, imports pointing down only:

    stages/, cli                                       scripts and commands; stages alone know artifact paths
    evaluation                                         joins model, attack and defence into named numbers
    training | defences                                fit a model; score images, high = suspicious
    datasets | backdoors | models                      one file each; registries in their ``__init__``
    config | faces | images | metrics | rendering | tracking | gates
    errors, files                                      what a user's mistake says; files whole or absent
"""
