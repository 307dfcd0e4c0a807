"""The sentences of the report follow from its numbers. test_demo.py makes a whole page."""

from lexome.reports.demo_page import _pair_verdict, _probe_verdict
from lexome.tasks.separation import Auc


def area(value: float, error: float = 0.01) -> Auc:
    return Auc(value=value, standard_error=error)


def test_variant_scores_that_do_not_separate_are_said_not_to():
    assert "do not tell" in _pair_verdict("synonymous", "missense", area(0.51))
    assert "wrong way round" in _pair_verdict("synonymous", "missense", area(0.4))
    assert "tell stop-gaining from synonymous" in _pair_verdict(
        "synonymous", "stop gained", area(0.8)
    )


def test_a_simple_description_that_tells_more_is_said_to():
    question = "on which strand a gene lies"

    def verdict(model: float, words: float) -> str:
        probes = {question: {"the model": area(model), "3-letter words": area(words)}}
        return _probe_verdict(question, probes)

    assert "tells more" in verdict(0.9, 0.98)
    assert "better than" in verdict(0.98, 0.9)
    assert "within the error" in verdict(0.9, 0.901)
    assert "say nothing" in verdict(0.5, 0.5)
