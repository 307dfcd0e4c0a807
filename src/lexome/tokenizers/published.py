"""Tokenizers from the file that a release ships."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Engine

from lexome.core import CheckpointError, FormatError
from lexome.tokenizers.base import Encoded, Tokenizer
from lexome.tokenizers.letters import LetterPreset, LetterTokenizer

_PAD_NAMES = ("[PAD]", "<pad>")


class PublishedTokenizer(Tokenizer):
    """A ``tokenizer.json`` run by the library that wrote it.

    Truncation and padding stored in the file are switched off: nothing is cut unasked.

    Parameters
    ----------
    path
        The ``tokenizer.json``.
    special
        {role: token} of the ``tokenizer_config.json``, roles such as ``"pad_token"``.
    """

    def __init__(
        self, path: Path, special: dict[str, str], *, padding_side: str, max_tokens: int | None
    ):
        try:
            self._engine = Engine.from_file(str(path))  # pyright: ignore[reportAttributeAccessIssue]
        except Exception as error:  # the library raises bare Exception
            raise FormatError(path, f"is no tokenizer that can be read ({error}).") from error
        self._engine.no_truncation()
        self._engine.no_padding()

        def number(role: str, *names: str) -> int | None:
            for name in (special.get(role), *names):
                if name and (i := self._engine.token_to_id(name)) is not None:
                    return i
            return None

        pad = number("pad_token", *_PAD_NAMES)
        prefix, suffix = self._around(path)
        super().__init__(
            pad=0 if pad is None else pad,
            unknown=number("unk_token", "[UNK]", "<unk>"),
            mask=number("mask_token", "[MASK]", "<mask>"),
            prefix=prefix,
            suffix=suffix,
            padding_side=padding_side,
            max_tokens=max_tokens,
        )
        size = self._engine.get_vocab_size(with_added_tokens=True)
        self._settings = special
        self._tokens = [self._engine.id_to_token(i) or "" for i in range(size)]

    def _around(self, path: Path) -> tuple[list[int], list[int]]:
        for letter in "AaNT":
            bare = self._engine.encode(letter, add_special_tokens=False).ids
            if bare:
                full = self._engine.encode(letter).ids
                for start in range(len(full) - len(bare) + 1):
                    if full[start : start + len(bare)] == bare:
                        return full[:start], full[start + len(bare) :]
        raise CheckpointError(f"{path}: the tokenizer knows none of the letters A, a, N, T.")

    @property
    def vocabulary(self) -> Sequence[str]:
        """Tokens in id order."""
        return self._tokens

    def encode(self, items: Sequence[str]) -> list[Encoded]:
        """Turn sequences into ids."""
        batch = self._engine.encode_batch_fast(list(items), add_special_tokens=False)
        return [{"input_ids": np.array(e.ids, np.int32)} for e in batch]

    def measure_unknown(self, item: str, encoded: Encoded) -> tuple[int, int]:
        """Count the letters under unknown tokens, and all letters under tokens.

        Where there is no unknown token, letters that the words do not have vanish: then those
        under no token are counted, and all letters.
        """
        if self.unknown is None:
            return len(item) - int(np.diff(self.spans(item)).sum()), len(item)
        if not self.count_unknown(encoded):
            return 0, len(item)
        letters = np.diff(self.spans(item))[:, 0]
        return int(letters[encoded["input_ids"] == self.unknown].sum()), int(letters.sum())

    def files(self) -> dict[str, bytes]:
        """Return ``tokenizer.json`` and ``tokenizer_config.json``."""
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **self._settings}
        return {
            "tokenizer.json": (self._engine.to_str(pretty=True) + "\n").encode(),
            "tokenizer_config.json": (json.dumps(settings, indent=2) + "\n").encode(),
        }

    def spans(self, item: str) -> np.ndarray:
        """Return the letters that each token covers, shape (tokens, 2)."""
        offsets = self._engine.encode(item, add_special_tokens=False).offsets
        return np.array(offsets, np.int64).reshape(-1, 2)


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """Read the tokenizer that lies in a release folder; None where there is no tokenizer.json.

    A tokenizer that is a plain table of letters (no merges) is rebuilt as byte look-ups, which
    gives the same ids a hundred times faster.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FormatError(path, f"is no valid JSON ({error}).") from error
    if not isinstance(content, dict) or "model" not in content:
        raise FormatError(path, "is no tokenizer: it has no `model` entry.")
    settings_path = folder / "tokenizer_config.json"
    settings = json.loads(settings_path.read_text()) if settings_path.is_file() else {}
    special = {k: _text(v) for k, v in settings.items() if k.endswith("_token") and v}
    limit = settings.get("model_max_length")
    limit = int(limit) if limit and limit < 1e9 else None  # "no limit" is stored as 1e30
    side = settings.get("padding_side", "right")
    preset = _letter_preset(content, special, side, limit)
    if preset is not None:
        return LetterTokenizer(preset)
    return PublishedTokenizer(path, special, padding_side=side, max_tokens=limit)


def read_trained(folder: Path | None, rows: int, title: str) -> Tokenizer:
    """Read the tokenizer of a system whose words were trained, and cannot be made from nothing.

    Parameters
    ----------
    folder
        The release's; None for a model made from scratch.
    rows
        Words for which the weights have rows.
    title
        The system, for messages.

    Raises
    ------
    CheckpointError
        If there is no tokenizer.json, or it has more words than the weights.
    """
    tokenizer = read_tokenizer(folder) if folder else None
    if tokenizer is None:
        raise CheckpointError(
            f"{title} reads its words from tokenizer.json, and "
            + (f"{folder} has none. " if folder else "a model made from scratch has none yet. ")
            + "Copy it from the release, or train one with `lexome tokenizer`."
        )
    if len(tokenizer.vocabulary) > rows:
        raise CheckpointError(
            f"{folder}: tokenizer.json has {len(tokenizer.vocabulary)} words, the weights have "
            f"rows for {rows}. The two files belong to different models."
        )
    return tokenizer


def _letter_preset(
    content: dict[str, Any], special: dict[str, str], side: str, limit: int | None
) -> LetterPreset | None:
    """Recognise a tokenizer that is only a table of letters."""
    model = content["model"]
    added = {t["content"]: t["id"] for t in content.get("added_tokens") or ()}
    ids = {**model.get("vocab", {}), **added} if isinstance(model.get("vocab"), dict) else {}
    plain = (
        model.get("type") == "BPE"
        and not model.get("merges")
        and not model.get("fuse_unk")
        and not model.get("byte_fallback")
        and model.get("unk_token") in ids
        and content.get("post_processor") is None
        and (content.get("normalizer") or {"type": "Lowercase"}).get("type") == "Lowercase"
        and (content.get("pre_tokenizer") or {}).get("type") == "Whitespace"
        and sorted(ids.values()) == list(range(len(ids)))
        and all(len(t) == 1 for t in ids if t not in added)
    )
    pad = special.get("pad_token") or next((p for p in _PAD_NAMES if p in ids), None)
    if not plain or pad is None or pad not in ids:
        return None
    fold = content.get("normalizer") is not None
    if fold and any(t.isupper() for t in ids if len(t) == 1):
        return None
    return LetterPreset(
        name="published",
        vocabulary=tuple(sorted(ids, key=ids.__getitem__)),
        pad=pad,
        unknown=model["unk_token"],
        mask=special.get("mask_token"),
        fold_case=fold,
        drop_whitespace=True,
        padding_side=side,
        max_tokens=limit,
    )


def _text(value: Any) -> str:
    return value["content"] if isinstance(value, dict) else value
