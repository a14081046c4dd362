import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from yolo_edgequant.inspection import page
from yolo_edgequant.inspection.examine import examine

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """Texts by id, the number of each tag, what is asked of elsewhere, and the JSON."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.tags, self.sources, self._open = {}, {}, [], []
        self.feed(text)
        self.data = json.loads(self.texts["data"])

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        kind = f"{tag}.{attributes['class']}" if attributes.get("class") else tag
        self.tags[kind] = self.tags.get(kind, 0) + 1
        self.sources += [attributes[name] for name in ("src", "href", "data") if attributes.get(name)]
        if tag not in {"img", "meta", "link", "br"}:
            self._open.append(attributes.get("id"))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in {"img", "meta", "link", "br"}:
            self._open.pop()

    def handle_endtag(self, tag):
        self._open.pop()

    def handle_data(self, text):
        for name in filter(None, self._open):
            self.texts[name] = self.texts.get(name, "") + text


@pytest.fixture(scope="module")
def written(files, float_file, pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    inspection = examine(
        files["int8"], "coral-edgetpu", images=pictures, count=2, float_model=float_file, beside=files["raw"]
    )
    page.save(inspection, path)
    return path


def check(text):
    """The figures that a reader sees are those of the JSON in the page."""
    shown = Page(text)
    data, texts = shown.data, shown.texts
    assert texts["operator-count"] == str(len(data["operators"]))
    assert int(texts["weights"].replace(",", "")) == data["file"]["weights_bytes"]
    assert float(texts["spread"].replace(",", "")) == pytest.approx(data["head"]["spread"], rel=0.01)
    assert float(texts["spread-with-constants"].replace(",", "")) == pytest.approx(
        data["head"]["spread_with_constants"], rel=0.01
    )
    assert texts["partitions"] == str(data["target"]["partitions"])
    points = [t for t in data["tensors"] if t["order"] is not None and len(t["scales"]) == 1]
    measured = [t for t in data["tensors"] if t["order"] is not None and "snr_db" in t]
    assert len(measured) > 100
    assert shown.tags["circle.body"] + shown.tags["circle.head"] == len(points) + len(measured)
    for index in data["images"]["worst"]:
        assert f"{data['tensors'][index]['snr_db']:.1f}" in texts["noise"]
    away = [operator for operator in data["operators"] if operator["place"] != "accelerator"]
    assert [f"{operator['index']} {operator['kind']}" in texts["reasons"] for operator in away] == [True]
    for objects in data["images"]["objects"]:
        for seen in objects.values():
            assert f"{seen['count']} object(s)" in texts["objects"]
    assert shown.tags["img"] == sum(map(len, data["images"]["objects"]))
    assert all(source.startswith("data:image/jpeg;base64,") for source in shown.sources)


def test_its_figures_are_those_of_the_json(written):
    text = written.read_text()
    check(text)
    assert not re.search(r"https?://|@import|url\(", text), "nothing is asked of elsewhere"
    assert "prefers-color-scheme: dark" in text


def test_dark_and_light_pages_can_be_read(written):
    """Texts and marks differ from what they lie on, in both of the browser's schemes."""
    style = re.search(r"<style>(.*?)</style>", written.read_text(), re.DOTALL)[1]
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w+)", scheme)) for scheme in schemes)
    assert light.keys() == dark.keys()
    assert "background: var(--page); color: var(--text)" in style
    assert re.search(r"section \{ background: var\(--card\)", style)

    def brightness(color):
        digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
        return sum(weight * int(digits[at : at + 2], 16) for at, weight in ((0, 0.3), (2, 0.59), (4, 0.11)))

    for scheme, least, most in ((light, 240, 255), (dark, 0, 64)):
        grounds = [brightness(scheme.pop(name)) for name in ("page", "card")]
        assert all(least <= ground <= most for ground in grounds)
        for name in scheme.keys() - {"line"}:
            assert min(abs(brightness(scheme[name]) - ground) for ground in grounds) > 80, name


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.export
def test_a_browser_shows_the_same(written, tmp_path):
    common = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    address = written.as_uri()
    done = subprocess.run([*common, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True)
    check(done.stdout)
    import cv2

    brightness = {}
    for name, more in (
        ("light", ["--window-size=1200,2400"]),
        ("dark", ["--window-size=1200,2400", "--force-dark-mode", "--blink-settings=preferredColorScheme=0"]),
        ("small", ["--window-size=500,2400"]),
    ):
        picture = tmp_path / f"{name}.png"
        subprocess.run(
            [*common, *more, f"--screenshot={picture}", address], capture_output=True, timeout=120, check=True
        )
        brightness[name] = cv2.imread(str(picture)).mean()
    assert brightness["light"] > 150 < brightness["small"]
    assert brightness["dark"] < 100


def test_names_from_a_stranger_are_text(files):
    from dataclasses import replace

    from yolo_edgequant.inspection.report import as_dict

    inspection = examine(files["raw"])
    model = inspection.model
    name = "</script><script>alert(1)</script>"
    tensors = tuple(replace(tensor, name=name) for tensor in model.tensors)
    values = as_dict(replace(inspection, model=replace(model, tensors=tensors)))
    text = page.render(values, [])
    assert name not in text
    assert Page(text).data["tensors"][0]["name"] == name


def test_it_stands_without_target_images_and_scales(float_file):
    from yolo_edgequant.inspection.report import as_dict

    text = page.render(as_dict(examine(float_file)), [])
    shown = Page(text)
    assert "scales" not in shown.texts
    assert "nothing in it is quantized" in shown.texts["findings"]
