"""Check the signatures of failures: their form, their patterns and their fixtures.

    python tools/signatures.py                 all of them
    python tools/signatures.py MB-KV-001 ...   some
    python tools/signatures.py --file FILE     what a log or a .json of objects raises, with all of it
    python tools/signatures.py --quiet         only what is wrong

A file of signatures that cannot be read is named with its line; the others are checked all the same.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from modelberth.base.errors import SpecError
from modelberth.base.yamlio import write_documents
from modelberth.findings.diagnosis.catalogue import read_signatures, signature_files
from modelberth.findings.diagnosis.signature import Signature
from signature_checks import FIXTURES, diagnosed, failures, mistakes, unused_numbers


def main(arguments: list[str]) -> int:
    """Print what is wrong; 1 when anything is."""
    signatures, wrong = read()
    if arguments[:1] == ["--file"]:
        for name in arguments[1:]:
            found = diagnosed(Path(name), signatures)
            print(write_documents([_plain(asdict(found))]))
        return 0
    quiet = "--quiet" in arguments
    asked = [each for each in arguments if not each.startswith("-")]
    for name, signature in signatures.items():
        if asked and name not in asked:
            continue
        found = [*mistakes(signature, signatures), *failures(signature, signatures)]
        wrong += len(found)
        if found or not quiet:
            print(f"{name}  {'FAILED' if found else 'ok'}")
        for each in found:
            print(f"    {each}")
        if unused := unused_numbers(signature):
            print(f"    note: no text shows {', '.join(sorted(unused))}")
    for folder in sorted(FIXTURES.iterdir()) if FIXTURES.exists() else ():
        if folder.is_dir() and folder.name not in signatures:
            print(f"note: {folder.name} has fixtures and no signature")
    print(f"{len(signatures)} signatures, {wrong} mistakes")
    return 1 if wrong else 0


def read() -> tuple[dict[str, Signature], int]:
    """Every signature that can be read, and how many files cannot."""
    found: dict[str, Signature] = {}
    wrong = 0
    for name, content in signature_files():
        try:
            for each in read_signatures(content, name):
                if each.id in found:
                    print(f"{name}: {each.id} stands twice")
                    wrong += 1
                found[each.id] = each
        except SpecError as error:
            print(error.why)
            wrong += 1
    return found, wrong


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
