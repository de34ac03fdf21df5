"""The built-in street scenes."""
import numpy as np
import pytest

from app.demo import streets


def test_scene():
    """The maps belong together, and every coloured instance is in its map."""
    scene = streets.draw_scene(0, (64, 32))
    assert scene.label.shape == scene.inst.shape == (32, 64) and scene.image.shape == (32, 64, 3)
    assert [array.dtype for array in scene[:3]] == [np.uint8, np.int32, np.uint8]
    assert np.array_equal(scene.label, np.where(scene.inst < 1000, scene.inst, scene.inst // 1000))
    assert scene.colours.keys() == {i for i in np.unique(scene.inst).tolist() if i // 1000 in (
        streets.CAR, streets.BUILDING, streets.PERSON)}
    with pytest.raises(ValueError, match='64x31'):
        streets.draw_scene(0, (64, 31))


def test_another_size_shows_the_same_scene():
    small, large = (streets.draw_scene(2, (side, side // 2)) for side in (64, 192))
    same = small.label == large.label[1::3, 1::3]           # the pixels with the same centres
    assert same.mean() > 0.95 and small.colours.keys() <= large.colours.keys()
