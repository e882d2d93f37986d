"""Fine detail of the residual: noise that the camera did not make.

The keys of input-instance attacks carry noise, and so do blended patterns that are noise.
"""

from visor.defences.details import typical_detail
from visor.defences.evidence import Evidence, Score
from visor.defences.residuals import residual
from visor.models.inference import compiled


def prepare(evidence: Evidence) -> Score:
    """Return the median magnitude of the residual's fine detail, in [0, 1]."""
    run = compiled(evidence.autoencoder)
    return lambda images: typical_detail(residual(run, images))
