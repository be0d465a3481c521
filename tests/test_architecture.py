"""The import graph of the package: it points one way, and files stay short."""

import ast
from pathlib import Path

import pytest

import als

PACKAGE = Path(als.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING"


def walk(node: ast.AST, typing_too: bool):
    yield node
    for child in ast.iter_child_nodes(node):
        if typing_too or not is_typing_only(child):
            yield from walk(child, typing_too)


def imports_of(path: Path, typing_too: bool = True) -> set[str]:
    """Modules of the package that a file imports, wherever in the file.

    typing_too: also those that it imports for its type hints only.
    """
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    found = set()
    for node in walk(ast.parse(path.read_text(encoding="utf-8")), typing_too):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            # A name is a module itself (`from als import ui`) or lies in one.
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.split(".")[0] == "als"}


GRAPH = {module_name(path): imports_of(path) for path in FILES}


def is_within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


FORBIDDEN = [
    # (part, what it may not import)
    ("als.errors", ("als",)),
    ("als.config", ("als.data", "als.model", "als.evaluation", "als.explain", "als.training")),
    ("als.data", ("als.model", "als.training", "als.evaluation", "als.explain")),
    ("als.model", ("als.data", "als.training", "als.evaluation", "als.explain")),
    ("als.evaluation.average_precision", ("als.model", "als.training", "als.explain")),
    ("als.evaluation.coco_measures", ("als.model", "als.training", "als.explain")),
    ("als.training", ("als.explain",)),
    ("als.explain", ("als.training", "als.evaluation")),
    ("als.evaluation", ("als.training", "als.explain")),
]
LOWER = ("errors", "config", "images", "data", "model", "training", "evaluation", "explain")
ABOVE_LOWER = ("als.inference", "als.report")


@pytest.mark.parametrize(("part", "forbidden"), FORBIDDEN)
def test_imports_point_one_way(part, forbidden):
    wrong = [
        f"{module} imports {name}"
        for module, names in GRAPH.items()
        if is_within(module, part)
        for name in names
        if any(is_within(name, f) for f in forbidden) and not is_within(name, part)
    ]
    assert not wrong


@pytest.mark.parametrize("part", [f"als.{name}" for name in LOWER])
def test_lower_parts_know_no_predictor_or_report(part):
    if part == "als.evaluation":
        # evaluate.py may use a predictor
        modules = ["als.evaluation.average_precision", "als.evaluation.coco_measures"]
    else:
        modules = [module for module in GRAPH if is_within(module, part)]
    wrong = [
        f"{module} imports {name}"
        for module in modules
        for name in GRAPH[module]
        if any(is_within(name, above) for above in ABOVE_LOWER)
    ]
    assert not wrong


def test_nobody_imports_the_user_interfaces():
    wrong = [
        f"{module} imports {name}"
        for module, names in GRAPH.items()
        for name in names
        for top in ("als.ui", "als.cli")
        if is_within(name, top) and not is_within(module, top) and module != "als.__main__"
    ]
    # The command line starts the app; the app knows no command line.
    assert [w for w in wrong if not w.startswith("als.cli.app imports als.ui")] == []


def test_the_graph_has_no_cycle():
    edges = {module_name(path): imports_of(path, typing_too=False) & GRAPH.keys() for path in FILES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for name in edges.get(module, ()):
                # A package imports its modules to name them; they do not need it in turn.
                if not is_within(module, name):
                    visit(name, (*path, module))
            done.add(module)

    for module in edges:
        visit(module, ())


LOADS = {"torch.load", "weights.get_state_dict"}  # the second is torchvision's download


def test_nothing_is_unpickled():
    calls = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                given = [ast.unparse(keyword) for keyword in node.keywords]
                calls.append((ast.unparse(node.func), given, f"{path.name}:{node.lineno}"))
    loads = [call for call in calls if call[0] in LOADS]
    assert {name for name, _, _ in loads} == LOADS
    assert [place for _, given, place in loads if "weights_only=True" not in given] == []
    assert [place for _, given, place in calls if "allow_pickle=True" in given] == []
    words = ("pickle.load", "joblib.load", "load_state_dict_from_url")
    assert [place for name, _, place in calls if any(word in name for word in words)] == []


def test_the_graph_is_read_at_all():
    assert "als.model" in GRAPH["als.inference"] and "als.data.masks" in GRAPH["als.data.voc"]
    assert "als.model.rpn" in GRAPH["als.model.detector"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_name(path))
def test_files_stay_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 300, f"{path.name} has {lines} lines; split it"
