"""Every link between pages and to files of the repository leads somewhere."""

import re

import pytest
from docs.pages import PAGES, ROOT, name_of

REPOSITORY = re.compile(r"https://github\.com/adaptivefreeze/adaptivefreeze/(?:blob|tree)/main/")
LINK = re.compile(r"\]\(\s*([^)\s]+)\s*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)


def anchors(path):
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for direct, reference in LINK.findall(text):
        link = direct or reference
        local = REPOSITORY.sub("", link)
        if re.match(r"\w+:", local):  # elsewhere on the web
            continue
        name, _, anchor = local.partition("#")
        base = ROOT if local != link else page.parent
        target = (base / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_reference_links_are_defined():
    for page in PAGES:
        text = page.read_text()
        used = set(re.findall(r"\]\[([\w-]+)\]", text))
        defined = set(re.findall(r"^\[([\w-]+)\]:", text, re.MULTILINE))
        assert used <= defined, name_of(page)
        if page.is_relative_to(ROOT / "docs"):
            assert defined <= used, name_of(page)
