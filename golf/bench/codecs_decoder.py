"""What a coder's decoder costs in a submission, estimated.

It is the number of bytes by which the decoder's source, without comments and docstrings, lengthens an LZMA
stream of golf's other sources. Compressors that the image holds cost nothing. A program, which it does not
hold, costs its file, without the libraries that it loads.
"""

from __future__ import annotations

import ast
import functools
import inspect
import shutil
import textwrap
from pathlib import Path

from golf.bench.codecs_coders import Coder
from golf.storage import codec

SOURCES = Path(__file__).parents[1]


def _code(source: str) -> str:
    """Python source without comments and docstrings."""
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            texts = [
                each for each in body if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
            ]
            node.body = [each for each in body if each not in texts] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


@functools.cache
def _other_code() -> str:
    """golf's sources without its entropy coder and its measurements."""
    paths = sorted(path for path in SOURCES.rglob("*.py") if "bench" not in path.relative_to(SOURCES).parts)
    return "".join(_code(path.read_text(encoding="utf-8")) for path in paths if path.name != "entropy.py")


def decoder_bytes(coder: Coder) -> int:
    """Estimated bytes of a submission that the coder's code takes; a program counts as its file."""
    if coder.program:
        path = shutil.which(coder.program)
        return Path(path).stat().st_size if path else 0
    own = "".join(_code(inspect.getsource(each)) for each in coder.sources)
    return _lzma_bytes(_other_code() + own) - _lzma_bytes(_other_code())


@functools.cache
def _lzma_bytes(text: str) -> int:
    return len(codec.compress_lzma(text.encode(), 9))
