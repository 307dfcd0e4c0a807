import numpy as np
import pytest

from lexome.catalog import load, new
from lexome.core import InputError
from lexome.inference.sites import base_ids, influence, inner_products, site_logits
from lexome.sequence import Variant, reverse_complement


class Toy:
    """A genome of one contig in memory."""

    def __init__(self, text):
        self.text = text

    def fetch(self, contig, start, end, *, pad="N"):
        return "".join(self.text[i] if 0 <= i < len(self.text) else pad for i in range(start, end))


TEXT = "".join(np.random.default_rng(1).choice(list("ACGT"), 120))


@pytest.fixture(scope="module")
def gpn():
    return new("gpn", width=16, depth=3, mlp_width=16, init_std=0.3).eval()


def test_letters_have_one_id_each(gpn):
    assert base_ids(gpn).tolist() == [3, 4, 5, 6]


def test_words_of_several_letters_have_none(fixtures):
    with pytest.raises(InputError, match="single letters, such as GPN"):
        base_ids(load(fixtures / "dnabert2" / "mlm_4heads", device="cpu"))


def test_both_strands_of_a_site_say_the_same_in_an_odd_window(gpn):
    forward = site_logits(gpn, Toy(TEXT), [("x", 50)], 33)
    turned = site_logits(gpn, Toy(reverse_complement(TEXT)), [("x", len(TEXT) - 51)], 33)
    np.testing.assert_allclose(forward, turned[:, ::-1], atol=1e-5)


def test_what_stands_at_the_site_is_not_seen(gpn):
    changed = TEXT[:50] + ("A" if TEXT[50] != "A" else "C") + TEXT[51:]
    np.testing.assert_allclose(
        site_logits(gpn, Toy(TEXT), [("x", 50)], 32),
        site_logits(gpn, Toy(changed), [("x", 50)], 32),
    )


def test_an_unchanged_base_has_no_influence(gpn):
    same = Variant("x", 50, "", TEXT[50], TEXT[50])
    other = Variant("x", 50, "", TEXT[50], "A" if TEXT[50] != "A" else "C")
    none, some = influence(gpn, Toy(TEXT), [same, other], 32)
    assert none == 0
    assert some > 0


def test_products_have_one_number_per_channel(gpn):
    variant = Variant("x", 50, "", TEXT[50], "A" if TEXT[50] != "A" else "C")
    assert inner_products(gpn, Toy(TEXT), [variant, variant], 32).shape == (2, 16)
    assert inner_products(gpn, Toy(TEXT), [], 32).shape == (0,)
