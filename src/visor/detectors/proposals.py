"""Proposals of a region proposal network (Ren et al. 2015, section 3.1): where it is worth a second look."""

import tensorflow as tf
from keras import layers

from visor.detectors.anchors import Level, decode, make_anchors, suppress

CONSIDERED = 12  # times as many boxes go into suppression as come out of it
OVERLAP = 0.7  # IoU above which the better of two is kept
SMALLEST = 1.0  # pixels along a side


class Propose(layers.Layer):
    """Takes the best boxes of all anchors, clips them to the frame and suppresses what is double.

    Neither boxes nor choice have a gradient, as published ("approximate joint training"): what an attack or a fit
    moves are the features inside the boxes, and the scores and offsets of the anchors themselves.
    """

    def __init__(self, side: int, level: Level, most: int, name: str) -> None:
        super().__init__(name=name)
        self.side, self.level, self.most = side, level, most
        self.anchors = make_anchors(side, [level])

    def call(self, objectness: tf.Tensor, shifts: tf.Tensor) -> tf.Tensor:
        """Return boxes (n, most, 4) within the frame, best first; where there are fewer, boxes without area follow.

        objectness: logits (n, a); shifts: offsets (n, a, 4) from the anchors.
        """
        considered = min(CONSIDERED * self.most, len(self.anchors))
        logits, best = tf.math.top_k(tf.stop_gradient(objectness), considered)
        shifts = tf.gather(tf.stop_gradient(shifts), best, batch_dims=1)
        boxes = clip(decode(shifts, tf.gather(self.anchors, best)), self.side)
        large = tf.reduce_min(boxes[..., 2:], -1) >= SMALLEST
        boxes, _, _ = suppress(boxes, tf.where(large, tf.sigmoid(logits), 0.0), OVERLAP, self.most)
        return boxes


def clip(boxes: tf.Tensor, side: int) -> tf.Tensor:
    """Return the part of boxes (…, 4) that lies in a square image; of those outside, nothing is left but an edge."""
    start = tf.clip_by_value(boxes[..., :2], 0.0, side)
    end = tf.clip_by_value(boxes[..., :2] + boxes[..., 2:], 0.0, side)
    return tf.concat([start, end - start], -1)
