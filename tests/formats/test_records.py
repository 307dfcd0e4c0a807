import pickle

from lexome.formats import SequenceRecord


def test_records_go_to_other_processes():
    record = SequenceRecord("a", "ACGT", fields={"label": "1"})
    assert pickle.loads(pickle.dumps(record)) == record


def test_records_do_not_share_their_fields():
    assert SequenceRecord("a", "").fields is not SequenceRecord("b", "").fields
