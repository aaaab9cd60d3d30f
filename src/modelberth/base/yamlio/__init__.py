"""YAML read with positions and written without ambiguity. The only room that knows the `yaml` library.

Reading takes what YAML 1.1 and 1.2 readers agree on. A plain scalar that they read differently (`yes`,
`1e3`, `0o14`, `22:22`, `2026-11-23`) is refused with the advice to quote it, because an editor, a cluster
and we would otherwise see three different values. Duplicate keys, aliases, tags, NaN, several documents
and oversized or deeply nested input are refused too, each with its position.

`read_documents` reads what others have written, as kubectl does: several documents, aliases, any word.

Writing quotes every string that either dialect would read as something else.
"""

from modelberth.base.yamlio.dialects import is_ambiguous
from modelberth.base.yamlio.document import Document, Path, Position, path_text
from modelberth.base.yamlio.lenient import LooseDocument, Span, read_documents
from modelberth.base.yamlio.reading import MAX_BYTES, MAX_DEPTH, read_document
from modelberth.base.yamlio.writing import write_documents

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "Document",
    "LooseDocument",
    "Path",
    "Position",
    "Span",
    "is_ambiguous",
    "path_text",
    "read_document",
    "read_documents",
    "write_documents",
]
