"""Joint Bayesian verification (Chen et al., Bayesian Face Revisited: A Joint Formulation, ECCV 2012).

A face is x = μ + ε, identity plus variation, both Gaussian: cov(x) = between + within. The score of a pair is
the log-likelihood ratio of one identity against two.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh

from visor.core.types import Floats, Labels

TOLERANCE = 1e-10  # of the largest variance: directions below it are rounding errors


class JointBayesian(NamedTuple):
    """``mean`` (d,); ``projection`` (d, k) maps within to the unit matrix and between to diag(``ratios``) (k,)."""

    mean: Floats
    projection: Floats
    ratios: Floats


def fit(features: Floats, labels: Labels, components: int, iterations: int) -> JointBayesian:
    """Fit both covariances to features (n, d) with labels (n,) by expectation maximisation.

    The features are reduced to ``components`` principal components and whitened first, so units do not matter.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    variances, axes = eigh(centred.T @ centred / len(centred))
    largest = np.flatnonzero(variances > TOLERANCE * variances[-1])[-components:]
    whitening = axes[:, largest] / np.sqrt(variances[largest])
    between, within = expectation_maximisation(centred @ whitening, labels, iterations)
    ratios, vectors = eigh(between, within)
    return JointBayesian(mean, whitening @ vectors, np.maximum(ratios, 0))


def expectation_maximisation(centred: Floats, labels: Labels, iterations: int) -> tuple[Floats, Floats]:
    """Return (between, within), each (k, k), of centred features (n, k).

    E-step: eq. 8 of the paper, grouped by the number of images m of an identity: the mean of μ given them is
    between (m between + within)⁻¹ Σx. M-step: exact; the paper's omits the posterior covariance of μ, which
    matters for few images.
    """
    names, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(names), centred.shape[1]))
    np.add.at(sums, codes, centred)
    scatter = centred.T @ centred
    between = (sums / counts[:, None]).T @ (sums / counts[:, None]) / len(names)
    within = scatter / len(centred)
    for _ in range(iterations):
        moment, noise = np.zeros_like(between), scatter.copy()
        for count in np.unique(counts):
            group = sums[counts == count]
            gain = between @ np.linalg.inv(count * between + within)
            means = group @ gain.T
            second = means.T @ means + len(group) * gain @ within
            cross = means.T @ group
            moment += second
            noise += count * second - cross - cross.T
        between, within = moment / len(names), noise / len(centred)
    return between, within


def log_likelihood_ratio(model: JointBayesian, a: Floats, b: Floats) -> Floats:
    """Return log p(pair | same) − log p(pair | different) of two arrays of features (n, d): (n,), high = same person.

    Eq. 4 of the paper with its constants. In the projected space a pair's sum and difference are independent.
    """
    first, second = ((x - model.mean) @ model.projection for x in (a, b))
    total, difference = (first + second) ** 2 / 2, (first - second) ** 2 / 2
    different = 1 + model.ratios  # variance of sum and difference when identities differ
    same = different + model.ratios  # of the sum when they are one; that of the difference is 1
    constant = np.log(different**2 / same).sum()
    return 0.5 * (constant + total @ (1 / different - 1 / same) + difference @ (1 / different - 1))
