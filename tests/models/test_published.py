"""Published weights, on SavedModel folders of random weights that the tests write themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle_writer import VALUE, write_bundle
from nigradat.anatomy import Side
from nigradat.errors import OutputError, WeightsError
from nigradat.models.published import CHANNELS, import_published, read_saved_model, side_of
from nigradat.models.vgg import VggTower
from nigradat.models.weights import load_model


def keras_layers(seed, channels=CHANNELS, head_inputs=1152):
    """Kernel and bias of each layer in Keras' layout."""
    rng = np.random.default_rng(seed)
    kernels = [
        rng.normal(0, np.sqrt(2 / 27 / a), (3, 3, 3, a, b)) for a, b in zip((1, *channels[:-1]), channels, strict=True)
    ]
    kernels.append(rng.normal(0, 0.1, (head_inputs, 1)))
    return [(k.astype(np.float32), rng.normal(0, 0.1, k.shape[-1]).astype(np.float32)) for k in kernels]


def save(folder, layers, **changes):
    tensors = {}
    for i, (kernel, bias) in enumerate(layers):
        tensors[f"layer_with_weights-{i}/kernel{VALUE}"] = kernel
        tensors[f"layer_with_weights-{i}/bias{VALUE}"] = bias
    tensors["keras_api/metrics/0/count" + VALUE] = np.array(55, np.float32)
    write_bundle(folder / "variables" / "variables", tensors | changes)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder a side, to be read only."""
    base = tmp_path_factory.mktemp("published")
    return {side: save(base / f"net_vgg_{side.value}", keras_layers(side.index)) for side in Side}


@pytest.mark.parametrize("side", list(Side))
def test_weights_arrive_in_torch_layout(folders, side):
    net = read_saved_model(folders[side])
    assert net.side is side
    *convolutions, (head_kernel, head_bias) = keras_layers(side.index)
    for (weight, bias), (kernel, expected_bias) in zip(net.convolutions, convolutions, strict=True):
        assert weight.flags.c_contiguous
        assert np.array_equal(np.einsum("oiabc->abcio", weight), kernel)
        assert np.array_equal(bias, expected_bias)
    channels_last = np.random.default_rng(3).normal(size=(3, 3, 1, 128)).astype(np.float32)
    channels_first = np.einsum("abco->oabc", channels_last)
    np.testing.assert_allclose(
        channels_first.reshape(-1) @ net.head_weight[0], channels_last.reshape(-1) @ head_kernel[:, 0], rtol=1e-5
    )
    assert np.array_equal(net.head_bias, head_bias)
    assert set(net.sha256) == {"variables.index", "variables.data-00000-of-00001"}
    assert sum(v.size for v in net.tower_state().values()) + net.head_weight.size + 1 == 879_889


def test_the_tower_takes_them_and_correlates_as_keras_does(folders):
    """The first two layers by hand, channels last: Keras' 'same' convolution is a correlation with zeros around."""
    net = read_saved_model(folders[Side.LEFT])
    tower = VggTower()
    tower.load_state_dict({name: torch.from_numpy(values) for name, values in net.tower_state().items()})
    x = np.random.default_rng(5).uniform(0.5, 1.5, (6, 5, 4, 1)).astype(np.float32)
    expected = x
    for kernel, bias in keras_layers(Side.LEFT.index)[:2]:
        around = np.pad(expected, [(1, 1)] * 3 + [(0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3, 3), axis=(0, 1, 2))
        expected = np.maximum(np.einsum("xyziabc,abcio->xyzo", windows, kernel) + bias, 0)
    block = tower.blocks[0]
    with torch.no_grad():
        out = block.relu2(block.conv2(block.relu1(block.conv1(torch.from_numpy(x).permute(3, 0, 1, 2)[None]))))
    np.testing.assert_allclose(out[0].permute(1, 2, 3, 0).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "side"),
    [("net_vgg_left", Side.LEFT), ("Net-VGG-Right", Side.RIGHT), ("left", Side.LEFT), ("right.v2", Side.RIGHT)],
)
def test_the_side_is_a_word_of_the_folders_name(tmp_path, name, side):
    assert side_of(tmp_path / name) is side


