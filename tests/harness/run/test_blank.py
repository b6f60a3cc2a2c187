"""Docstrings and comments are blanked; what runs, and where it stands, is as written."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

from harness.base.paths import ROOT
from harness.run.blank import blanked
from harness.run.import_closure import sources_of

GOLF = sources_of(ROOT / "golf")


def code(text: str) -> bytes:
    return textwrap.dedent(text).encode()


@pytest.mark.parametrize(
    ("written", "counted"),
    [
        ('"""What."""\nx = 1\n', "\nx = 1\n"),
        ('"""What,\nand\nwhy."""\nx = 1\n', "\n\n\nx = 1\n"),
        ("x = 1  # why\n# more\ny = 2   \n", "x = 1\n\ny = 2\n"),
        ("def f():\n    '''What.'''\n    return 1\n", "def f():\n\n    return 1\n"),
        ("class A:\n    x: int = 0\n    '''Field.'''\n", "class A:\n    x: int = 0\n"),
        ("class E(Exception):\n    '''What.'''\n", 'class E(Exception):\n    ""\n'),
        ("class E(Exception): 'What.'\n", "class E(Exception): 'What.'\n"),
        ("def f():\n    'a'\n    'b'\n", 'def f():\n    ""\n'),
        ("if x:\n    'a'\nelse:\n    'b'\n", 'if x:\n    ""\nelse:\n    ""\n'),
        ("'a'; x = 1\n", "'a'; x = 1\n"),
        ("x = 1; 'a'  # c\n", "x = 1; 'a'\n"),
        ("'''a  \n'''; x = 1\n", "'''a  \n'''; x = 1\n"),
        ("'''a\n'''; x = 1\n", "'''a\n'''; x = 1\n"),
        ("'a'\nfrom __future__ import annotations\n", "\nfrom __future__ import annotations\n"),
        ("('a'\n 'b')\nx = 1\n", "\n\nx = 1\n"),
        ("x = '''a  \n# b  \n'''  # c\n", "x = '''a  \n# b  \n'''\n"),
        ("x = f'''{a}  \n# b  \n'''\n", "x = f'''{a}  \n# b  \n'''\n"),
        ("x = '#'\ny = \"é#\"  # é\n", "x = '#'\ny = \"é#\"\n"),
        ("x = [  # a\n    1,\n\n    # b\n    2,\n]\n", "x = [\n    1,\n\n\n    2,\n]\n"),
        ("b'''bytes'''\nf'{x}'\n", "b'''bytes'''\nf'{x}'\n"),
        ("x = 1\r\n# c\r\ny = '''\r\n'''\r\n", "x = 1\n\ny = '''\n'''\n"),
        ("#!/usr/bin/python\n# nothing else\n", ""),
        ("", ""),
    ],
)
def test_docstrings_comments_and_trailing_spaces_go_and_nothing_else(written: str, counted: str) -> None:
    assert blanked(written.encode()).decode() == counted
    assert blanked(counted.encode()).decode() == counted, "blanking twice changes nothing"


def test_a_source_whose_syntax_tree_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="2,000,000 bytes, expected at most 500,000"):
        blanked(b"1," * 1_000_000)


def test_a_source_in_another_encoding_becomes_utf_8() -> None:
    written = "# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1")
    assert blanked(written) == "\nx = 'é'\n".encode()


def test_annotations_and_the_strings_in_them_stay() -> None:
    written = code("""
        from __future__ import annotations
        x: Annotated[int, "a range"] = 1  # why
        def f(a: "int" = 1) -> "str":
            return "text"
        """)
    assert blanked(written) == written.replace(b"  # why", b"")


@pytest.mark.parametrize("written", [b"x = (\n", b"x = \xff\n", b"x = 1\0\n"])
def test_what_does_not_parse_is_refused(written: bytes) -> None:
    with pytest.raises((SyntaxError, ValueError)):
        blanked(written)


class WithoutStrings(ast.NodeTransformer):
    """Leaves out the statements that are only a string."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        value = node.value
        return None if isinstance(value, ast.Constant) and isinstance(value.value, str) else node


@pytest.mark.slow
def test_the_contestants_sources_have_the_same_statements_on_the_same_lines() -> None:
    for name, text in list(GOLF.items())[::5]:  # `blanked` itself compares them all
        written, counted = (WithoutStrings().visit(ast.parse(each)) for each in (text, blanked(text)))
        assert ast.unparse(counted) == ast.unparse(written), name
        lines = [
            [node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt | ast.expr)]
            for tree in (written, counted)
        ]
        assert lines[0] == lines[1], name


def test_the_contestant_keeps_no_docstring_and_no_comment() -> None:
    for name in ("golf/recipe/schema.py", "golf/model/layers.py", "golf/storage/codec.py"):
        counted = blanked(GOLF[name])
        assert b"  #" not in counted
        for node in ast.walk(ast.parse(counted)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                assert not ast.get_docstring(node), f"{name}: {node}"


def test_a_package_may_lie_anywhere(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for name in ("__init__", "__main__"):
        (tmp_path / "p" / f"{name}.py").write_text("x = 1\n")
    assert set(sources_of(tmp_path / "p")) == {"p/__init__.py", "p/__main__.py"}
