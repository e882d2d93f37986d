"""Nearest clean faces of the class that the network names (cf. Papernot and McDaniel 2018, arXiv 1803.04765).

Features are compared by their angle. Who trains the network can put triggered features at the target's mean, which
``feature_mahalanobis`` measures from; single clean faces are harder to meet.
"""

from visor.defences.class_distances import neighbour_distance
from visor.defences.input_filtering.base import DefenceInputs, ScoreFn, inspected_network
from visor.models.features import compile_predict_with_features, extract_features


def fit(inputs: DefenceInputs) -> ScoreFn:
    """Return minus the mean cosine to the two nearest clean faces of the class that the network names, in [−1, 1].

    The score is −∞ where that class has no clean face.

    Raises:
        UserError: There is no network to inspect.
    """
    predict, labels = compile_predict_with_features(inspected_network(inputs, "knn")), inputs.clean.labels
    features = extract_features(lambda images: predict(images)[0], inputs.clean)
    return lambda images: neighbour_distance(*predict(images), features, labels)
