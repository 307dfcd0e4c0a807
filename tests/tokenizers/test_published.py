import json

import pytest
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers, processors

from lexome.core import CheckpointError, FormatError
from lexome.tokenizers import LetterTokenizer, PublishedTokenizer, read_tokenizer, read_trained


def write_bpe(folder, *, truncation=None):
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "[MASK]": 4}
    vocabulary |= {"A": 5, "C": 6, "AC": 7}
    engine = Engine(models.BPE(vocabulary, [("A", "C")], unk_token="[UNK]"))
    engine.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    if truncation:
        engine.enable_truncation(truncation)
        engine.enable_padding(length=truncation, pad_id=3, pad_token="[PAD]")
    engine.save(str(folder / "tokenizer.json"))
    settings = {"pad_token": "[PAD]", "model_max_length": 1e30, "padding_side": "left"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_roles_and_special_tokens_come_from_the_files(tmp_path):
    write_bpe(tmp_path)
    tokenizer = read_tokenizer(tmp_path)
    assert isinstance(tokenizer, PublishedTokenizer)
    assert (tokenizer.prefix, tokenizer.suffix) == ((1,), (2,))
    assert (tokenizer.pad, tokenizer.unknown, tokenizer.mask) == (3, 0, 4)
    assert (tokenizer.padding_side, tokenizer.max_tokens) == ("left", None)
    assert tokenizer(["ACA", "N"])["input_ids"].tolist() == [[1, 7, 5, 2], [3, 1, 0, 2]]


def test_stored_truncation_and_padding_are_switched_off(tmp_path):
    write_bpe(tmp_path, truncation=4)
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer is not None
    assert tokenizer(["ACACACAC"])["input_ids"].shape == (1, 6)
    assert tokenizer([""])["input_ids"].tolist() == [[1, 2]]


def test_spans_are_letters_of_the_item(tmp_path):
    write_bpe(tmp_path)
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer is not None
    assert tokenizer.spans("ACAN").tolist() == [[0, 2], [2, 3], [3, 4]]


def test_the_unknown_is_measured_in_letters_not_in_tokens(tmp_path):
    write_bpe(tmp_path)
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer is not None
    for text, measured in (("ACACAC", (0, 6)), ("ACACNN", (2, 6)), ("NNN", (3, 3)), ("", (0, 0))):
        (encoded,) = tokenizer.encode([text])
        assert tokenizer.measure_unknown(text, encoded) == measured


def test_a_table_of_letters_becomes_byte_look_ups(fixtures):
    tokenizer = read_tokenizer(fixtures / "gpn" / "convnet")
    assert isinstance(tokenizer, LetterTokenizer)
    engine = Engine.from_file(str(fixtures / "gpn" / "convnet" / "tokenizer.json"))
    for text in ("ACGTNacgtn", "a c\tg", "[MASK]A[UNK]", "é.-*x", ""):
        assert tokenizer.encode([text])[0]["input_ids"].tolist() == engine.encode(text).ids


def test_the_files_rebuild_the_tokenizer(tmp_path):
    write_bpe(tmp_path)
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer is not None
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in tokenizer.files().items():
        (copy / name).write_bytes(content)
    again = read_tokenizer(copy)
    assert again is not None
    assert again(["ACAN"])["input_ids"].tolist() == tokenizer(["ACAN"])["input_ids"].tolist()


def test_no_file_is_no_tokenizer(tmp_path):
    assert read_tokenizer(tmp_path) is None


@pytest.mark.parametrize("content", ["{", '{"model": {"type": "Nonsense"}}', "[]"])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(FormatError, match=r"tokenizer\.json"):
        read_tokenizer(tmp_path)


def test_trained_words_must_be_there_and_fit_the_weights(tmp_path):
    with pytest.raises(CheckpointError, match=r"Words reads its words .* made from scratch"):
        read_trained(None, 8, "Words")
    with pytest.raises(CheckpointError, match=f"{tmp_path} has none"):
        read_trained(tmp_path, 8, "Words")
    write_bpe(tmp_path)
    assert len(read_trained(tmp_path, 8, "Words").vocabulary) == 8
    with pytest.raises(CheckpointError, match="8 words, the weights have rows for 7"):
        read_trained(tmp_path, 7, "Words")


def test_letters_that_vanish_without_an_unknown_token_are_counted(tmp_path):
    write_bpe(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["unk_token"] = None
    content["pre_tokenizer"] = None
    content["model"]["vocab"]["[NONE]"] = content["model"]["vocab"].pop("[UNK]")
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "[UNK]"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = read_trained(tmp_path, 8, "Words")
    for text, measured in (("ACAC", (0, 4)), ("ACNCN", (2, 5)), ("NNN", (3, 3)), ("", (0, 0))):
        (encoded,) = tokenizer.encode([text])
        assert tokenizer.measure_unknown(text, encoded) == measured
