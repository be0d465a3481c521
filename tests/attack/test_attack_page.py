"""The served page under requests that no browser of its own sends."""

import asyncio
import io
import json
import socket
import time
from http.client import HTTPConnection

import gradio as gr
import httpx
import pytest
from app_server import VALUES, scene, served, tiny_predictor
from gradio.state_holder import SessionState

from als.ui import build_app
from als.ui.cache import MAX_AGE, sweep
from benchmarks.load import Tab, upload

META = {"_type": "gradio.FileData"}
PNG = io.BytesIO()
scene(5).save(PNG, "PNG")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def url(cache):
    with served(cache, allow_hosts=("photos.example",)) as url:
        yield url


@pytest.fixture
def tab(url):
    return Tab(url)


@pytest.fixture
def web(url):
    with httpx.Client(base_url=url, timeout=60) as web:
        yield web


@pytest.fixture
def quiet(capfd):
    """The server's log, which may say a line and no traceback."""
    capfd.readouterr()
    yield
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err, err[-2000:]


def refusal(answer: dict) -> str:
    assert not answer["success"]
    return answer["output"]["error"]


@pytest.mark.parametrize("meta", [{}, {"meta": META}], ids=["bare", "meta"])
@pytest.mark.parametrize("elem_id", ["photo", "second-checkpoint", "canvas", "gallery-multiple"])
def test_no_event_takes_a_file_that_was_not_uploaded(tab, tmp_path, cache, quiet, elem_id, meta):
    """And the sentence is the same whether there is such a file or not."""
    scene(1).save(tmp_path / "mine.png")
    (cache / "link.png").unlink(missing_ok=True)
    (cache / "link.png").symlink_to(tmp_path / "mine.png")
    there = [str(tmp_path / "mine.png"), "/etc/passwd", "/", str(cache), str(cache / "link.png")]
    missing = [str(tmp_path / "none.png"), "/etc/none", str(cache / "none.png"), "", "\0", 7, [""]]
    web = ["http://127.0.0.1:1/a.png", "https://example.org/a.png", f"{cache}/../mine.png"]
    said = set()
    for path in (*there, *missing, *web):
        file = {"path": path, **meta}
        if elem_id == "photo":
            answer = tab.event("photo", "change", [file, *VALUES])
        elif elem_id == "second-checkpoint":
            answer = tab.event("second-checkpoint", "change", [file, *VALUES])
        elif elem_id == "gallery-multiple":
            listing = ["every class", "as uploaded"]
            answer = tab.event("gallery-multiple", "change", [[file], *listing, *VALUES])
        else:
            painting = {"background": file, "layers": [file], "composite": None}
            data = ["my strokes: 1 there, 0 elsewhere", "the other map", painting, *VALUES]
            answer = tab.event("run", "click", data)
        said.add(refusal(answer))
    assert len(said) == 1 and "not uploaded" in said.pop()


def test_an_uploaded_photo_is_taken_with_and_without_meta(tab, quiet):
    file = upload(tab.web, "scene.png", PNG.getvalue())
    for given in (file, {"path": file["path"]}):
        answer = tab.event("photo", "change", [given, *VALUES])
        assert answer["success"] and "<img" in json.dumps(answer["output"])


def test_a_session_keeps_the_last_value_of_a_component_alone():
    page = build_app(tiny_predictor())
    state, event = SessionState(page), max(page.fns.values(), key=lambda one: len(one.outputs))
    views, numbers = (
        next(one for one in event.outputs if one.elem_id == name) for name in ("views", "numbers")
    )
    others = [one._id for one in event.outputs if one not in (views, numbers)]
    before = [state.blocks_config.blocks[number] for number in others]
    for i in range(3):
        for component in (views, numbers):
            given = page.postprocess_data(event, {component: f"<p>{i}</p>"}, state)
            answer = dict(zip(event.outputs, asyncio.run(given), strict=True))
            assert answer.pop(component) == f"<p>{i}</p>"
            assert all(one == gr.skip() for one in answer.values())
    assert asyncio.run(page.postprocess_data(event, gr.skip(), state)) == [
        gr.skip() for _ in event.outputs
    ]
    # To make each anew took longer than most answers.
    assert all(state.blocks_config.blocks[n] is one for n, one in zip(others, before, strict=True))
    assert state.blocks_config.blocks.keys() == page.blocks.keys() == state.config_values.keys()
    assert state.config_values[numbers._id]["props"]["value"] == "<p>2</p>"


