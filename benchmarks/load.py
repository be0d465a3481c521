"""The served app under load: many clients at once, a full queue, and memory over page events."""

import json
import secrets
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx
import numpy as np
from PIL import Image

from als.drawing import RULES
from als.photographs import package_photographs
from benchmarks.app import served
from benchmarks.recording import options, save
from benchmarks.timing import resident_megabytes

VALUES = (0.3, "class score", 0.6, "viridis", RULES[1], "gradact")  # of the page's controls
CLIENTS, REQUESTS, AT_ONCE = 32, 300, 120
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


def analyse(tab: Tab, name: str, content: bytes) -> dict | str:
    """The record that `/analyse` gives of a photo, or what it says instead."""
    index = next(one["id"] for one in tab.config["dependencies"] if one["api_name"] == "analyse")
    try:
        photo = upload(tab.web, name, content)
        answer = tab.join({"fn_index": index, "data": [photo, 0.3, "", "class score"]})
    except httpx.HTTPError as error:
        return str(error)
    return answer["output"]["data"][0] if answer["success"] else str(answer["output"]["error"])


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
    photos, tabs = list(photographs().items()), [Tab(url) for _ in range(clients)]
    alone = {name: analyse(tabs[0], name, content) for name, content in photos}

    def client(number: int) -> list[tuple[float, str, dict | str]]:
        took = []
        for i in range(number, requests, clients):
            name, content = photos[i % len(photos)]
            started = time.perf_counter()
            record = analyse(tabs[number], name, content)
            took.append((time.perf_counter() - started, name, record))
        return took

    with ThreadPoolExecutor(clients) as pool:
        took = [one for each in pool.map(client, range(clients)) for one in each]
    seconds = [second for second, _, _ in took]
    served = [(name, record) for _, name, record in took if isinstance(record, dict)]
    return {
        "clients": clients,
        "requests": len(took),
        "errors": [record for _, _, record in took if isinstance(record, str)],
        "cross_talk": sum(
            any(record[key] != alone[name][key] for key in ("photo", "detections"))
            for name, record in served
        ),
        "seconds": {
            "p50": statistics.median(seconds),
            "p95": float(np.percentile(seconds, 95)),
            "worst": max(seconds),
        },
    }


def at_once(url: str, requests: int) -> dict:
    """Requests that come together: how many are served, and what the others are told."""
    (name, content), *_ = photographs().items()
    tabs = [Tab(url) for _ in range(requests)]
    with ThreadPoolExecutor(requests) as pool:
        said = list(pool.map(lambda tab: analyse(tab, name, content), tabs))
    refused = [one for one in said if isinstance(one, str)]
    others = [one for one in refused if FULL not in one]
    full, served = len(refused) - len(others), requests - len(refused)
    return {"requests": requests, "served": served, "full": full, "others": others}


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
    parser = options(load, "results/reliability/app_load.json")
    parser.add_argument("--events", type=int, default=500, help="of the page")
    parser.add_argument("--tabs", type=int, default=12)
    given = parser.parse_args(arguments)
    with served() as (url, process):
        record: dict = {"page": page_events(url, process, given.events, given.tabs)}
        record["clients"] = many_clients(url, CLIENTS, REQUESTS)
        record["at_once"] = at_once(url, AT_ONCE)
        record["megabytes"] = resident_megabytes(process)
    print(json.dumps(record, indent=2))
    save(given.out, record)
