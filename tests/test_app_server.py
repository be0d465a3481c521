"""The served app: its API, bad files, many clients at once, and what it must not give away."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import httpx
import numpy as np
import pytest
from app_server import scene, served, tiny_predictor
from gradio import Blocks
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from als.errors import InputError
from als.ui import launch, serving
from benchmarks.load import page_events

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with served(tmp_path_factory.mktemp("cache")) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


@pytest.fixture(scope="module")
def web(url):
    with httpx.Client(base_url=url, timeout=60, follow_redirects=True) as web:
        yield web


@pytest.fixture
def photo(tmp_path):
    scene(5).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def test_the_api_gives_what_python_gives(client, photo):
    record, picture, maps = client.predict(
        handle_file(photo), score_threshold=0.3, api_name="/analyse"
    )
    found = tiny_predictor().predict(photo)
    shown = found.scores >= 0.3
    assert [d["class"] for d in record["detections"]] == np.array(found.names)[shown].tolist()
    boxes = [d["box"] for d in record["detections"]]
    assert np.allclose(boxes, found.boxes[shown], atol=1e-3)
    assert record["photo"] == {"name": "scene.png", "height": 120, "width": 160}
    assert record["explained"]["detection"] == 0 and len(record["rank_correlation"]) == 6
    arrays = np.load(maps)
    assert np.allclose(arrays["localization_map"], found.localization_map, atol=1e-5)
    assert {"classification_map", "grad_cam", "gradient_x_activation"} <= set(arrays.files)
    with Image.open(picture) as opened:
        assert opened.format == "PNG" and opened.width > 2000


def test_the_api_explains_a_class_that_passes_nowhere(client, photo):
    record, _, _ = client.predict(
        handle_file(photo), 1.0, "person", "width (dw)", api_name="/analyse"
    )
    assert record["detections"] == [] and record["explained"]["class"] == "person"
    assert record["explained"]["passed_threshold"] is False
    assert record["explained"]["target_of_per_box_map"] == "dw"


def test_the_page_takes_what_the_benchmark_of_its_memory_sends(url):
    assert page_events(url, "self", 10, tabs=2)["failed"] == []


def test_only_the_documented_endpoint_is_open(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/analyse"}
    endpoint = client.view_api(return_format="dict")["named_endpoints"]["/analyse"]
    labels = [p["parameter_name"] for p in endpoint["parameters"]]
    assert labels == ["image", "score_threshold", "explain_class", "per_box_target", "explainer"]


def test_the_example_of_the_readme_runs(url, photo, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (example,) = [block for block in blocks if "gradio_client" in block]
    monkeypatch.chdir(photo.parent)
    photo.rename("photo.jpg")
    names = {}
    exec(example.replace("http://127.0.0.1:7860", url), names)
    assert names["record"]["photo"]["name"] == "photo.jpg"


def bad_file(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.jpg"
    scene(1, (400, 300)).save(path, quality=95)
    whole = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "text":
        path.write_text("no photo\n" * 9)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "heic":
        path.write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + b"\x00" * 99)
    elif kind == "huge":  # 60 megapixels of one colour, a few kilobytes
        Image.new("L", (10000, 6000)).save(path, "PNG")
    return path


@pytest.mark.parametrize(
    "kind, says",
    [
        ("text", "not an image"),
        ("truncated", "cut short"),
        ("empty", "empty"),
        ("heic", "HEIC"),
        ("huge", "over the limit of 40 megapixels"),
    ],
)
def test_bad_files_get_one_sentence_and_the_app_goes_on(client, photo, tmp_path, kind, says):
    with pytest.raises(AppError) as error:
        client.predict(handle_file(bad_file(tmp_path, kind)), api_name="/analyse")
    message = str(error.value)
    assert says in message and "\n" not in message and "Traceback" not in message
    record, _, _ = client.predict(handle_file(photo), api_name="/analyse")
    assert record["photo"]["width"] == 160


@pytest.mark.parametrize(
    "arguments, says",
    [
        ((7, "", "class score"), "score_threshold"),
        (("high", "", "class score"), "score_threshold"),
        ((0.5, "unicorn", "class score"), "cat, dog, person"),
        ((0.5, "", "taste"), "per_box_target"),
        ((0.5, "", "class score", "tarot"), "'tarot' is not offered; choose one of .*gradact"),
        ((0.5, "", "class score", "localization"), "'localization' is not offered"),
        ((0.5, "", "class score", "drise"), "'drise' is not offered"),
    ],
)
def test_bad_arguments_get_one_sentence(client, photo, arguments, says):
    with pytest.raises(AppError, match=says):
        client.predict(handle_file(photo), *arguments, api_name="/analyse")


def test_odd_photos_are_analysed(client, tmp_path):
    photos = {
        "thin.png": Image.new("RGB", (5000, 1), "red"),
        "dot.png": Image.new("RGB", (1, 1), "red"),
        "ink.jpg": scene(2).convert("CMYK"),
        "deep.png": Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16),
        "palette.png": scene(2).convert("P"),
        "moving.gif": scene(3),
        "moving.webp": scene(3),
    }
    options = {
        "palette.png": {"transparency": 0},
        "moving.gif": {"save_all": True, "append_images": [scene(4)]},
        "moving.webp": {"save_all": True, "append_images": [scene(4)]},
    }
    for name, image in photos.items():
        image.save(tmp_path / name, **options.get(name, {}))
        record, _, _ = client.predict(handle_file(tmp_path / name), api_name="/analyse")
        assert (record["photo"]["width"], record["photo"]["height"]) == image.size


def test_a_turned_photo_is_turned_back(client, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(5).save(tmp_path / "a.jpg", exif=exif)
    record, _, _ = client.predict(handle_file(tmp_path / "a.jpg"), api_name="/analyse")
    assert (record["photo"]["width"], record["photo"]["height"]) == (120, 160)


def test_eight_clients_at_once_get_their_own_results(url, tmp_path):
    seeds = range(8)
    for seed in seeds:
        scene(seed, (120 + 8 * seed, 100)).save(tmp_path / f"{seed}.png")

    def ask(seed: int) -> dict:
        photo = handle_file(tmp_path / f"{seed}.png")
        return Client(url, verbose=False).predict(photo, 0.2, api_name="/analyse")[0]

    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(ask, seeds))
    for seed, record in zip(seeds, records, strict=True):
        found = tiny_predictor().predict(tmp_path / f"{seed}.png")
        assert record["photo"]["name"] == f"{seed}.png"
        scores = [d["score"] for d in record["detections"]]
        assert np.allclose(scores, found.scores[found.scores >= 0.2], atol=1e-5)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "/proc/self/environ",
        str(ROOT / "pyproject.toml"),
        str(ROOT / "als" / "inference.py"),
        "pyproject.toml",
        "C:\\Windows\\win.ini",
        "file:///etc/passwd",
    ],
)
def test_files_outside_the_cache_are_not_served(web, path):
    for prefix in ("gradio_api/file=", "file=", "gradio_api/file/", "static/", "assets/"):
        answer = web.get(f"/{prefix}{path}")
        assert answer.status_code >= 400, f"{prefix}{path}"
        # httpx takes '..' out of a path before it sends it; this does not.
        raw = HTTPConnection(web.base_url.host, web.base_url.port, timeout=60)
        raw.request("GET", f"/{prefix}{path}")
        assert raw.getresponse().status >= 400, f"{prefix}{path}"
        raw.close()


def call_with(web, photo: dict, *others) -> str:
    """What the API answers to a photo as somebody else's program might send it."""
    body = {"data": [photo, *(others or (0.5, "", "class score"))]}
    call = web.post("/gradio_api/call/analyse", json=body)
    if call.status_code != 200:
        return f"event: error {call.text}"
    return web.get(f"/gradio_api/call/analyse/{call.json()['event_id']}").text


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_a_photo_on_the_server_is_not_read_by_its_path(web, photo, meta):
    """A client may name a path instead of uploading: only what was uploaded is read."""
    with photo.open("rb") as file:
        (uploaded,) = web.post("/gradio_api/upload", files={"files": file}).json()
    good = {"path": uploaded, "meta": {"_type": "gradio.FileData"}}
    assert "event: complete" in call_with(web, good)
    assert "event: complete" in call_with(web, good, 0.5, "", "class score", "gradcam_F")
    for path in (str(photo), str(Path(uploaded).parent) + 20 * "/.." + str(photo)):
        answer = call_with(web, {"path": path, **meta})
        assert "event: error" in answer and "event: complete" not in answer


def test_a_file_over_the_limit_is_refused(web):
    content = b"\0" * (41 * 2**20)
    answer = web.post("/gradio_api/upload", files={"files": ("big.png", content)})
    assert answer.status_code == 413


def test_safe_defaults(web, tmp_path):
    options = serving(Blocks(), tmp_path)
    assert options["server_name"] == "127.0.0.1" and options["share"] is False
    assert not options.get("allowed_paths") and options["max_file_size"]
    page = web.get("/").text
    config = json.loads(re.search(r"window.gradio_config = (\{.*?\});</script>", page).group(1))
    assert config["analytics_enabled"] is False
    assert "fonts.googleapis" not in page and "cdn." not in page


def test_launching_a_checkpoint_that_is_not_ours_says_so(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(InputError, match="x.safetensors"):
        launch(tmp_path / "x.safetensors")
