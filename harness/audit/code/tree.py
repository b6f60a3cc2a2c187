"""Walking syntax trees fast: what `ast.walk` gives, without the marks of loading and storing that no rule visits.

Reading 1,700 folders is mostly walking; these two are about twice as fast as the library's. Not covered: what is looked for.
"""

from __future__ import annotations

import ast


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below `node`, in the order of its fields."""
    found: list[ast.AST] = []
    for field in node._fields:
        if field != "ctx":
            value = getattr(node, field, None)
            if isinstance(value, ast.AST):
                found.append(value)
            elif value.__class__ is list:
                found += [part for part in value if isinstance(part, ast.AST)]
    return found


def walk(node: ast.AST) -> list[ast.AST]:
    """`node` and all below it, nearer ones first."""
    found = [node]
    for each in found:  # grows while it is read
        found += children(each)
    return found
