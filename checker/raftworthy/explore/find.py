"""Looking for a state: a Python expression over a state's variables, compiled so that it can do nothing else.

s  the state: `s.n1.log`, `s[i].role`, `s.past.committed`, `s.messages`
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

from raftworthy.explore.bounds import UnusableError
from raftworthy.generated import Variables, World

ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp, ast.Add, ast.Sub,
    ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Is, ast.IsNot,
    ast.Call, ast.Attribute, ast.Subscript, ast.Slice, ast.Name, ast.Load, ast.Store, ast.Constant, ast.IfExp,
    ast.Tuple, ast.List, ast.Set, ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.comprehension,
)  # fmt: skip
FUNCTIONS: dict[str, Any] = {
    "all": all, "any": any, "len": len, "max": max, "min": min, "set": set, "sorted": sorted, "sum": sum,
}  # fmt: skip


class Shown:
    """A server's variables, or history's. A map has a value for every key."""

    def __init__(self, variables: Variables) -> None:
        self._variables = variables

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._variables, name)
        if isinstance(value, dict):
            nothing = self._variables.nothing[name]
            return defaultdict(lambda: nothing, {k: x for k, x in value.items() if x != nothing})
        return value


class View:
    """A state as a `find` expression sees it: servers by name, history as `past`, and the messages."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.servers = tuple(world.variables)
        self.past = Shown(world.past)
        self.messages = world.messages

    def __getitem__(self, i: str) -> Any:
        try:
            return Shown(self.world.variables[i])
        except (KeyError, TypeError):
            there = ", ".join((*self.world.variables, "past", "messages"))
            raise AttributeError(f"the state has no {i}; it has {there}") from None

    def __getattr__(self, i: str) -> Any:
        return self[i]


def helpers(s: Any) -> dict[str, Any]:
    """What an expression can use besides `s`."""

    def with_role(role: str) -> list[str]:
        return [i for i in s.servers if s[i].role == role]

    def terms(i: str) -> list[int]:
        """The terms of server i's entries."""
        return [e.term for e in s[i].log]

    return {
        "s": s,
        "servers": s.servers,
        "leaders": lambda: with_role("leader"),
        "candidates": lambda: with_role("candidate"),
        "terms": terms,
        **FUNCTIONS,
    }


HELPERS = ("s", "servers", "leaders", "candidates", "terms", *FUNCTIONS)
EXAMPLE = "write for instance 'len(leaders()) == 2' or '2 in terms(\"n1\")'"


class Compiled(NamedTuple):
    """An expression that does nothing but look at a state."""

    tree: ast.Expression
    names: frozenset[str]  # constants and attributes, which may be servers' names
    picks: bool  # whether it picks something by its place or by what was computed


def compiled(text: str) -> Compiled:
    """An expression, looked through.

    Raises:
        UnusableError: it is no expression, or does more than look at the state.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UnusableError(f"not an expression: {text[:200]!r}: {why}; {EXAMPLE}") from error
    bound = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names, picks = set[str](), False
    for n in ast.walk(tree):
        if not isinstance(n, ALLOWED):
            raise UnusableError(f"{type(n).__name__} can't be used in {text!r}; {EXAMPLE}")
        if isinstance(n, ast.Attribute):
            if n.attr.startswith("_"):
                raise UnusableError(f".{n.attr} can't be used in {text!r}; {EXAMPLE}")
            names.add(n.attr)
        if isinstance(n, ast.Name) and n.id not in HELPERS and n.id not in bound:
            raise UnusableError(f"{n.id} is not known in {text!r}; there are {', '.join(HELPERS)}")
        if isinstance(n, ast.Name) and n.id in HELPERS and n.id in bound:
            raise UnusableError(f"{n.id} already means something in {text!r}; choose another name")
        if isinstance(n, ast.Call) and not (isinstance(n.func, ast.Name) and n.func.id not in bound):
            raise UnusableError(
                f"only {', '.join(HELPERS[2:])} can be called in {text!r}, and no methods; {EXAMPLE}"
            )
        if isinstance(n, ast.Constant) and isinstance(n.value, str):
            names.add(n.value)
        # `servers[0]` and `min(leaders())` are names too.
        picks |= isinstance(n, ast.Subscript) and not isinstance(n.slice, ast.Name)
    try:
        compile(tree, "<find>", "eval")
    except RecursionError as error:
        raise UnusableError(f"not an expression: {text[:200]!r}: {error}; {EXAMPLE}") from error
    return Compiled(tree, frozenset(names), picks)


def predicate(text: str, servers: tuple[str, ...]) -> tuple[Callable[[World], bool], bool]:
    """A function of a state, from an expression, and whether it speaks of servers by name.

    If it does, states that differ only in servers' names are not alike.

    Raises:
        UnusableError: it is no expression, or does more than look at the state.
    """
    tree, names, picks = compiled(text)
    code = compile(tree, "<find>", "eval")

    def holds(world: World) -> bool:
        try:
            value = eval(code, {"__builtins__": {}, **helpers(View(world))})
        except Exception as error:  # whatever an expression can do wrong
            raise UnusableError(f"{text!r} can't be evaluated: {error}; {_where(world)}") from error
        if not isinstance(value, bool):
            raise UnusableError(f"{text!r} comes to {value!r:.60}, not to True or False; {EXAMPLE}")
        return value

    return holds, picks or bool(names & set(servers))


def _where(world: World) -> str:
    """A state in a line, so that one sees what an expression met."""
    told = (
        f"{i} {v.role}, term {v.current_term}, log {[e.term for e in v.log]}"
        for i, v in world.variables.items()
    )
    return f"in the state: {'; '.join(told)}"
