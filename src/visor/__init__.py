"""Visor attacks and defends face models in one reproducible pipeline.

The layers: a package imports from lines below its own. ``stages/`` stands on top and alone knows where artifacts are.
docs/architecture.md says what is in a package.

    cli
    app, report
    photos, services, suspect
    evaluation
    defences
    attacks
    models
    data
    tracking, server
    core
"""
