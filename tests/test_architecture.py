"""The house: imports point one way, a file name stands once, public names say what they are."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import als

PACKAGE = Path(als.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

# From the ground up: a part may import from the lines above its own, and from its own part.
LAYERS = (
    ("errors", "classes"),
    ("files", "machine"),
    ("config", "images", "photographs"),
    ("data", "model"),
    ("baselines",),
    ("checkpoint",),
    ("explain", "hub"),
    ("inference",),
    ("drawing", "evaluation", "export"),
    ("training",),
    ("study", "tables", "views"),
    ("ui",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    return module.split(".")[1]


def walk(node: ast.AST, typing_too: bool) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        hints = isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING"
        if typing_too or not hints:
            yield from walk(child, typing_too)


def imports_of(path: Path, typing_too: bool = True) -> set[str]:
    """Modules of the package that a file imports, wherever in the file."""
    found = set()
    for node in walk(TREES[path], typing_too):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import; write it out"
            # A name is a module itself (`from als import ui`) or lies in one.
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith("als.")}


GRAPH = {module_name(path): imports_of(path) for path in FILES}
INSIDE = [module for module in GRAPH if module != "als"]


def test_every_part_has_a_layer():
    assert {part_of(module) for module in INSIDE} == set(LEVEL)


@pytest.mark.parametrize("module", INSIDE)
def test_imports_point_down(module):
    part = part_of(module)
    wrong = [
        name
        for name in GRAPH[module]
        if (other := part_of(name)) in LEVEL and other != part and LEVEL[other] >= LEVEL[part]
    ]
    assert not wrong, f"{module} imports {wrong}"


def test_measures_know_no_model():
    """Detections are judged, and maps measured, as plain arrays."""
    for module in ("average_precision", "coco_measures", "confusion", "bootstrap"):
        known = {part_of(name) for name in GRAPH[f"als.evaluation.{module}"]}
        assert known <= {"errors", "evaluation", "files"}, module


def test_the_graph_has_no_cycle():
    """What is imported for type hints alone needs nothing when the program runs."""
    graph = {module_name(path): imports_of(path, typing_too=False) for path in FILES}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way, module])
        if module not in done:
            for name in graph[module] & graph.keys():
                # A package imports its modules to name them; they do not need it in turn.
                if not (module == name or module.startswith(f"{name}.")):
                    visit(name, (*way, module))
            done.add(module)

    for module in INSIDE:
        visit(module, ())


def test_the_graph_is_read_at_all():
    assert {"als.model", "als.explain"} <= GRAPH["als.inference"]
    assert "als.model.rpn" in GRAPH["als.model.detector"]


def test_no_file_name_stands_twice():
    names = Counter(path.name for path in FILES if not path.name.startswith("__"))
    assert [name for name, count in names.items() if count > 1] == []


def public_definitions() -> list[tuple[str, ast.AST]]:
    """Functions, classes and methods without a leading underscore, by place."""
    found = []
    for path, tree in TREES.items():
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for body, owner in [(tree.body, ""), *((c.body, f"{c.name}.") for c in classes)]:
            for node in body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                    found.append((f"{module_name(path)}:{owner}{node.name}", node))
    return found


def test_public_names_are_documented():
    """Modules, classes and functions; methods that only carry out a base's promise are free."""
    assert [module_name(p) for p, tree in TREES.items() if not ast.get_docstring(tree)] == []
    bare = [
        place
        for place, node in public_definitions()
        if not ast.get_docstring(node) and "." not in place.split(":")[1]
    ]
    assert bare == []


LOADS = {"torch.load", "weights.get_state_dict"}  # the second is torchvision's download


def test_nothing_is_unpickled():
    calls = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                given = [ast.unparse(keyword) for keyword in node.keywords]
                calls.append((ast.unparse(node.func), given, f"{path.name}:{node.lineno}"))
    loads = [call for call in calls if call[0] in LOADS]
    assert {name for name, _, _ in loads} == LOADS
    assert [place for _, given, place in loads if "weights_only=True" not in given] == []
    assert [place for _, given, place in calls if "allow_pickle=True" in given] == []
    words = ("pickle.load", "joblib.load", "load_state_dict_from_url")
    assert [place for name, _, place in calls if any(word in name for word in words)] == []
