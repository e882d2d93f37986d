"""Joint Bayesian verification (Chen et al., Bayesian Face Revisited: A Joint Formulation, ECCV 2012).

A face is x = μ + ε, identity plus variation, both Gaussian: cov(x) = between + within. The score of a pair is
the log-likelihood ratio of one identity against two.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh

from visor.core.types import Floats, Labels

TOLERANCE = 1e-10  # of the largest variance: directions below it are noise of the arithmetic


class JointBayesian(NamedTuple):
    """``mean`` (d,); ``projection`` (d, k) makes within the unit matrix and between diag(``ratios``) (k,)."""

    mean: Floats
    projection: Floats
    ratios: Floats


def fit(features: Floats, labels: Labels, components: int, iterations: int) -> JointBayesian:
    """Fit both covariances by expectation maximisation to features (n, d) on ``components`` principal ones.

    labels: (n,). The features are whitened first, so units do not matter.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    variances, axes = eigh(centred.T @ centred / len(centred))
    kept = np.flatnonzero(variances > TOLERANCE * variances[-1])[-components:]
    whitening = axes[:, kept] / np.sqrt(variances[kept])
    between, within = expectation_maximisation(centred @ whitening, labels, iterations)
    ratios, vectors = eigh(between, within)
    return JointBayesian(mean, whitening @ vectors, np.maximum(ratios, 0))


def expectation_maximisation(centred: Floats, labels: Labels, iterations: int) -> tuple[Floats, Floats]:
    """Return (between, within), each (k, k), of centred features (n, k).

    E-step: eq. 8 of the paper, grouped by the number of images m of an identity: the mean of μ given them is
    between (m between + within)⁻¹ Σx. M-step: exact; the paper's leaves out the posterior covariance of μ, which
    it has for few images.
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


def log_likelihood_ratio(model: JointBayesian, one: Floats, other: Floats) -> Floats:
    """Return log p(pair | same) − log p(pair | different) of features (n, d) each: (n,), high = same person.

    Eq. 4 of the paper with its constants. In the projected space a pair's sum and difference are independent.
    """
    first, second = ((x - model.mean) @ model.projection for x in (one, other))
    total, difference = (first + second) ** 2 / 2, (first - second) ** 2 / 2
    different = 1 + model.ratios  # variance of sum and difference when identities differ
    same = different + model.ratios  # of the sum when they are one; that of the difference is 1
    constant = np.log(different**2 / same).sum()
    return 0.5 * (constant + total @ (1 / different - 1 / same) + difference @ (1 / different - 1))
