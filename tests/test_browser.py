"""The page in a real browser: Debian's chromium, driven by playwright."""

import re
import shutil
import threading

import pytest
from app_server import scene, served, tiny_predictor
from visit import CHROMIUM, COPY_A_PICTURE, Visit, expect, luminance, playwright

SMALL = {"width": 700, "height": 600}  # for the editor of 'What if', which draws without a GPU


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with served(tmp_path_factory.mktemp("cache")) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    options += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    scene(5).save(folder / "scene.png")
    scene(6).save(folder / "other.png")
    (folder / "notes.jpg").write_text("no photo\n")
    (folder / "other.safetensors").write_text("no tensors\n")
    (folder / "big.png").write_bytes(b"\0" * (41 * 2**20))
    for i in range(6):
        with open(folder / f"large{i}.png", "wb") as file:
            file.truncate(35 * 2**20)
    (folder / "scene.xml").write_text(
        "<annotation><object><name>dog</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax>"
        "<ymax>4</ymax></bndbox></object></annotation>"
    )
    return folder


@pytest.fixture
def visit(browser, url):
    visits = []

    def start(link: str = "", **options) -> Visit:
        visits.append(Visit(browser, url + link, **options))
        return visits[-1]

    yield start
    for each in visits:
        each.page.close()


def test_a_photo_shows_five_views_that_differ(visit, files):
    visit = visit()
    expect(visit.page.locator("#views")).to_contain_text("No photo yet")
    visit.open_photo(files / "scene.png")
    assert len(visit.pictures()) == 5 == len(set(visit.pictures()))
    titles = visit.page.locator("#views h3").all_inner_texts()
    assert titles[:3] == ["Detections", "Localization map", "Classification map"]
    tops = [box["y"] for box in map(lambda x: x.bounding_box(), visit.page.locator("figure").all())]
    assert len(set(tops)) == 1, "the views do not stand side by side"
    expect(visit.page.locator(".als-model").first).to_contain_text("tiny.safetensors")
    expect(visit.page.get_by_role("button", name="Example chelsea.png")).to_be_visible()
    assert visit.errors == [] and visit.elsewhere == []


def test_an_example_the_camera_and_the_clipboard_give_photos_too(visit):
    visit = visit(permissions=["camera", "clipboard-read", "clipboard-write"])
    photo = visit.page.locator("#photo")
    visit.page.get_by_role("button", name="Example coffee.png").click()
    visit.says("coffee.png, 600")
    photo.get_by_label("Remove Image").click()
    expect(visit.page.locator("#views")).to_contain_text("No photo yet")  # else a click may be lost
    photo.get_by_label("Capture from camera").click()
    photo.get_by_text("Click to Access Webcam").click()
    # Before its first frame the camera has no picture to take, and the button does nothing.
    visit.page.wait_for_function("document.querySelector('#photo video')?.videoWidth > 0")
    photo.get_by_label("capture photo").click()
    visit.says("image.png")
    expect(visit.page.locator("#views img")).to_have_count(5)
    photo.get_by_label("Remove Image").click()
    photo.get_by_label("Upload file").click()  # the camera's view must not cover it
    visit.page.evaluate(COPY_A_PICTURE)
    photo.get_by_label("Paste from clipboard").click()
    visit.says("200 × 150")
    assert visit.errors == [] and visit.elsewhere == []


def test_another_detection_by_keyboard_and_by_click(visit, files):
    visit = visit()
    visit.open_photo(files / "scene.png")
    before = visit.pictures()
    button = visit.page.locator("#detections tr[data-row='1'] button")
    button.focus()
    visit.page.keyboard.press("Enter")
    visit.says("Explaining detection 2")
    expect(button).to_be_focused()
    for i in (3, 4):
        expect(visit.page.locator("#views img").nth(i)).not_to_have_attribute("src", before[i])
    x1, y1, x2, y2 = tiny_predictor().predict(files / "scene.png").boxes[0]
    picture = visit.page.locator("#views img").first
    place = picture.bounding_box()
    x, y = (x1 + x2) / 2 / 160 * place["width"], (y1 + y2) / 2 / 120 * place["height"]
    picture.click(position={"x": float(x), "y": float(y)})
    expect(visit.page.locator("#sentence")).not_to_contain_text("detection 2")
    assert visit.errors == []


