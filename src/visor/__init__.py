"""Visor attacks and defends face models in one reproducible pipeline.

The layers: a room imports from lines below its own. ``stages/`` stands on top and alone knows the paths of artifacts.
docs/architecture.md says what is in a room.

    cli
    app, report
    evaluation
    adaptation, black_box, inspection, judge, protection
    defences, detectors, people, recognisers, training
    backdoors, datasets, evasion, landmarks, models, sanitisation, split
    archives, boxes, config, crops, fetch, gates, images, joint_bayesian, metrics, quiet, rendering, tracking
    hdf5, params
    scenes
    faces
    files
    stage
    errors
"""