@pytest.mark.parametrize("way", ["run", "api", "call"])
def test_other_ways_to_an_event_are_no_way_around(web, tmp_path, way):
    scene(1).save(tmp_path / "mine.png")
    body = {"data": [{"path": str(tmp_path / "mine.png")}, 0.5, "", "class score", "gradact"]}
    answer = web.post(f"/gradio_api/{way}/analyse", json=body)
    if way == "call" and answer.status_code == 200:
        answer = web.get(f"/gradio_api/call/analyse/{answer.json()['event_id']}")
    assert "detections" not in answer.text and str(tmp_path) not in answer.text


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 200),
        ({"Host": "localhost:7860"}, 200),
        ({"Host": "LOCALHOST."}, 200),
        ({"Host": "photos.example"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"X-Forwarded-Host": "photos.example"}, 200),
        ({"Host": "rebound.example:7860"}, 400),
        ({"Host": "localhost.rebound.example"}, 400),
        ({"Host": "rebound@localhost"}, 400),
        ({"Host": ""}, 400),
        ({"X-Forwarded-Host": "rebound.example"}, 400),
        ({"X-Forwarded-Host": "localhost, rebound.example"}, 400),
        ({"X-Gradio-Server": "http://rebound.example/"}, 403),
        ({"Origin": "http://rebound.example"}, 403),
        ({"Origin": "http://rebound.example", "Host": "rebound.example"}, 400),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "https://photos.example"}, 200),
    ],
)
def test_only_its_own_names_are_served_and_no_origin_gets_credentials(web, headers, status):
    for path in ("/", "/config", "/gradio_api/info"):
        answer = web.get(path, headers=headers)
        assert answer.status_code == status
        assert not [name for name in answer.headers if name.startswith("access-control")]
    asked = {"Access-Control-Request-Method": "POST", **headers}
    answer = web.options("/gradio_api/upload", headers=asked)
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/deep_link?session_hash=a",
        "gradio_api/proxy=http://127.0.0.1:1/",
        "gradio_api/file=http://example.org/a.png",
        "gradio_api/file=https%3A//example.org/a.png",
        "gradio_api/%64eep_link?session_hash=a",
    ],
)
def test_what_the_page_does_not_use_is_closed(web, path):
    assert web.get(f"/{path}").status_code == 404


def test_a_request_is_no_larger_than_its_kind(web):
    big = b"[" + b"1," * 5_000_000 + b"1]"
    answer = web.post("/gradio_api/queue/join", content=big)
    assert answer.status_code == 413 and "8 MB" in answer.text
    raw = HTTPConnection(web.base_url.host, web.base_url.port, timeout=60)
    raw.putrequest("POST", "/gradio_api/upload")
    raw.putheader("Content-Length", str(202 * 2**20))  # refused before its content comes
    raw.endheaders()
    assert raw.getresponse().status == 413
    raw.close()
    chunks = (b"1" for _ in range(3))
    assert web.post("/gradio_api/queue/join", content=chunks).status_code == 411


JUNK = [None, [], {}, "x", -1, 10**400, [[]], {"path": None}, "\ud800", True]


def test_values_that_no_control_holds_get_a_sentence(tab, quiet):
    tab.event("photo", "change", [upload(tab.web, "scene.png", PNG.getvalue()), *VALUES])
    for junk in JUNK:
        for place in range(len(VALUES)):
            values = [*VALUES[:place], junk, *VALUES[place + 1 :]]
            answer = tab.event("export", "click", values)
            assert answer["success"] or len(refusal(answer)) > 20
        for told in (junk, {"row": junk}, {"x": junk, "y": junk}):
            answer = tab.event("detections", "pick", list(VALUES), told)
            assert answer["success"] or refusal(answer)
        answer = tab.event("class-choice", "input", [junk, *VALUES])
        assert answer["success"] or refusal(answer)
        answer = tab.event("photo", "change", [junk, *VALUES])
        assert answer["success"] or refusal(answer)
        tab.event("explainer", "input", [junk])
        for elem_id, event, given in (
            ("gallery-multiple", "change", [junk, "every class", "as uploaded"]),
            ("gallery-class", "input", [junk, "as uploaded"]),
            ("boxed", "click", [junk, 1, 2, 3]),
            ("boxed", "click", [1, 1, 10**400, 3]),
        ):
            answer = tab.event(elem_id, event, [*given, *VALUES])
            assert answer["success"] or refusal(answer)
        for elem_id in ("gallery", "missed"):
            answer = tab.event(elem_id, "pick", list(VALUES), {"row": junk})
            assert answer["success"] or refusal(answer)
    answer = tab.event("photo", "change", [upload(tab.web, "scene.png", PNG.getvalue()), *VALUES])
    assert answer["success"], "the app does not go on"


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([0.5, "", ["class score"]], "per_box_target"),
        ([0.5, "", {"a": 1}], "per_box_target"),
        ([0.5, ["cat"], "class score"], "explain_class"),
        ([[0.5], "", "class score"], "score_threshold"),
        ([float("1e999"), "", "class score"], "score_threshold"),
        ([0.5, "", "class score", ["gradact"]], "explainer"),
    ],
)
def test_arguments_of_the_api_are_checked_before_the_photo_is_read(web, quiet, arguments, says):
    name, content = "none.png", b"not an image"
    (path,) = web.post("/gradio_api/upload", files={"files": (name, content)}).json()
    body = json.dumps({"data": [{"path": path, "meta": META}, *arguments]})
    call = web.post("/gradio_api/call/analyse", content=body)
    text = call.text
    if call.status_code == 200:
        text = web.get(f"/gradio_api/call/analyse/{call.json()['event_id']}").text
    assert says in text or call.status_code == 422, text


