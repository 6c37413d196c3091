"""The page in a real browser: nothing overflows, overlaps, fails or is requested, and hovering shows numbers."""

import shutil
from itertools import combinations

import pytest
from results import MODEL, TASK, made, searched

from adaptivefreeze import FreezeMask, Timeline
from adaptivefreeze.comparison.result import SignalRecord
from adaptivefreeze.model.timeline import Change
from adaptivefreeze.report.load import summarize_search
from adaptivefreeze.report.page import render
from adaptivefreeze.report.summary import summarize_runs

CHANGES = [
    Change(0, FreezeMask(MODEL.blocks), "start"),
    *(Change(5 * k, FreezeMask.first(MODEL.blocks, k), f"{k} blocks have converged") for k in (1, 2, 3)),
]
HOSTILE = "modules:<script>alert('x')</script>\"&ғалым🙂"


def crowded():
    """Runs of many scenarios whose points lie close together, one of them with decisions and a signal."""
    names = ["nothing", *(f"{side}:{k}" for side in ("bottom-up", "top-down") for k in range(1, 5)), HOSTILE]
    runs = [
        made(
            name,
            seed,
            seconds=20.0 - place - seed / 10,
            macro_f1=0.9 - place / 500 + seed / 300,
            curve=[(float(5 * i), 0.5 + i / 20 - place / 100) for i in range(8)],
            timeline=tuple(Timeline([Change(0, FreezeMask.first(4, place % 5), "static")]).to_json()),
        )
        for place, name in enumerate(names)
        for seed in (0, 1, 2)
    ]
    signals = tuple(
        SignalRecord(step, "gradient changes", {"embeddings": 0.1, "block 0": step / 20, "block 3": 1.0})
        for step in (5, 10, 15)
    )
    moving = made("autofreeze", 0, timeline=tuple(Timeline(CHANGES).to_json()), signals=signals, energy_joules=20.0)
    return [*runs, moving]


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium can be started: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages by name, as file URLs."""
    folder = tmp_path_factory.mktemp("pages")
    one = summarize_runs(crowded())
    other = summarize_runs([made("nothing", task=TASK), made("bottom-up:2", seconds=5.0)])
    made_pages = {"study": (one,), "search": (summarize_search(searched()),), "several": (one, other)}
    for name, summaries in made_pages.items():
        (folder / f"{name}.html").write_text(render(summaries), encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in made_pages}


@pytest.fixture
def opened(browser, pages, request):
    """The page of the test's parameters, and what went wrong in it."""
    from playwright.sync_api import expect

    name, width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda made: wrong.append(made.url) if made.url != pages[name] else None)
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.goto(pages[name])
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    # A function to wait for would be evaluated in the page, which its content security policy forbids.
    expect(page.locator(".plot:not(:has(svg))")).to_have_count(0)
    yield page, wrong
    context.close()


EVERYWHERE = [
    (name, width, scheme)
    for name in ("study", "search", "several")
    for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"))
]


@pytest.mark.parametrize("opened", EVERYWHERE, indirect=True, ids=lambda case: "-".join(map(str, case)))
def test_nothing_overflows_overlaps_fails_or_is_requested(opened):
    page, wrong = opened
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    outside = page.evaluate(
        """[...document.querySelectorAll('body *:not(.tip)')].filter((element) => !element.closest('.wide, svg, .tip'))
           .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
           .map((element) => element.outerHTML)"""
    )
    assert outside == []
    for figure in page.query_selector_all("figure"):
        texts = figure.eval_on_selector_all(
            ".plot svg text",
            """(texts) => texts.map((text) => {
                 const box = text.getBoundingClientRect();
                 return [text.textContent, box.left, box.top, box.right, box.bottom];
               })""",
        )
        assert texts
        overlaps = [(a[0], b[0]) for a, b in combinations(texts, 2) if overlap(a[1:], b[1:])]
        assert overlaps == [], figure.get_attribute("data-title")
        frame = figure.query_selector(".plot svg").bounding_box()
        cut = [t[0] for t in texts if t[1] < frame["x"] - 1 or t[3] > frame["x"] + frame["width"] + 1]
        assert cut == []
        crossed = figure.eval_on_selector_all(
            ".error",
            """(bars) => bars.flatMap((bar) => {
                 const a = bar.getBoundingClientRect();
                 return [...bar.closest("svg").querySelectorAll(".label")].filter((label) => {
                   const b = label.getBoundingClientRect();
                   return a.left < b.right - 1 && a.right > b.left + 1 && a.top < b.bottom - 1 && a.bottom > b.top + 1;
                 }).map((label) => label.textContent);
               })""",
        )
        assert crossed == [], figure.get_attribute("data-title")
    assert wrong == []


def overlap(one, other):
    """Whether two boxes (left, top, right, bottom) share more than their edges."""
    return min(one[2], other[2]) - max(one[0], other[0]) > 1 and min(one[3], other[3]) - max(one[1], other[1]) > 1


@pytest.mark.parametrize("opened", [("study", 1280, "light"), ("study", 390, "dark")], indirect=True)
def test_hovering_shows_the_numbers(opened):
    page, _ = opened
    figure = page.query_selector("figure[data-title^='Quality against training time']")
    figure.scroll_into_view_if_needed()
    box = figure.query_selector("[data-name='full fine-tuning'] path[transform]").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = figure.query_selector(".tip")
    assert tip.is_visible()
    assert tip.inner_text().startswith("nothing: macro F1 90.3 ± 0.8, 19.9 s")
    page.mouse.move(1, 1)
    assert not tip.is_visible()


@pytest.mark.parametrize("opened", [("study", 1280, "light")], indirect=True)
def test_hovering_over_a_freeze_map_shows_the_reason(opened):
    page, _ = opened
    figure = page.query_selector("figure[data-title='autofreeze, seed 0']")
    figure.scroll_into_view_if_needed()
    box = figure.query_selector(".trained").bounding_box()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 10)
    assert "2 blocks have converged" in figure.query_selector(".tip").inner_text()
    assert "gradient changes: 0.1 to 1" in figure.query_selector(".plot svg").text_content()


@pytest.mark.parametrize("opened", [("study", 1280, "light")], indirect=True)
def test_ticks_of_depths_are_whole(opened):
    page, _ = opened
    figure = page.query_selector("figure[data-title='Quality against depth']")
    ticks = figure.eval_on_selector_all("text.tick[text-anchor=middle]", "(texts) => texts.map((t) => t.textContent)")
    assert ticks == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("opened", [("study", 1280, "dark")], indirect=True)
def test_hostile_labels_are_text(opened):
    page, wrong = opened
    assert HOSTILE in page.inner_text("table")
    assert wrong == []
