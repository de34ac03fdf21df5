"""Maps by hand, augmentation, the order of batches."""
import numpy as np
from PIL import Image
import pytest
import torch

import data


def read(item):
    """The reading function of PairedDataset: the arrays are the items themselves."""
    return item


def make_items(n=3, seed=0):
    """Scenes of 8x6 pixels with 5 labels."""
    rng = np.random.default_rng(seed)
    return [{'label': rng.integers(0, 5, (6, 8), np.uint8),
             'inst': rng.integers(0, 60000, (6, 8)).astype(np.int32),
             'image': rng.integers(0, 255, (6, 8, 3), np.uint8)} for _ in range(n)]


def test_boundary_map_by_hand():
    inst = torch.tensor([[1, 1, 2, 2],
                         [1, 1, 2, 2],
                         [1, 1, 1, 1],
                         [1, 1, 1, 5]])
    expected = [[0, 1, 1, 0],
                [0, 1, 1, 1],
                [0, 0, 1, 1],
                [0, 0, 1, 1]]
    assert data.boundary_map(inst).tolist() == expected
    batch = data.boundary_map(torch.stack([inst, inst * 70000])[:, None])
    assert batch.shape == (2, 1, 4, 4) and batch.dtype == torch.uint8
    assert batch[1, 0].tolist() == expected


def test_connected_components_by_hand():
    label = np.array([[0, 0, 1, 0],
                      [1, 0, 1, 0],
                      [1, 0, 0, 0],
                      [1, 1, 2, 1]])
    assert data.connected_components(label).tolist() == [[0, 0, 1, 0],
                                                         [2, 0, 1, 0],
                                                         [2, 0, 0, 0],
                                                         [2, 2, 3, 4]]


def test_connected_components_of_a_spiral():
    label = np.zeros((41, 41), np.int32)
    top, left, bottom, right = 0, 0, 40, 40
    while top < bottom:                                     # one wall that winds inwards
        label[top, left:right + 1] = label[top:bottom + 1, right] = 1
        label[bottom, left + 2:right + 1] = 1
        label[top + 2:bottom + 1, left + 2] = 1
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2

    components = data.connected_components(label)
    for value in (0, 1):
        flood = np.zeros_like(label, bool)
        flood[tuple(np.argwhere(label == value)[0])] = True
        for _ in range(label.size):                         # grow until nothing changes
            grown = flood.copy()
            grown[1:] |= flood[:-1]
            grown[:-1] |= flood[1:]
            grown[:, 1:] |= flood[:, :-1]
            grown[:, :-1] |= flood[:, 1:]
            grown &= label == value
            if (grown == flood).all():
                break
            flood = grown
        assert len(np.unique(components[flood])) == 1
        assert not np.isin(components[~flood], components[flood]).any()


def test_labels_of_a_batch():
    label = torch.tensor([[[3, 250], [3, 17]]], dtype=torch.uint8)
    assert data.find_present_labels(label, 256).tolist() == [0, 3, 17, 250]
    assert data.find_present_labels(torch.arange(5), 256).tolist() == list(range(12))
    assert data.find_present_labels(label[..., :1], 4) is None            # all are needed
    batch = data.collate([{'label': label, 'image': label}] * 2, 256)
    assert len(batch['present_labels']) == 4 and batch['label'].shape == (2, 1, 2, 2)
    assert torch.equal(data.one_hot(label[None], 256)[:, batch['present_labels']],
                       data.one_hot(label[None], 256, batch['present_labels']))


def test_condition_is_one_hot_and_boundary():
    label, inst = torch.tensor([[[[0, 2]]]], dtype=torch.uint8), torch.tensor([[[[4, 5]]]])
    assert data.condition(label, inst, 3)[0, :, 0].tolist() == [[1, 0], [0, 0], [0, 1], [1, 1]]
    rgb = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 3, 1, 1)
    torch.testing.assert_close(data.condition(rgb, None, 0).flatten(), torch.tensor([-1, 1, -0.6]))


def test_pictures_survive_the_way_to_float_and_back():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(data.to_uint8(data.to_float(values)), values)


def test_padding_repeats_the_edge():
    x = torch.arange(6).reshape(1, 1, 2, 3)
    assert data.pad_to_multiple(x, 4)[0, 0].tolist() == [[0, 1, 2, 2],
                                                         [3, 4, 5, 5],
                                                         [3, 4, 5, 5],
                                                         [3, 4, 5, 5]]
    assert data.pad_to_multiple(x, 1, smallest=3).shape == (1, 1, 3, 3)