def test_a_refused_photo_is_one_line_and_no_traceback(web, quiet):
    (path,) = web.post("/gradio_api/upload", files={"files": ("a.jpg", b"no photo")}).json()
    body = {"data": [{"path": path, "meta": META}, 0.5, "", "class score"]}
    event = web.post("/gradio_api/call/analyse", json=body).json()["event_id"]
    assert "not an image" in web.get(f"/gradio_api/call/analyse/{event}").text


def test_eps_is_opened_nowhere(tab, quiet):
    """Pillow would start Ghostscript."""
    file = upload(tab.web, "a.png", EPS)
    answer = tab.event("photo", "change", [file, *VALUES])
    assert "not an image that can be read" in json.dumps(answer["output"])
    tab.event("photo", "change", [upload(tab.web, "scene.png", PNG.getvalue()), *VALUES])
    painting = {"background": None, "layers": [file], "composite": file}
    data = ["my strokes: 1 there, 0 elsewhere", "the other map", painting, *VALUES]
    answer = tab.event("run", "click", data)
    assert "not an image that can be read" in json.dumps(answer["output"])


def blob(tab, **told) -> httpx.Response:
    """What the canvas sends of a layer."""
    (canvas,) = [c for c in tab.config["components"] if c["props"].get("elem_id") == "canvas"]
    told = {"type": "layer", "index": "0", "id": "a"} | told
    content = told.pop("content", EPS)
    data = {"component_id": str(canvas["id"]), "session_hash": tab.session}
    return tab.web.post(
        "/gradio_api/component_server",
        data=data | {"fn_name": "accept_blobs"} | told,
        files={"file": ("layer.png", content)},
    )


def test_a_layer_of_the_canvas_is_decoded_by_the_one_reader(tab, quiet):
    tab.event("photo", "change", [upload(tab.web, "scene.png", PNG.getvalue()), *VALUES])
    data = ["my strokes: 1 there, 0 elsewhere", "the other map", {"id": "a"}, *VALUES]
    said = []
    for content in (EPS, PNG.getvalue()):
        blob(tab, content=content, index="99999999999")
        said.append(json.dumps(tab.event("run", "click", data)["output"]))
    assert "not an image that can be read" in said[0] and "kept" in said[1]


def test_requests_that_gradio_does_not_know_leave_a_line(tab, quiet):
    assert tab.web.post("/gradio_api/component_server", data={"a": "b"}).status_code >= 400
    body = {"component_id": 10**9, "session_hash": [1], "fn_name": "x", "data": 1}
    assert tab.web.post("/gradio_api/component_server", json=body).status_code >= 400
    assert refusal(tab.join({"fn_index": 10**6, "data": []}))
    assert refusal(tab.join({"fn_index": 1, "data": []}))


@pytest.mark.parametrize(
    "name", ["n" * 246 + ".png", "\x1b[2Jred\x1b[0m.png", "\ud800.png", "a\r\nb.png", ["x"], 7]
)
def test_names_of_photos_are_shown_safely(tab, quiet, name):
    file = upload(tab.web, "scene.png", PNG.getvalue()) | {"orig_name": name}
    tab.event("photo", "change", [file, *VALUES])
    shown = tab.event("export", "click", list(VALUES))
    if not isinstance(name, str) or "\ud800" in name:
        return  # refused, or shown escaped; no traceback is what counts
    (sentence,) = [
        part
        for part in json.loads(json.dumps(refresh(tab)["output"]["data"]))
        if isinstance(part, str) and "160 × 120" in part
    ]
    assert shown["success"] and "\x1b" not in sentence and len(sentence) < 400


def refresh(tab) -> dict:
    return tab.event("detections", "pick", list(VALUES), {"row": 0})


def test_a_half_upload_is_swept(url, cache):
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    before = set(cache.rglob("*"))
    with socket.create_connection((host, int(port))) as half:
        head = (
            f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\nContent-Disposition: "
            'form-data; name="files"; filename="a.png"\r\n\r\n'
        )
        half.sendall(head.encode() + b"\x89PNG" * 500)
        for _ in range(100):
            if left := [p for p in set(cache.rglob("*")) - before if p.is_file()]:
                break
            time.sleep(0.05)
    assert left, "nothing was begun"
    assert sweep(cache, max_age=-1, keep=[str(p) for p in before])
    assert MAX_AGE <= 3600 and not [p for p in set(cache.rglob("*")) - before if p.is_file()]
