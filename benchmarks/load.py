"""The served app under load: many clients at once, a full queue, and memory over page events."""

import json
import secrets
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from als.drawing import RULES
from als.errors import InputError
from als.files import write_json
from als.photographs import package_photographs
from benchmarks.app import served
from benchmarks.recording import made_with, options
from benchmarks.timing import resident_megabytes

VALUES = (0.3, "class score", 0.6, "viridis", RULES[1], "gradact")  # of the page's controls
PATIENCE = 600  # seconds that one answer may take
SIDES = range(120, 200, 10)  # pixels: each photograph is told by its width
FULL = "Queue is full"


class Tab:
    """A browser's tab without the browser: sends the page's events and reads what comes back."""

    def __init__(self, url: str):
        self.web = httpx.Client(base_url=url, timeout=PATIENCE)
        self.session = secrets.token_hex(6)
        self.config = self.web.get("/config").json()

    def event(self, elem_id: str, trigger: str, data: list, told: dict | None = None) -> dict:
        """The answer to an event of the component `elem_id`; `told` is the event's own data.

        {"success": bool, "output": ...}, as Gradio's process_completed has it.
        """
        of = {c["id"]: c["props"].get("elem_id") for c in self.config["components"]}
        index = next(
            one["id"]
            for one in self.config["dependencies"]
            if any(of.get(part) == elem_id and name == trigger for part, name in one["targets"])
        )
        return self.join({"fn_index": index, "data": data, "event_data": told})

    def join(self, body: dict) -> dict:
        """The answer to an event by its number."""
        body = body | {"session_hash": self.session}
        sent = {"content": json.dumps(body), "headers": {"Content-Type": "application/json"}}
        joined = self.web.post("/gradio_api/queue/join", **sent)
        if joined.status_code != 200:
            return {"success": False, "output": {"error": joined.text}}
        asked = {"session_hash": self.session}
        with self.web.stream("GET", "/gradio_api/queue/data", params=asked) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if message.get("msg") == "process_completed":
                    return message
        return {"success": False, "output": {"error": "the stream ended"}}


def upload(web: httpx.Client, name: str, content: bytes) -> dict:
    """A file on the server, as Gradio's events take it."""
    answer = web.post("/gradio_api/upload", files={"files": (name, content)})
    (path,) = answer.raise_for_status().json()
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}


def analyse(web: httpx.Client, name: str, content: bytes) -> dict:
    """The record that `/analyse` gives of a photo. Raises InputError with the refusal."""
    photo = upload(web, name, content)
    called = web.post("/gradio_api/call/analyse", json={"data": [photo, 0.3, "", "class score"]})
    if called.status_code != 200:
        raise InputError(called.text)
    answer = web.get(f"/gradio_api/call/analyse/{called.json()['event_id']}").text
    event, data = answer.strip().splitlines()[-2:]
    if event != "event: complete":
        raise InputError(answer)
    return json.loads(data.removeprefix("data: "))[0]


def photographs() -> dict[str, bytes]:
    """Small photographs by name, of one picture at several sizes."""
    picture = Image.open(package_photographs()[0]).convert("RGB")
    found = {}
    for side in SIDES:
        content = BytesIO()
        picture.resize((side, side)).save(content, "JPEG", quality=90)
        found[f"{side}.jpg"] = content.getvalue()
    return found


