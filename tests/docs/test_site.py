"""The documentation builds without a warning, and a page loads nothing from elsewhere."""

import os
import re
import subprocess
import sys

from docs.pages import ROOT

import adaptivefreeze


def test_the_site_builds_strictly_and_offline(tmp_path):
    site = tmp_path / "site"
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        html = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]+src=[\"']?([^\"' >]+)", html)
        loaded += re.findall(r"<link[^>]+rel=[\"']?stylesheet[^>]+href=[\"']?([^\"' >]+)", html)
        assert not [address for address in loaded if re.match(r"(?:https?:)?//", address)], page.name
        assert "api.github.com" not in html


def test_every_public_name_is_in_the_reference():
    reference = "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    documented = set(re.findall(r"^::: adaptivefreeze\.(\w+)$", reference, re.MULTILINE))
    assert set(adaptivefreeze.__all__) == documented
