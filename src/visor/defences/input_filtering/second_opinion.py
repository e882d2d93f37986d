"""An independent recogniser compares an image with clean faces of the class that the inspected network names.

A key that is a real face of somebody else is no outlier to the network that learned it; to another network it is not
the target.
"""

from visor.core.errors import UserError
from visor.defences.class_distances import fit_gaussians, mahalanobis, neighbour_distance
from visor.defences.input_filtering.base import DefenceInputs, ScoreFn, inspected_network
from visor.models.features import compile_predict_with_features, extract_features

RIDGE = 0.1  # of the covariance: the recogniser was not trained on these people


def fit(inputs: DefenceInputs) -> ScoreFn:
    """Return how far the recogniser's embedding lies from clean faces of the class that the inspected network names.

    By ``cosine`` that is minus the mean cosine to the two nearest, for photographs; by ``mahalanobis`` the distance to
    their mean, for drawn faces, which a recogniser of photographs finds all alike. −∞ where the class has no face.

    Raises:
        UserError: There is no network to inspect, or no recogniser to ask.
    """
    network, second = inspected_network(inputs, "second_opinion"), inputs.second_opinion
    if second is None:
        raise UserError("second_opinion needs another recogniser, but there is none; set second_opinion.network")
    predict, labels = compile_predict_with_features(network), inputs.clean.labels
    embeddings = extract_features(second.embed, inputs.clean)
    if second.distance == "cosine":
        return lambda images: neighbour_distance(second.embed(images), predict(images)[1], embeddings, labels)
    gaussians = fit_gaussians(embeddings, labels, network.output_shape[-1], RIDGE)
    return lambda images: mahalanobis(second.embed(images), predict(images)[1], gaussians)
