"""Hooks of mkdocs: the site holds what the pages of this repository link to, each file once.

A page is written for the repository, where `../als/config.py` and `docs/data.md` are right. On the
site all of docs/ lies at the top, so links are turned here, and every linked file goes along.
"""

import os.path
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
BESIDE = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
LIST_OR_TABLE = re.compile(r"- |\d+\. |\|")


def on_files(files: Files, config) -> Files:
    """Add the pages beside docs/, and all that any page links to."""
    there = [file.src_uri for file in files.documentation_pages()]
    waiting = [*BESIDE, *(f"docs/{name}" for name in there)]
    known = set(waiting)
    while waiting:
        name = waiting.pop()
        if files.get_file_from_path(_on_site(name)) is None:
            path = str(ROOT / name)
            files.append(File.generated(config, _on_site(name), abs_src_path=path))
        if name.endswith(".md"):
            linked = {_target(name, link) for link, _ in LINK.findall((ROOT / name).read_text())}
            new = {one for one in linked if (ROOT / one).is_file()} - known
            known |= new
            waiting += sorted(new)
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Turn links, and part lists and tables from the line before, which GitHub needs not."""
    site = page.file.src_uri
    name = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()

    def turned(match: re.Match) -> str:
        target = _target(name, match[1])
        link = os.path.relpath(_on_site(target), os.path.dirname(site) or ".")
        return f"]({link}{match[2] or ''})"

    return "\n".join(_parted(LINK.sub(turned, markdown).split("\n")))


def _target(name: str, link: str) -> str:
    """A link of a file, from the top of the repository."""
    return os.path.normpath(os.path.join(os.path.dirname(name), link))


def _on_site(name: str) -> str:
    return "index.md" if name == "README.md" else name.removeprefix("docs/")


def _parted(lines: list[str]) -> list[str]:
    parted, code = [], False
    for before, line in zip(["", *lines], lines, strict=False):
        code ^= line.startswith("```")
        begins = LIST_OR_TABLE.match(line) and not LIST_OR_TABLE.match(before)
        if begins and not code and before.strip() and not before.startswith(" "):
            parted.append("")
        parted.append(line)
    return parted
