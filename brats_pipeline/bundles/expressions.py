"""What a ``$`` expression of a configuration would do, judged by its syntax tree and without evaluating it.

MONAI replaces references in the text of an expression before Python reads it, inside of quotes too: what lies between
two references in a string can become code. So the text that is judged here is the one that Python would be given.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

from brats_pipeline.bundles.harmless import ATTRIBUTES, BUILTINS, METHODS, Names

REFERENCE = re.compile(r"@\w*(?:::\w*)*")
RELATIVE = re.compile(r"[@%]::")
REFERENCES = "__local_refs"
"""The dictionary that a reference becomes an item of."""
PATH_PATTERN = f"sys.path.insert(0, {REFERENCES}['bundle_root'])"
"""How a bundle with a package of its own puts itself on Python's path."""

_HARMLESS_NODES = (
    *(ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Starred, ast.Slice, ast.IfExp),
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd, ast.Compare),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is, ast.IsNot, ast.In, ast.NotIn),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr),
    *(ast.Load, ast.keyword),
)
"""Syntax that does nothing by itself; its parts are judged one by one."""
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_WORDS = {
    ast.Lambda: "defines a function (lambda)",
    ast.NamedExpr: "assigns a name (:=)",
    ast.Await: "waits for another task",
    ast.JoinedStr: "formats a string (f'...')",
    ast.Pow: "raises to a power, which can take any time",
    ast.LShift: "shifts bits, which can take any memory",
    ast.MatMult: "has an @ that belongs to no reference",
}


def as_python(expression: str) -> str:
    """The text that MONAI hands to Python for an expression, which comes without its ``$``."""
    text = expression.replace("#", "::")
    for reference in sorted(REFERENCE.findall(text), key=len, reverse=True):
        text = text.replace(reference, f"{REFERENCES}['{reference[1:]}']")
    return text


def problem_of(expression: str, names: Names) -> str | None:
    """What keeps an expression from being harmless, in words; None where nothing does.

    Args:
        expression: without its ``$``.
        names: what may be imported, called and read.
    """
    if RELATIVE.search(expression.replace("#", "::")):
        return "refers to an id by its relative place, whose names become part of the text"
    text = as_python(expression)
    try:
        statements = ast.parse(text).body
        if len(statements) != 1:
            return "is not one expression"
        if isinstance(statements[0], ast.Import | ast.ImportFrom):
            return "imports at another place than the list `imports`"
        tree = ast.parse(text, mode="eval")
        return _fault(tree.body, names, frozenset())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "is nothing that Python can read"


def problem_of_import(text: str, names: Names) -> str | None:
    """What keeps an entry of the list ``imports`` from being harmless.

    Args:
        text: without its ``$``.
        names: what may be imported.
    """
    if re.search(r"[@#%]", text):
        return "imports something that is not known before it runs"
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError):
        return "is nothing that Python can read"
    if len(statements) != 1 or not isinstance(statements[0], ast.Import):
        return "is no plain `import X`"
    for alias in statements[0].names:
        if alias.asname is not None and (alias.name, alias.asname) != ("numpy", "np"):
            return f"gives {alias.name} another name ({alias.asname})"
        if alias.name not in names.modules:
            return f"imports {alias.name}"
    return None


def _fault(node: ast.AST, names: Names, bound: frozenset[str]) -> str | None:
    """The first fault of a part of an expression; ``bound`` are the variables of the comprehensions around it."""
    match node:
        case ast.Subscript(value=ast.Name(id="__local_refs"), slice=ast.Constant(value=str() as reference)):
            return f"takes hold of a module (@{reference})" if is_import_id(reference) else None
        case ast.Name(id=name):
            return None if name in bound else f"uses the name {name}"
        case ast.Subscript(value=value, slice=index):
            return _first([value, index], names, bound)
        case ast.Attribute():
            return _attribute_fault(node, names, bound)
        case ast.Call():
            return _call_fault(node, names, bound)
    if isinstance(node, _COMPREHENSIONS):
        return _comprehension_fault(node, names, bound)
    if isinstance(node, _HARMLESS_NODES):
        return _first(ast.iter_child_nodes(node), names, bound)
    return _WORDS.get(type(node), f"has a part of a kind that is not known ({type(node).__name__})")


def _first(nodes: Iterable[ast.AST], names: Names, bound: frozenset[str]) -> str | None:
    return next((fault for node in nodes if (fault := _fault(node, names, bound)) is not None), None)


def _attribute_fault(node: ast.Attribute, names: Names, bound: frozenset[str]) -> str | None:
    dotted = _dotted(node, names, bound)
    if dotted is not None:
        return None if dotted in names.values else f"reads {dotted}"
    if node.attr not in ATTRIBUTES:
        return f"reads the attribute .{node.attr}"
    return _fault(node.value, names, bound)


def _call_fault(node: ast.Call, names: Names, bound: frozenset[str]) -> str | None:
    if names.package is not None and ast.unparse(node) == PATH_PATTERN:
        return None
    fault: str | None = None
    match node.func:
        case ast.Name(id=name):
            fault = None if name in BUILTINS and name not in bound else f"calls {name}"
        case ast.Attribute() as function:
            dotted = _dotted(function, names, bound)
            if dotted is not None:
                fault = None if dotted in names.calls else f"calls {dotted}"
            elif function.attr not in METHODS:
                fault = f"calls the method .{function.attr}()"
            else:
                fault = _fault(function.value, names, bound)
        case _:
            fault = "calls what an expression gives"
    return fault or _first([*node.args, *node.keywords], names, bound)


def _comprehension_fault(
    node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, names: Names, bound: frozenset[str]
) -> str | None:
    taken = BUILTINS | {REFERENCES} | {name.partition(".")[0] for name in (*names.modules, *names.calls, *names.values)}
    inner = bound
    for part in node.generators:
        targets = part.target.elts if isinstance(part.target, ast.Tuple) else [part.target]
        for target in targets:
            if not isinstance(target, ast.Name) or target.id in taken or target.id.startswith("_"):
                return f"binds {ast.unparse(target)} to something else"
        fault = _fault(part.iter, names, inner)
        inner |= {target.id for target in targets if isinstance(target, ast.Name)}
        if part.is_async:
            return "waits for another task"
        if fault := fault or _first(part.ifs, names, inner):
            return fault
    results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    return _first(results, names, inner)


def _dotted(node: ast.Attribute, names: Names, bound: frozenset[str]) -> str | None:
    """``"torch.cuda.is_available"`` where names lead from a module to it; None where it starts at a value."""
    match node.value:
        case ast.Attribute() as value:
            start = _dotted(value, names, bound)
        case ast.Name(id=name):
            start = None if name in bound else name
        case ast.Subscript(value=ast.Name(id="__local_refs"), slice=ast.Constant(value="scripts")):
            start = names.package
        case _:
            start = None
    return None if start is None else f"{start}.{node.attr}"


def is_import_id(reference: str) -> bool:
    """Whether a reference leads into the list of imports, where the modules themselves are."""
    return reference.replace("#", "::").lstrip("+").split("::")[0] == "imports"
