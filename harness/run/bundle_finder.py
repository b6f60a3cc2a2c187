"""Import a package from one compressed stream beside this file: code.pyz starts with this source.

It is counted, so it is short. Tracebacks, `inspect` and compilers of kernels get the sources by `get_source`.
The layout is that of harness/run/bundle_archive.py, which checks it; this source checks nothing.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import lzma
import os
import sys
import traceback
import zipimport
from typing import Any


class Finder(importlib.abc.SourceLoader):
    """Finds and loads the modules of an archive."""

    def __init__(self, archive: str) -> None:
        packed = zipimport.zipimporter(archive).get_data("sources.lzma")
        fields = lzma.decompress(packed).split(b"\0")
        self.archive = archive
        pairs = zip(fields[::2], fields[1::2], strict=True)
        self.sources = {f"{archive}/{name.decode()}": text for name, text in pairs}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        try:
            self.get_filename(name)
        except ImportError:
            return None
        return importlib.util.spec_from_loader(name, self)

    def get_filename(self, name: str) -> str:
        base = f"{self.archive}/{name.replace('.', '/')}"
        for file in (f"{base}/__init__.py", f"{base}.py"):
            if file in self.sources:
                return file
        raise ImportError(name)

    def get_data(self, path: str) -> bytes:
        return self.sources[path]


def install() -> None:
    """Import from the archive that is running, and show its lines where an error ends the program."""
    sys.meta_path.insert(0, Finder(os.path.dirname(__file__)))
    sys.excepthook = traceback.print_exception