@pytest.mark.parametrize("name", ["net_vgg", "upright", "left_and_right", "cleft"])
def test_a_name_that_tells_no_side_needs_a_word(tmp_path, name):
    folder = save(tmp_path / name, keras_layers(0))
    with pytest.raises(WeightsError, match="--side left or --side right"):
        read_saved_model(folder)
    assert read_saved_model(folder, Side.RIGHT).side is Side.RIGHT


def test_the_side_that_is_said_wins_over_the_name(folders):
    assert read_saved_model(folders[Side.LEFT], Side.RIGHT).side is Side.RIGHT


def spoilt(layers, index, kernel=None, bias=None):
    layers = list(layers)
    layers[index] = (layers[index][0] if kernel is None else kernel, layers[index][1] if bias is None else bias)
    return layers


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (keras_layers(0)[:8], "layer 8 bias missing"),
        ([*keras_layers(0), *keras_layers(0)[:1]], "layer 9 bias is one too many"),
        (keras_layers(0, (8, 8, 16, 16, 32, 32, 64, 64), 576), "layer 0 bias"),
        (spoilt(keras_layers(0), 8, kernel=np.zeros((1153, 1), np.float32)), r"layer 8 kernel \(1153, 1\), not \(1152"),
        (spoilt(keras_layers(0), 2, kernel=np.zeros((3, 3, 16, 32), np.float32)), r"layer 2 kernel \(3, 3, 16, 32\)"),
        (spoilt(keras_layers(0), 3, bias=np.zeros(32)), "not the published architecture"),
        (spoilt(keras_layers(0), 3, bias=np.full(32, np.nan, np.float32)), "no number in layer 3 bias"),
    ],
    ids=["short", "long", "narrow", "head", "2d", "float64", "nan"],
)
def test_another_architecture_is_refused(tmp_path, layers, message):
    with pytest.raises(WeightsError, match=message):
        read_saved_model(save(tmp_path / "net_left", layers))


def test_missing_and_damaged_folders_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="no folder 'variables'"):
        read_saved_model(tmp_path / "net_left")
    (tmp_path / "net_left" / "variables").mkdir(parents=True)
    with pytest.raises(WeightsError, match=r"variables\.index: cannot be read"):
        read_saved_model(tmp_path / "net_left")
    folder = save(tmp_path / "net_right", keras_layers(0))
    data = folder / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1_000_000])
    with pytest.raises(WeightsError, match="should lie at bytes"):
        read_saved_model(folder)


# ---------------------------------------------------------------------------------------------- as a model folder


@pytest.mark.parametrize("sides", [(Side.LEFT,), (Side.RIGHT,), (Side.RIGHT, Side.LEFT), (Side.LEFT, Side.RIGHT)])
def test_imported_folders_answer_for_their_own_sides(folders, tmp_path, sides):
    loaded = load_model(import_published([folders[side] for side in sides], tmp_path / "model"))
    assert loaded.card["licence"].startswith("GPL-3.0")
    for side in Side:
        net = loaded.model.net(side)
        if side not in sides:
            assert net is None
            continue
        expected = read_saved_model(folders[side])
        assert np.array_equal(net.head.weight.detach().numpy(), expected.head_weight)
        for name, values in expected.tower_state().items():
            assert np.array_equal(net.tower.state_dict()[name].numpy(), values)


def test_a_refused_import_leaves_nothing(folders, tmp_path):
    out = tmp_path / "model"
    with pytest.raises(WeightsError, match="one right and one left"):
        import_published([folders[Side.LEFT]] * 2, out)
    with pytest.raises(WeightsError, match="one right and one left"):
        import_published([], out)
    with pytest.raises(WeightsError, match="no folder 'variables'"):
        import_published([folders[Side.LEFT], tmp_path / "right"], out)
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / "theirs").write_text("x")
    with pytest.raises(OutputError, match="theirs"):
        import_published([folders[Side.LEFT]], out)