def test_an_instance_has_the_label_of_its_majority():
    label = torch.tensor([[3, 3, 1, 0]])[None, None]
    inst = torch.tensor([[50, 50, 50, 2]])[None, None]      # ids that do not encode the label
    ids, region_index, labels, areas = data.describe_instances(label, inst, 4)
    assert region_index.flatten().tolist() == [1, 1, 1, 0]
    assert labels.tolist() == [0, 3] and areas.tolist() == [1, 3]


def test_items_are_a_function_of_seed_epoch_and_index():
    items = make_items()
    one = data.PairedDataset(items, read, 5, crop=(4, 4), flip=True, seed=1)
    other = data.PairedDataset([0, 1, 2], None, 5, crop=(4, 4), flip=True, seed=1, decoded=items)

    views = set()
    for epoch in range(12):
        item, again = one[epoch, 2], other[epoch, 2]
        assert all(torch.equal(item[role], again[role]) for role in item)
        assert (item['label'].shape == (1, 4, 4) and item['image'].shape == (3, 4, 4)
                and item['inst'].dtype == torch.int32)
        views.add(item['image'].numpy().tobytes())
    assert len(views) > 6


@pytest.mark.parametrize('jitter', [1, 1.5])
def test_maps_and_photograph_move_together(jitter):
    ids = np.arange(48, dtype=np.uint8).reshape(6, 8)
    item = {'label': ids, 'inst': ids.astype(np.int32), 'image': np.repeat(ids[..., None], 3, 2)}
    dataset = data.PairedDataset([item], read, 48, crop=(5, 3), flip=True, jitter=jitter)
    for epoch in range(20):
        item = dataset[epoch, 0]
        assert torch.equal(item['label'].int(), item['inst']) and item['label'].shape == (1, 3, 5)
        if jitter == 1:
            assert torch.equal(item['image'][:1], item['label'])


def test_order_covers_every_picture_once_an_epoch_and_starts_anywhere():
    whole = list(data.ResumableBatchSampler(5, 2, 0, 10, seed=3))
    keys = [key for batch in whole for key in batch]
    for epoch in range(4):
        assert sorted(index for e, index in keys if e == epoch) == [0, 1, 2, 3, 4]
    assert list(data.ResumableBatchSampler(5, 2, 7, 10, seed=3)) == whole[7:]


def test_processes_share_a_batch():
    whole = list(data.ResumableBatchSampler(8, 4, 0, 4, seed=3))
    for rank in range(2):
        def shard(keys, rank=rank):
            return keys[2 * rank:2 * rank + 2]
        assert list(data.ResumableBatchSampler(8, 4, 0, 4, 3, shard)) == [
            shard(keys) for keys in whole]


def test_a_picture_smaller_than_the_crop_is_an_input_error():
    dataset = data.PairedDataset(make_items(1), read, 5, crop=(16, 4))
    with pytest.raises(data.InputError, match='8x6 is too small to train on, which needs 16x4'):
        dataset[0, 0]


def test_an_input_error_passes_through_a_loader_process():
    """Its message is whole, and not the text of a traceback."""
    def fail(item):
        raise data.InputError('x.png: the one line')
    dataset = data.PairedDataset([0, 1], fail, 5, workers=1)
    with pytest.raises(data.InputError) as caught:
        list(data.batches(dataset, torch.device('cpu'), sampler=[(0, 0), (0, 1)]))
    assert str(caught.value) == 'x.png: the one line'


def test_resize_takes_the_nearest_pixel():
    ids = np.arange(16).reshape(4, 4)
    assert data.resize(ids, (2, 2), nearest=True).tolist() == [[5, 7], [13, 15]]
    assert data.resize(ids, (8, 8), nearest=True)[::2, ::2].tolist() == ids.tolist()
    assert np.array_equal(data.resize(ids, (2, 2), nearest=True),
                          np.asarray(Image.fromarray(ids.astype(np.uint8)).resize((2, 2), 0)))


def test_without_a_boundary_map_the_condition_has_one_channel_less():
    label, inst = (torch.randint(0, 4, (1, 1, 8, 8)) for _ in range(2))
    assert data.condition(label, inst, 4).shape[1] == 5
    assert torch.equal(data.condition(label, inst, 4, boundary=False), data.one_hot(label, 4))