def test_a_gallery_opens_a_photograph_and_tells_why_an_object_was_missed(visit, files, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    visit, uploads = visit(), ("scene.png", "other.png", "scene.xml")
    visit.page.get_by_role("tab", name="Gallery").click()
    expect(visit.page.locator("#gallery")).to_contain_text("No photographs yet")
    given = [files / name for name in uploads]
    visit.page.set_input_files("#gallery-multiple input[type=file]", given[1])
    photographs = visit.page.locator("#gallery li")
    expect(photographs).to_have_count(1)
    (folder / "within").mkdir()
    for i, name in enumerate(uploads):  # a folder brings what its folders hold
        shutil.copy(files / name, folder / ("within" if i else "") / name)
    visit.page.set_input_files("#gallery-directory input[type=file]", folder)
    expect(photographs).to_have_count(2)
    expect(photographs.first).to_contain_text("1 missed")
    expect(photographs.last).to_contain_text("no annotation")
    visit.page.locator("#threshold input[type=number]").fill("1")
    visit.page.locator("#threshold input[type=number]").press("Enter")
    expect(photographs.last).to_contain_text("0 found")
    photographs.first.get_by_role("button").focus()
    visit.page.keyboard.press("Enter")
    visit.says("scene.png, 160")
    missed = visit.page.locator("#missed tr[data-row]")
    expect(missed).to_have_count(1)
    expect(missed).to_contain_text("RPN: no proposal covers it")
    missed.get_by_role("button").click()
    visit.says("Explaining the box")
    visit.open_photo(files / "other.png")
    expect(missed).to_have_count(0)
    assert visit.errors == [] and visit.elsewhere == []


def test_files_that_are_too_large_together_are_refused_before_they_are_sent(visit, files):
    visit = visit()
    visit.page.get_by_role("tab", name="Gallery").click()
    before = len(visit.requests)
    whole = [files / name for name in ("scene.png", "big.png")]
    visit.page.set_input_files("#gallery-multiple input[type=file]", whole)
    status = visit.page.locator("#gallery-status [role=alert]")
    expect(status).to_contain_text("big.png: 41.0 MB are over the limit of 40 MB")
    six = [files / f"large{i}.png" for i in range(6)]
    visit.page.set_input_files("#gallery-multiple input[type=file]", six)
    expect(status).to_contain_text("All files: 210.0 MB are over the limit of 200 MB")
    assert not any("upload" in url for url in visit.requests[before:]) and visit.errors == []


def test_a_box_is_drawn_by_two_clicks(visit, files):
    visit = visit()
    visit.open_photo(files / "scene.png")
    draw, said = visit.page.locator("#draw"), visit.page.locator("#box-status")
    draw.click()
    expect(said).to_contain_text("Click the first corner")
    expect(draw).to_have_text("Stop drawing")
    picture = visit.page.locator("#views img").first
    width, height = (picture.bounding_box()[side] for side in ("width", "height"))
    picture.click(position={"x": width / 4, "y": height / 4})
    expect(said).to_contain_text("Click the opposite one")
    picture.click(position={"x": width / 2, "y": height * 3 / 4})
    visit.says(re.compile(r"the box (39|40), (29|30), (79|80), (89|90)"))  # to a whole pixel
    expect(draw).to_have_text("Draw a box")
    visit.page.get_by_label("x1").fill("20")
    for name, value in (("y1", "10"), ("x2", "60"), ("y2", "70")):
        visit.page.get_by_label(name).fill(value)
    visit.page.locator("#boxed").click()
    visit.says("Explaining the box 20, 10, 60, 70")
    assert visit.errors == []


def test_a_link_opens_an_example_with_its_settings(visit):
    # Each in a page of its own: what a page that is left still asks for ends in errors there.
    start = visit
    visit = start("?example=chelsea.png&threshold=0.25&explainer=gradcam_F&class=dog")
    visit.says("chelsea.png, 451")
    visit.says("dog")
    expect(visit.page.locator("#threshold input[type=number]")).to_have_value("0.25")
    expect(visit.page.locator("#views h3").nth(4)).to_contain_text("layer F")
    link = visit.page.locator("#sentence a")
    expect(link).to_have_attribute("href", re.compile("threshold=0.25.*class=dog"))
    other = start("?example=mine.png")
    expect(other.page.locator("#status [role=alert]")).to_contain_text("none of chelsea.png")
    assert visit.errors == other.errors == []


def test_drawing_settings_run_no_network(visit, files, monkeypatch):
    visit = visit()
    visit.open_photo(files / "scene.png")
    runs, predictor = [], tiny_predictor()
    for name in ("analyse", "explain"):
        monkeypatch.setattr(predictor, name, lambda *args, name=name, **kwargs: runs.append(name))
    before = visit.pictures()
    visit.page.locator("#drawing button").first.click()
    slider = visit.page.locator("#opacity input[type=range]")
    expect(slider).to_be_visible()
    expect(slider).to_be_enabled()
    opacity = slider.input_value()
    for _ in range(20):  # while the section unfolds it may lose a key
        slider.press("ArrowRight")
        if slider.input_value() != opacity:
            break
    second = visit.page.locator("#views img").nth(1)
    expect(second).not_to_have_attribute("src", before[1])
    number = visit.page.locator("#threshold input[type=number]")
    number.fill("1")
    number.press("Enter")
    expect(visit.page.locator("#detections")).to_contain_text("Nothing passes the threshold")
    visit.says("the threshold of 1.00")
    number.fill("")
    number.press("Enter")
    expect(visit.page.locator("#sentence")).not_to_contain_text("threshold of 1.00")
    expect(visit.page.get_by_text("Error", exact=True)).to_have_count(0)
    assert runs == [] and visit.errors == []


def test_an_answer_that_waited_does_not_bring_back_older_settings(visit, files, monkeypatch):
    """Another visitor holds the network; a detection is picked, then the threshold set."""
    busy, page = visit(), visit()
    for each in (busy, page):
        each.open_photo(files / "scene.png")
        each.says("Explaining detection 1")
    free, predictor = threading.Event(), tiny_predictor()
    explain = predictor.explain
    monkeypatch.setattr(predictor, "explain", lambda *a, **k: free.wait(60) and explain(*a, **k))
    for each in (busy, page):
        each.page.locator("#detections tr[data-row='1'] button").click()
    threshold = page.page.locator("#threshold input[type=number]")
    threshold.fill("1")
    threshold.press("Enter")
    table, nothing = page.page.locator("#detections"), "Nothing passes the threshold"
    expect(table).to_contain_text(nothing)
    of_the_first = page.pictures()[4]
    free.set()
    expect(page.page.locator("#views img").nth(4)).not_to_have_attribute("src", of_the_first)
    expect(table).to_contain_text(nothing)
    assert page.errors == []


def test_the_tab_that_was_opened_last_is_drawn(visit, files, monkeypatch):
    """Two tabs are clicked while the page waits for the network; the second click counts."""
    visit = visit()
    visit.open_photo(files / "scene.png")
    visit.says("Explaining detection 1")
    free, predictor = threading.Event(), tiny_predictor()
    explain = predictor.explain
    monkeypatch.setattr(predictor, "explain", lambda *a, **k: free.wait(60) and explain(*a, **k))
    visit.page.locator("#detections tr[data-row='1'] button").click()
    for name in ("Compare", "Explain"):
        visit.page.get_by_role("tab", name=name).click()
    free.set()
    visit.says("Explaining detection 2")
    visit.page.locator("#detections tr[data-row='0'] button").click()
    visit.says("Explaining detection 1")
    assert visit.errors == []


def test_a_class_can_be_explained_when_nothing_passes(visit, files):
    visit = visit()
    visit.open_photo(files / "scene.png")
    visit.page.locator("#threshold input[type=number]").fill("0.99")
    visit.page.locator("#threshold input[type=number]").press("Enter")
    visit.page.locator("#class-choice input").click()
    visit.page.get_by_role("option", name="person").click()
    visit.says("No person passes the threshold of 0.99; explaining the best-scoring proposal")
    assert len(visit.pictures()) == 5 and visit.errors == []


def test_export_gives_three_files(visit, files, tmp_path):
    visit = visit()
    expect(visit.page.locator("#views")).to_contain_text("No photo yet")
    for name in ("#export", "#own-box"):  # nothing to export, nothing to draw on
        expect(visit.page.locator(name)).to_be_hidden()
    visit.open_photo(files / "scene.png")
    visit.page.locator("#export").click()
    links = visit.page.locator("#files a")
    expect(links).to_have_count(3)
    starts = {"comparison.png": b"\x89PNG", "detections.json": b"{", "maps.npz": b"PK"}
    for link in links.all():
        name = link.get_attribute("href").rsplit("/", 1)[1]
        answer = visit.page.request.get(link.get_attribute("href"))
        assert answer.ok and answer.body().startswith(starts.pop(name))
    assert not starts and visit.errors == []


def test_bad_files_get_a_sentence_and_the_page_still_works(visit, files):
    visit = visit()
    visit.upload(files / "notes.jpg")
    status = visit.page.locator("#status [role=alert]")
    expect(status).to_contain_text("notes.jpg: not an image that can be read")
    expect(visit.page.locator("#photo img")).to_have_count(0)
    assert visit.errors == []
    before = len(visit.requests)
    visit.upload(files / "big.png")
    expect(status).to_contain_text("big.png: 41.0 MB are over the limit of 40 MB")
    assert not any("upload_progress" in url for url in visit.requests[before:])
    visit.open_photo(files / "scene.png")
    expect(visit.page.locator("#status [role=alert]")).to_have_count(0)
    assert len(visit.pictures()) == 5 and visit.errors == []


def test_an_emptied_photo_leaves_an_empty_page(visit, files):
    visit = visit()
    visit.open_photo(files / "scene.png")
    visit.page.get_by_label("Remove Image").click()
    expect(visit.page.locator("#views")).to_contain_text("No photo yet")
    expect(visit.page.locator("#detections table")).to_have_count(0)
    assert visit.errors == []


def test_two_checkpoints_side_by_side(visit, files):
    visit = visit()
    visit.open_photo(files / "scene.png")
    visit.page.get_by_role("tab", name="Compare").click()
    views = visit.page.locator("#compare-views")
    expect(views.locator("h2")).to_have_count(2)
    expect(views.locator("img")).to_have_count(8)
    expect(views).to_contain_text("This model has no attention")
    visit.page.set_input_files("#second-checkpoint input[type=file]", files / "other.safetensors")
    status = visit.page.locator("#compare-status [role=alert]")
    expect(status).to_contain_text("other.safetensors: not a whole .safetensors file")
    visit.page.get_by_role("tab", name="Explain").click()
    expect(visit.page.locator("#views img")).to_have_count(5)


def test_another_photo_leaves_nothing_of_the_last_one(visit, files):
    visit = visit(viewport=SMALL)
    visit.open_photo(files / "scene.png")
    visit.page.locator("#export").click()
    expect(visit.page.locator("#files a")).to_have_count(3)
    visit.page.get_by_role("tab", name="What if").click()
    visit.page.get_by_role("button", name="Run with these maps").click()
    expect(visit.page.locator("#whatif-views img")).to_have_count(6)
    visit.page.get_by_role("tab", name="Compare").click()
    compared = visit.page.locator("#compare-views img")
    expect(compared).to_have_count(8)
    first = compared.nth(3).get_attribute("src")
    visit.page.locator("#detections tr[data-row='1'] button").click()
    expect(compared.nth(3)).not_to_have_attribute("src", first)  # the comparison follows
    chosen = compared.nth(3).get_attribute("src")
    visit.upload(files / "other.png")
    expect(compared.nth(3)).not_to_have_attribute("src", chosen)  # it follows to the new photo
    expect(visit.page.locator("#compare-numbers table").first).to_be_visible()
    visit.page.get_by_role("tab", name="What if").click()
    expect(visit.page.locator("#whatif-views")).to_contain_text("Choose what becomes of a map")
    visit.page.get_by_role("tab", name="Explain").click()
    visit.says("other.png")
    expect(visit.page.locator("#files")).to_be_hidden()
    assert visit.errors == []


def test_another_explainer_for_the_last_view(visit, files):
    visit = visit()
    visit.open_photo(files / "scene.png")
    before = visit.pictures()
    for name, says in (
        ("Grad-CAM, box width", "What raises the width (dw) of the chosen box."),
        ("RPN objectness", "choice of a score or side does not apply"),
    ):
        visit.page.locator("#explainer input").click()
        visit.page.get_by_role("option", name=name).click()
        expect(visit.page.locator("#views h3").nth(4)).to_have_text(name)
        expect(visit.page.locator("#views figcaption").nth(4)).to_contain_text(says)
    after = visit.pictures()
    assert after[:4] == before[:4] and after[4] != before[4] and visit.errors == []


def test_painting_a_map_changes_the_boxes(visit, files):
    visit = visit(viewport=SMALL)
    visit.open_photo(files / "scene.png")
    visit.page.get_by_role("tab", name="What if").click()
    visit.page.get_by_label("Localization map becomes").click()
    visit.page.get_by_role("option", name="my strokes: 1 there, 0 elsewhere").click()
    canvas = visit.page.locator("#canvas canvas").first
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    said = visit.page.locator("#whatif-status")
    for patience in (1000, 3000, 9000):  # milliseconds: nothing tells when the editor is ready
        visit.page.wait_for_timeout(patience)  # the editor fits the photo into its frame
        place = canvas.bounding_box()
        x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        visit.page.mouse.move(x - 40, y)
        visit.page.mouse.down()
        visit.page.mouse.move(x + 40, y, steps=3)
        visit.page.mouse.up()
        visit.page.wait_for_timeout(patience)  # the stroke travels to the server
        visit.page.get_by_role("button", name="Run with these maps").click()
        expect(said).not_to_have_text("")
        if "Nothing is painted" not in said.inner_text():
            break
    views = visit.page.locator("#whatif-views")
    expect(views.locator("img")).to_have_count(6)
    sources = [image.get_attribute("src") for image in views.locator("img").all()]
    assert sources[1] != sources[4] and sources[0] != sources[3]
    expect(visit.page.locator("#whatif-status")).to_contain_text("kept")
    assert visit.errors == []


@pytest.mark.parametrize("tab", ["Explain", "Compare", "What if", "Gallery"])
def test_a_phone_shows_everything_in_one_column(visit, files, tab):
    visit = visit(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    visit.open_photo(files / "scene.png")
    visit.page.get_by_role("tab", name=tab).tap()
    if tab == "Explain":
        lefts = {round(f.bounding_box()["x"]) for f in visit.page.locator("#views figure").all()}
        assert len(lefts) == 1
        corner = visit.page.get_by_label("x2")
        corner.fill("16000")
        assert corner.evaluate("e => e.scrollWidth <= e.clientWidth"), "a number is cut off"
    visit.page.wait_for_timeout(500)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert visit.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_colour_schemes(visit, files, scheme):
    visit = visit(color_scheme=scheme)
    visit.open_photo(files / "scene.png")
    style = "e => getComputedStyle(e)"
    paper = luminance(visit.page.locator("body").evaluate(f"{style}.backgroundColor"))
    assert paper < 0.1 if scheme == "dark" else paper > 0.8
    texts = ("#views figcaption", "#numbers td", "#sentence p", ".als-model summary")
    for selector in (*texts, ".tab-container button.selected"):
        ink = luminance(visit.page.locator(selector).first.evaluate(f"{style}.color"))
        contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert contrast >= 4.5, f"{selector}: {contrast:.1f}"
    visit.page.get_by_role("tab", name="What if").click()
    run = visit.page.get_by_role("button", name="Run with these maps")
    fill, ink = (luminance(run.evaluate(f"{style}.{one}")) for one in ("backgroundColor", "color"))
    assert (max(ink, fill) + 0.05) / (min(ink, fill) + 0.05) >= 4.5
