"""Documents made of rows: joined to articles or splits, and cut into pieces for the tokenizer."""

import re
from collections.abc import Iterator
from itertools import chain, pairwise

from oelm_lib.data import readers
from oelm_lib.data.readers import Piece
from oelm_lib.errors import UserError

MOST_UNCUT = 1 << 24
"""Most characters without white space: such text cannot be cut, so it is held in memory."""
_TITLE = re.compile(r" = [^=].* = (\r?\n)?")


def join_rows(rows: Iterator[Piece], articles: bool) -> Iterator[Piece]:
    """Join rows to one document, or to WikiText articles.

    The title of an article is a row ` = Title = ` between blank rows; lines may end in LF or CR LF.

    Args:
        rows: Rows of a split, in order.
        articles: Whether each article is a document; else the split is one.
    """
    before, has_text = "", False
    texts = chain((text for text, _ in rows), [""])
    for text, after in pairwise(texts):
        alone = not before.strip() and not after.strip()
        if articles and has_text and alone and _TITLE.fullmatch(text):
            yield "", True
        yield text, False
        has_text = has_text or bool(text.strip())
        before = text
    yield "", True


def cut_documents(rows: Iterator[Piece], strip: bool) -> Iterator[Piece]:
    """Cut long documents into pieces that encode to the same ids as the whole.

    A cut is made only before white space that follows text; no token spans such a place.

    Args:
        rows: Documents, whole or in parts.
        strip: Whether to take white space from the ends of documents and leave empty ones out.

    Raises:
        UserError: More than MOST_UNCUT characters without such a place.
    """
    rest, has_text = "", False
    for text, ends in rows:
        rest += text
        if strip and not has_text:
            rest = rest.lstrip()
        while len(rest) > 2 * readers.BLOCK and (cut := _find_cut(rest)):
            yield rest[:cut], False
            rest, has_text = rest[cut:], True
        if len(rest) > MOST_UNCUT:
            raise UserError(
                f"a document has {len(rest):,} characters without white space in a row"
                f" (it begins {rest[:40]!r}), more than {MOST_UNCUT:,}; divide it in the source"
            )
        if ends:
            rest = rest.rstrip() if strip else rest
            if rest or has_text or not strip:
                yield rest, True
            rest, has_text = "", False


def _find_cut(text: str) -> int:
    """Return a place where white space follows something else, after about BLOCK characters.

    0 where there is none.
    """
    for end in (readers.BLOCK, len(text)):
        head, *tail = text[:end].rsplit(maxsplit=1) or [""]
        # Python takes U+001C .. U+001F for white space, the tokenizers' patterns do not.
        if tail and text[len(head)] not in "\x1c\x1d\x1e\x1f":
            return len(head)
    return 0
