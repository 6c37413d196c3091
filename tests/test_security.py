"""What comes from data, specs and models is text: it is not executed, and it names no file outside of the output."""

import ast
import json
import os
import pickle
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from results import TASK, failed, folder_of, made
from tiny import save_model, save_tags

from adaptivefreeze import RequestError, parse_policy
from adaptivefreeze.cli.request import Request
from adaptivefreeze.comparison import StudyFolder
from adaptivefreeze.comparison.folder import file_name
from adaptivefreeze.data import load_task
from adaptivefreeze.policies.registry import load_plugins
from adaptivefreeze.report.publish import publish_folders

PACKAGE = Path(__file__).parents[1] / "adaptivefreeze"
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
CALLS = {"eval", "exec", "compile", "torch.load", "np.load", "numpy.load", "pd.read_pickle", "os.system"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_reads_pickles_or_runs_text(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & MODULES
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in CALLS
            assert "trust_remote_code" not in {keyword.arg for keyword in node.keywords}


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_a_pickle_in_the_folder_of_a_model_is_not_executed(tmp_path):
    model = save_model(tmp_path / "model")
    (model / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Evil(tmp_path / "executed")}, model / "pytorch_model.bin")
    with pytest.raises(RequestError):
        load_task(str(save_tags(tmp_path / "tags")), model=str(model), max_length=16).new_model(0)
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Evil(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_code_in_the_folder_of_a_model_is_not_executed(tmp_path):
    model = save_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    remote = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (model / "config.json").write_text(json.dumps({**config, **remote}))
    (model / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    with pytest.raises(RequestError):
        load_task(str(save_tags(tmp_path / "tags")), model=str(model), max_length=16)
    assert not (tmp_path / "executed").exists()


NAMES = ["../../up", "..", ".", "/etc/passwd", "modules:../../a", "a\\b", "a\x00b", "~/x", "a" * 5000, "ә/🙂", "a\nb"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:20]))
def test_no_name_leaves_the_output_folder(tmp_path, name):
    folder = StudyFolder(tmp_path / "out")
    for path in (folder.run_path(name, 0), folder.checkpoints(name, 0)):
        assert os.path.normpath(path) == str(path)
        assert path.parent.parent == tmp_path / "out"
        assert len(path.name) < 200
        assert "\x00" not in str(path)
    assert "/" not in file_name(name)
    folder.store(replace(made(), scenario=name))
    assert [path.parent for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "out" / "runs"]
    assert folder.find(name, 0).scenario == name


@pytest.mark.parametrize("dataset", ["..", "../..", "x/..", ".", "owner/name", "/"])
@pytest.mark.parametrize("suffix", [None, "modules:../../a"])
def test_the_default_folder_is_in_runs(tmp_path, monkeypatch, dataset, suffix):
    monkeypatch.chdir(tmp_path)
    folder = Request.of({"dataset": dataset, "suffix": suffix}).folder
    assert folder.parent == Path("runs")
    assert folder.name not in ("", ".", "..")


@pytest.mark.parametrize("module", ["../evil", "..evil", "/tmp/evil", "evil.py", "", "os:system", "a b"])
def test_a_plugin_is_a_module_not_a_path(tmp_path, monkeypatch, module):
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')\n")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    with pytest.raises(RequestError, match="cannot be imported"):
        load_plugins([module])


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.text, self.scripts = set(), [], 0

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.scripts += tag == "script"
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)


HOSTILE = "<script>alert(1)</script>\"'&{{7*7}} Қазақша ә 🙂 $x$ <img src=x onerror=alert(1)>"


def test_every_text_on_the_page_is_escaped(tmp_path):
    task = replace(TASK, dataset=HOSTILE, labels=("O", HOSTILE), warnings=(HOSTILE,), coverage={HOSTILE: HOSTILE})
    runs = [made("nothing", task=task), failed(f"modules:{HOSTILE}", error=HOSTILE)]
    changes = runs[0].timeline
    odd = replace(
        made("bottom-up:2", task=task, cache=True),
        scenario=f"modules:{HOSTILE}",
        timeline=(*changes, {**changes[0], "step": 5, "reason": HOSTILE, "mask": HOSTILE}),
        cache_stats={"hit_rate": 0.5, "disabled_reason": HOSTILE},
        settings={HOSTILE: HOSTILE},
        environment={"device": HOSTILE, HOSTILE: HOSTILE},
        seed=1,
    )
    runs = [replace(run, task=task, settings=odd.settings) for run in runs]
    folder_of(tmp_path, *runs, odd)
    publish_folders([tmp_path], None)
    parser = Tags()
    page = (tmp_path / "report.html").read_text()
    parser.feed(page)
    assert not parser.seen & {"img", "iframe", "object", "form"}
    assert page.count("<link") == page.count('<link rel="icon" href="data:,">') == 1
    assert parser.scripts == 2, "the figures and the script that draws them"
    assert HOSTILE in "".join(parser.text)
    for drawing in tmp_path.glob("*.svg"):
        assert "<script" not in drawing.read_text()
        assert "<img" not in drawing.read_text()


def test_a_spec_is_not_executed(tmp_path):
    for spec in ("__import__('os').system('true')", "bottom-up:__import__", "modules:{0.__class__}"):
        try:
            policy = parse_policy(spec)
        except RequestError:
            continue
        assert policy.pattern == "{0.__class__}"
