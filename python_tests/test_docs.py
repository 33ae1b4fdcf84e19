"""The pages in docs/ name tests and files that exist, and the code on them runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

import cgsv_ext

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]

pytestmark = [
    pytest.mark.cpu_kernels,
    pytest.mark.skipif(not (ROOT / "bench").is_dir(), reason="needs the whole source tree"),
]

NAMED = re.compile(r"`(test_\w+)\.py(?:::(\w+))?`")


def defined(module: str) -> set[str]:
    """Names of a test file's functions, classes and module-level variables."""
    tree = ast.parse((ROOT / "python_tests" / f"{module}.py").read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def test_every_test_that_a_page_names_exists() -> None:
    named = {(page.name, *found) for page in PAGES for found in NAMED.findall(page.read_text())}
    assert sum(page == "reliability.md" for page, *_ in named) > 20
    wrong = [
        f"{page}: {module}.py::{name}"
        for page, module, name in sorted(named)
        if not (ROOT / "python_tests" / f"{module}.py").exists() or (name and name not in defined(module))
    ]
    assert wrong == []


def test_every_file_that_a_page_names_in_full_exists() -> None:
    for page in PAGES:
        for path in re.findall(
            r"`((?:csrc|python_tests|bench|examples|cgsv_ext)/[\w./-]+\.\w+)`", page.read_text()
        ):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def anchors(page: Path) -> set[str]:
    """What GitHub calls a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_page_about_the_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for block in blocks("docs/server.md"):
        exec(block, names)
    again = names["again"]
    assert isinstance(again, cgsv_ext.RewardServer)
    assert again.round == 10


def test_the_servers_lines_in_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in blocks("README.md") if "RewardServer" in block)
    model = torch.nn.Linear(3, 2)
    names = {"cgsv_ext": cgsv_ext, "model": model, "update": model.state_dict()}
    exec(block, names)
    assert names["reward"].round == names["server"].round == 1
