import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexome.core import InputError
from lexome.sequence import Variant, normalise, parse_variant


class Toy:
    def __init__(self, text):
        self.text = text

    def fetch(self, contig, start, end, *, pad="N"):
        return "".join(self.text[i] if 0 <= i < len(self.text) else pad for i in range(start, end))


def apply(text, variant):
    end = variant.position + len(variant.ref)
    assert text[variant.position : end] == variant.ref
    return text[: variant.position] + variant.alt + text[end:]


@pytest.mark.parametrize(
    ("ref", "alt", "kind"),
    [
        ("A", "C", "snv"),
        ("a", "T", "snv"),
        ("AC", "GT", "mnv"),
        ("A", "ACC", "insertion"),
        ("A", "CCA", "insertion"),
        ("AC", "AGC", "insertion"),
        ("ACC", "A", "deletion"),
        ("ACGT", "AT", "deletion"),
        ("GGCA", "TA", "delins"),
        ("A", "CG", "delins"),
        ("A", "<DEL>", "symbolic"),
        ("A", "A[chr2:100[", "symbolic"),
        ("A", "]chr2:100]A", "symbolic"),
        ("A", "A.", "symbolic"),
        ("A", ".A", "symbolic"),
        ("A", "*", "star"),
        ("N", "A", "non_acgt"),
        ("A", "R", "non_acgt"),
        ("A", ".", "non_acgt"),
        ("-", "A", "non_acgt"),
        ("A", "", "deletion"),
        ("", "A", "non_acgt"),
        ("A", "A", "same"),
        ("a", "A", "same"),
    ],
)
def test_alleles_say_their_kind(ref, alt, kind):
    assert Variant("chr1", 0, "", ref, alt).kind == kind


@given(st.text(alphabet="AC", min_size=1, max_size=30), st.data())
def test_all_spellings_of_one_change_share_one_normal_form(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    alt = data.draw(st.text(alphabet="AC", min_size=1, max_size=6))
    variant = Variant("c", start, "name", text[start:end], alt)
    normal = normalise(variant, Toy(text))
    if variant.kind == "same":
        assert normal == variant
        return
    assert apply(text, normal) == apply(text, variant)
    assert normal.ref
    assert normal.alt
    assert normalise(normal, Toy(text)) == normal
    # Another spelling of the same change: more bases on both sides.
    more_left = data.draw(st.integers(0, start))
    more_right = data.draw(st.integers(0, len(text) - end))
    wider = Variant(
        "c",
        start - more_left,
        "name",
        text[start - more_left : end + more_right],
        text[start - more_left : start] + alt + text[end : end + more_right],
    )
    assert normalise(wider, Toy(text)) == normal


def test_a_deletion_moves_left_through_a_long_repeat():
    genome = Toy("G" + "CA" * 1000 + "T")
    normal = normalise(Variant("c", 1998, "", "ACA", "A"), genome)
    assert (normal.position, normal.ref, normal.alt) == (0, "GCA", "G")


def test_a_deletion_of_all_of_ref_gets_the_base_before_it():
    normal = normalise(Variant("c", 2, "", "C", ""), Toy("GACCT"))
    assert (normal.position, normal.ref, normal.alt) == (1, "AC", "A")


def test_an_indel_at_the_start_of_a_contig_takes_the_base_after_it():
    normal = normalise(Variant("c", 1, "", "AA", "A"), Toy("AAAC"))
    assert (normal.position, normal.ref, normal.alt) == (0, "AA", "A")


def test_lower_case_alleles_are_normalised_in_upper_case():
    assert str(normalise(Variant("c", 2, "", "ac", "at"), Toy("GGacGG"))) == "c:4:C>T"


@pytest.mark.parametrize("alt", ["<DEL>", "*", "N", "A"])
def test_kinds_without_two_different_acgt_alleles_stay_as_written(alt):
    variant = Variant("c", 2, "x", "A", alt)
    assert normalise(variant, Toy("GGAC")) == variant


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chr22:1024:A>C", "chr22:1024:A>C"),
        ("chr22:1024A>C", "chr22:1024:A>C"),
        ("chr22_1024_A_C_b38", "chr22:1024:A>C"),
        ("22-1024-A-C", "22:1024:A>C"),
        ("chr1:100 A C", "chr1:100:A>C"),
        ("chr1 100 A C", "chr1:100:A>C"),
        ("chr1:100:A:C", "chr1:100:A>C"),
        ("chr1:1,000,100:AT/A", "chr1:1000100:AT>A"),
        ("chrUn_KI270742v1_1024_A_C", "chrUn_KI270742v1:1024:A>C"),
        ("NC_000022.11:g.1024A>C", "NC_000022.11:1024:A>C"),
        ("HLA-A*01:01:100:a:c", "HLA-A*01:01:100:a>c"),
        ("chr1:100:A>*", "chr1:100:A>*"),
        ("chr1:100:A:<DEL>", "chr1:100:A><DEL>"),
    ],
)
def test_the_usual_one_word_forms_are_read(text, expected):
    variant = parse_variant(text)
    assert str(variant) == expected
    assert variant.id == text


@pytest.mark.parametrize("text", ["", "rs1234", "chr22:1024", "chr22:0:A>C", "chr22:x:A>C", "A>C"])
def test_other_words_are_refused_with_the_forms(text):
    with pytest.raises(InputError, match=r"is not a variant\. Expected contig, 1-based position"):
        parse_variant(text)
