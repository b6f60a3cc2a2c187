"""Contestants from one source: a hostile one is the honest one with some functions replaced.

They speak the protocol with the standard library alone, so their tests need neither torch nor golf.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

HONEST = Path(__file__).parent / "contestants" / "honest.py"


def contestant_source(override: str = "") -> str:
    """Source of the honest contestant, with some of its functions redefined by the source text `override`."""
    head, tail = HONEST.read_text(encoding="utf-8").split('if __name__ == "__main__":')
    return f'{head}{override}\n\nif __name__ == "__main__":{tail}'


def pyz(override: str = "") -> bytes:
    """code.pyz of that contestant."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", contestant_source(override))
    return buffer.getvalue()
