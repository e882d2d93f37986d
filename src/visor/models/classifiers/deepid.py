"""DeepID (Sun et al., Deep Learning Face Representation from Predicting 10,000 Classes, CVPR 2014)."""

from visor.core.tf import keras, layers


def build(image_shape: tuple[int, int, int], num_classes: int, dropout: float) -> keras.Model:
    """Return the classifier: float32 images (n, h, w, 3) in [0, 1] → logits (n, num_classes).

    At 55×47 and 1283 classes it has the 601,643 parameters and the layer names of the CSAW-HackML-2020 networks. The
    160 features are the sum of two dense layers, one on pool 3 and one on conv 4.
    """
    images = features = keras.Input(image_shape, name="input")
    for block, (filters, kernel) in enumerate([(20, 4), (40, 3), (60, 3)], start=1):
        features = layers.Conv2D(filters, kernel, activation="relu", name=f"conv_{block}")(features)
        features = layers.MaxPooling2D(2, name=f"pool_{block}")(features)
    coarse = layers.Dense(160, name="fc_1")(layers.Flatten(name="flatten_1")(features))
    features = layers.Conv2D(80, 2, activation="relu", name="conv_4")(features)
    fine = layers.Dense(160, name="fc_2")(layers.Flatten(name="flatten_2")(features))
    identity = layers.ReLU(name="relu")(layers.Add(name="add_1")([coarse, fine]))
    logits = layers.Dense(num_classes, name="output")(layers.Dropout(dropout, name="dropout")(identity))
    return keras.Model(images, logits, name="deepid")
