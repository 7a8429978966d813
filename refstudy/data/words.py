"""Expressions to word pieces: BERT's tokenizer, with the words of RefScenes when no vocabulary is given."""

import functools
import string
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import BertTokenizerFast

from refstudy.base.errors import StudyError
from refstudy.data.scenes.grammar import vocabulary

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def build_tokenizer(vocab: Path | str | None = None) -> BertTokenizerFast:
    """The uncased BERT tokenizer: that of RefScenes, or the one of a vocabulary file or of a pretrained BERT.

    ``vocab`` is a file with one word piece a line, a folder as transformers saves it, or a name on the hub. RefScenes'
    vocabulary ends in single characters, so that any word can be spelled. Raises StudyError when nothing is there.
    """
    if vocab is None:
        return _scenes_tokenizer()
    remedy = f"{vocab}: vocabulary not found; name a BERT vocab.txt or a folder that holds one"
    try:
        if Path(vocab).is_file():
            return BertTokenizerFast(vocab=str(vocab), do_lower_case=True)
        tokenizer = BertTokenizerFast.from_pretrained(str(vocab))
    except (OSError, ValueError, TypeError) as error:
        raise StudyError(remedy) from error
    if len(tokenizer) <= len(SPECIAL):  # what transformers makes of a folder without one
        raise StudyError(remedy)
    return tokenizer


@functools.cache
def _scenes_tokenizer() -> BertTokenizerFast:
    characters = string.ascii_lowercase + string.digits
    words = sorted({*vocabulary(), *characters})
    pieces = [*SPECIAL, *words, *(f"##{character}" for character in characters)]
    return BertTokenizerFast(vocab={piece: number for number, piece in enumerate(pieces)}, do_lower_case=True)


def tokenize(tokenizer: BertTokenizerFast, expressions: Sequence[str], max_words: int = 20) -> tuple[np.ndarray, ...]:
    """Expressions to ids int64 (E, max_words) and mask bool (E, max_words).

    [CLS] and [SEP] are among the ``max_words`` places, as in LAVT; longer expressions are clipped before [SEP].
    """
    padded = {"padding": "max_length", "truncation": True, "max_length": max_words, "return_tensors": "np"}
    encoded = tokenizer(list(expressions), **padded)
    return encoded["input_ids"].astype(np.int64), encoded["attention_mask"].astype(bool)


def strange_words(tokenizer: BertTokenizerFast, expression: str) -> list[str]:
    """The words of an expression that are not in the vocabulary, in their order: those that it maps to [UNK], and those
    that it can only spell character by character. Punctuation counts as a word only if there is nothing else."""
    words = dict.fromkeys(word for word, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(expression))
    spoken = [word for word in words if any(unicodedata.category(letter)[0] != "P" for letter in word)]
    return [word for word in spoken or words if _is_strange(tokenizer, word)]


def _is_strange(tokenizer: BertTokenizerFast, word: str) -> bool:
    pieces = tokenizer.tokenize(word)
    spelled = len(pieces) > 1 and all(len(piece.removeprefix("##")) == 1 for piece in pieces)
    return tokenizer.unk_token in pieces or spelled
