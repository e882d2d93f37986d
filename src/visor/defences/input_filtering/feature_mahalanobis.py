"""Mahalanobis distance of features to the class that the network names (Lee et al. 2018, arXiv 1807.03888, eq. 2).

A trigger makes the network predict the target, but seldom puts the features where the target's clean faces lie.
"""

from visor.defences.class_distances import fit_gaussians, mahalanobis
from visor.defences.input_filtering.base import DefenceInputs, ScoreFn, inspected_network
from visor.models.features import compile_predict_with_features, extract_features


def fit(inputs: DefenceInputs) -> ScoreFn:
    """Return √((f − μ_ŷ)ᵀ S⁻¹ (f − μ_ŷ)) of the features f and the class ŷ that the network names, ≥ 0.

    Means and covariance are those of clean faces by their labels; the score is −∞ where ŷ has none.

    Raises:
        UserError: There is no network to inspect.
    """
    network = inspected_network(inputs, "feature_mahalanobis")
    predict = compile_predict_with_features(network)
    features = extract_features(lambda images: predict(images)[0], inputs.clean)
    gaussians = fit_gaussians(features, inputs.clean.labels, network.output_shape[-1])
    return lambda images: mahalanobis(*predict(images), gaussians)
