"""Sets are disjoint, counted right, filled in the right order, and whole videos stay together."""

import numpy as np
import pytest

from tests.conftest import COUNTS
from visor.core.errors import UserError
from visor.core.params import SplitParams
from visor.data.split import k_folds, set_rows, split_rows, split_summary, validation_rows

BY_FRAME = SplitParams(by="frame", train=11, validation=4, test=3, calibration=0.25)
BY_VIDEO = SplitParams(by="video", train=11, validation=4, test=3, calibration=0.25)


def counts(table):
    return table.groupby(["label", "set"]).size().unstack(fill_value=0)


def test_every_label_gets_its_counts(faces):
    table = split_rows(faces.labels, faces.videos, BY_FRAME, seed=1)
    found = counts(table)
    assert found["train"].tolist() == [11, 11, 11, 10]  # 17 images: validation and test are filled first
    assert found["validation"].tolist() == [4] * 4
    assert found["test"].tolist() == [3] * 4
    assert found["poison"].tolist() == [count - 18 if count > 18 else 0 for count in COUNTS]
    np.testing.assert_array_equal(table["row"], np.arange(len(faces)))
    np.testing.assert_array_equal(table["label"], faces.labels)


def test_a_video_never_spans_two_sets(faces):
    table = split_rows(faces.labels, faces.videos, BY_VIDEO, seed=1)
    used = table[table["set"] != "unused"]
    assert (used.groupby("video")["set"].nunique() == 1).all()
    assert counts(table)["validation"].tolist() == [4] * 4
    assert (table["set"] == "unused").any()  # 3 frames a video do not fill 4 exactly
    frames = split_rows(faces.labels, faces.videos, BY_FRAME, seed=1)
    assert (frames.groupby("video")["set"].nunique() > 1).any()


def test_same_seed_same_table_other_seed_other_table(faces):
    tables = [split_rows(faces.labels, faces.videos, BY_FRAME, seed) for seed in (1, 1, 2)]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


def test_small_labels_are_left_out_and_counted(faces):
    settings = BY_FRAME.model_copy(update={"validation": 10, "test": 9})
    table = split_rows(faces.labels, faces.videos, settings, seed=1)
    assert split_summary(table)["labels"] == 2
    assert split_summary(table)["labels_left_out"] == 2
    assert set(table.loc[table["set"] != "unused", "label"]) == {0, 2}
    with pytest.raises(UserError, match="no label has the images"):
        split_rows(faces.labels, faces.videos, BY_FRAME.model_copy(update={"test": 40}), seed=1)


def test_calibration_keeps_whole_videos_apart(faces):
    settings = BY_VIDEO.model_copy(update={"validation": 6})
    fitted, kept = validation_rows(split_rows(faces.labels, faces.videos, settings, seed=1))
    assert len(fitted) + len(kept) == 24
    assert 4 <= len(kept) <= 8
    assert set(faces.videos[fitted]).isdisjoint(faces.videos[kept])


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_calibration_must_leave_images_for_both_uses(faces, share):
    with pytest.raises(UserError, match=r"split\.calibration is .*, which divides 16 validation images"):
        split_rows(faces.labels, faces.videos, BY_FRAME.model_copy(update={"calibration": share}), seed=1)


def test_calibration_rows_are_a_share_of_validation(faces):
    table = split_rows(faces.labels, faces.videos, BY_FRAME, seed=1)
    fitted, kept = validation_rows(table)
    assert (len(fitted), len(kept)) == (12, 4)
    assert set(fitted) | set(kept) == set(set_rows(table, "validation"))
    assert set(fitted).isdisjoint(kept)


def test_folds_hold_out_every_row_once_and_fit_on_the_others():
    rows = np.arange(100, 111)
    folds = k_folds(rows, 3)
    assert [held_out.tolist() for _, held_out in folds] == [rows[k::3].tolist() for k in range(3)]
    for fitted, held_out in folds:
        assert sorted([*fitted, *held_out]) == rows.tolist()