def many_clients(url: str, clients: int, requests: int) -> dict:
    """Requests of several clients at once: seconds, errors, and answers of another's photo."""
    photos = photographs()
    with httpx.Client(base_url=url, timeout=PATIENCE) as web:
        alone = {name: analyse(web, name, content) for name, content in photos.items()}

    def client(number: int) -> list[tuple[float, str]]:
        took = []
        with httpx.Client(base_url=url, timeout=PATIENCE) as web:
            for i in range(number, requests, clients):
                name = list(photos)[i % len(photos)]
                started = time.perf_counter()
                try:
                    record = analyse(web, name, photos[name])
                except (InputError, httpx.HTTPError) as error:
                    said = f"error: {error}"
                else:
                    same = all(record[k] == alone[name][k] for k in ("photo", "detections"))
                    said = "" if same else "another's"
                took.append((time.perf_counter() - started, said))
        return took

    with ThreadPoolExecutor(clients) as pool:
        took = [one for each in pool.map(client, range(clients)) for one in each]
    seconds = [second for second, _ in took]
    return {
        "clients": clients,
        "requests": len(took),
        "errors": [said for _, said in took if said.startswith("error")],
        "cross_talk": sum(said == "another's" for _, said in took),
        "seconds": {
            "p50": statistics.median(seconds),
            "p95": float(np.percentile(seconds, 95)),
            "worst": max(seconds),
        },
    }


def at_once(url: str, requests: int) -> dict:
    """Requests that come together: how many are served, and what the others are told."""
    name, content = next(iter(photographs().items()))

    def ask(_: int) -> str:
        try:
            with httpx.Client(base_url=url, timeout=PATIENCE) as web:
                analyse(web, name, content)
        except (InputError, httpx.HTTPError) as error:
            return str(error)
        return "served"

    with ThreadPoolExecutor(requests) as pool:
        said = list(pool.map(ask, range(requests)))
    full = sum(FULL in one for one in said)
    others = [one for one in said if one != "served" and FULL not in one]
    return {"requests": requests, "served": said.count("served"), "full": full, "others": others}


def page_events(url: str, process: int, events: int, tabs: int) -> dict:
    """Resident megabytes while tabs open photos, choose, draw, compare and change maps."""
    photos, resident, failed = list(photographs().items()), [], []
    opened = [Tab(url) for _ in range(tabs)]
    steps = (
        ("detections", "pick", list(VALUES), {"row": 0}),
        ("opacity", "input", [None, 0.3, "class score", 0.4, *VALUES[3:]]),
        ("class-choice", "input", [class_of(opened[0]), *VALUES]),
        ("export", "click", list(VALUES)),
    )
    for i in range(events):
        tab = opened[i % tabs]
        step = i // tabs % 5
        if step == 0:
            name, content = photos[(i // tabs // 5 + i) % len(photos)]
            answer = tab.event("photo", "change", [upload(tab.web, name, content), *VALUES])
        else:
            answer = tab.event(*steps[step - 1])
        if not answer["success"]:
            failed.append(answer["output"])
        if i % max(1, events // 10) == events // 10 - 1:
            resident.append(resident_megabytes(process))
            print(f"{i + 1} events: {resident[-1]:.0f} MB", flush=True)
    return {"events": events, "tabs": tabs, "failed": failed, "megabytes": resident}


def class_of(tab: Tab) -> str:
    """The last class that the page offers to explain."""
    parts = (c["props"] for c in tab.config["components"])
    return next(p["choices"] for p in parts if p.get("elem_id") == "class-choice")[-1][1]


def load(arguments: list[str]) -> None:
    """The app with 32 clients, with 120 requests at once, and its memory over page events.

    No error and no answer of another's photo are the aim, a sentence for who comes to a full queue,
    and memory that stays flat.
    """
    parser = options(load)
    parser.add_argument("--checkpoint", type=Path, help="default: the one that ships")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=120)
    parser.add_argument("--events", type=int, default=500, help="of the page")
    parser.add_argument("--tabs", type=int, default=12)
    given = parser.parse_args(arguments)
    record = made_with()
    with served(given.checkpoint) as (url, process):
        record["page"] = page_events(url, process, given.events, given.tabs)
        record["clients"] = many_clients(url, given.clients, given.requests)
        record["at_once"] = at_once(url, given.at_once)
        record["megabytes"] = resident_megabytes(process)
    print(json.dumps({name: record[name] for name in ("page", "clients", "at_once")}, indent=2))
    if given.out is not None:
        write_json(given.out, record)
