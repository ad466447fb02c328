"""Where the service writes: every way through ``chalicelib/index`` from a public function to a write, read from its source.

    writer.land > _write_all_but_the_last > _write_under_token          the public function first, the one that writes last
    writer.land > _end > _update > _write
    hosts.finish > _held

A history that writes gives the same names by its stack (``here``). So a new way to write, which no history has met, is known.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import chalicelib.index

INDEX = Path(chalicelib.index.__path__[0])
AGAIN = "again"
"""After a function that calls itself."""

_Name = tuple[str, str]
"""Module and name of a function or method."""


@dataclass
class _Function:
    calls: list[_Name]
    writes: bool = False
    """Whether it has a write in it, rather than in what it calls."""
    repeats: bool = False


@cache
def places() -> frozenset[str]:
    """All places that the rest of the service can come to."""
    functions = _functions()
    public = [name for name in functions if name[1] in _used() and not name[1].startswith("_")]
    found = {_named(way) for name in public for way in _ways(functions, name, ())}
    again = {
        f"{module}.{name}: {AGAIN}"
        for (module, name), function in functions.items()
        if function.repeats and any(_ways(functions, (module, name), ()))
    }
    return frozenset(found | again)


def here() -> str:
    """The place at which the caller's callers write: from where the index was last entered."""
    frame, way = sys._getframe(2), list[_Name]()
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(str(INDEX)):
            if way:
                break
        elif "<" not in code.co_qualname:
            way.append((Path(code.co_filename).stem, code.co_name))
        frame = frame.f_back  # type: ignore[assignment]
    way.reverse()
    for index, name in enumerate(way[:-1]):
        if name == way[index + 1]:
            return f"{name[0]}.{name[1]}: {AGAIN}"
    return _named(way)


def _named(way: list[_Name] | tuple[_Name, ...]) -> str:
    """Two functions that share the work of one write count as one."""
    if not way:
        return "outside the index"
    steps = way[:-1] if len(way) > 1 and way[-1][1].startswith("_") else way
    (module, first), *rest = steps
    return " > ".join([f"{module}.{first}", *(name if of == module else f"{of}.{name}" for of, name in rest)])


def _ways(functions: dict[_Name, _Function], name: _Name, before: tuple[_Name, ...]) -> Iterator[tuple[_Name, ...]]:
    function, way = functions[name], (*before, name)
    if function.writes:
        yield way
    for called in function.calls:
        if called in functions and called not in way:
            yield from _ways(functions, called, way)


@cache
def _used() -> set[str]:
    """The names of attributes that the service uses outside the index."""
    service = [*INDEX.parent.rglob("*.py"), *(INDEX.parent.parent / "subscriber").rglob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in service if path.parent != INDEX]
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def _functions() -> dict[_Name, _Function]:
    found: dict[_Name, _Function] = {}
    trees = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in INDEX.glob("*.py")}
    modules = {node.name: name for name, tree in trees.items() for node in tree.body if isinstance(node, ast.ClassDef)}
    for module, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                found[module, node.name] = _read(node, module, {})
            elif isinstance(node, ast.ClassDef):
                methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
                parts = _parts(methods, modules)
                for method in methods:
                    found[module, method.name] = _read(method, module, parts)
    return found


def _parts(methods: list[ast.FunctionDef], modules: dict[str, str]) -> dict[str, str]:
    """Which attribute of ``self`` is an object of a class of which module: ``self._state = State(...)``."""
    return {
        node.targets[0].attr: modules[node.value.func.id]
        for method in methods
        for node in ast.walk(method)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Attribute)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id in modules
    }


def _read(function: ast.FunctionDef, module: str, parts: dict[str, str]) -> _Function:
    found = _Function([])
    for node in ast.walk(function):
        match node:
            case ast.With(items=[ast.withitem(context_expr=ast.Name(id="transaction"))]):
                found.writes = True
            case ast.Call(func=ast.Name(id=name)):
                found.calls.append((module, name))
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                found.calls.append((module, name))
            case ast.Call(func=ast.Attribute(value=ast.Attribute(value=ast.Name(id="self"), attr=part), attr=name)) if (
                part in parts
            ):
                found.calls.append((parts[part], name))
            case ast.Call(func=ast.Attribute(value=ast.Name(id="transaction"))):
                pass  # a part of a write, which is made at the end of the transaction
            case ast.Call(func=ast.Attribute(attr="save" | "update" | "delete")):
                found.writes = True
    found.repeats = (module, function.name) in found.calls
    found.calls = [name for name in dict.fromkeys(found.calls) if name != (module, function.name)]
    return found
