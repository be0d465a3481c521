"""What the page remembers between two clicks: analysed photos, one set for each browser tab.

Gradio's own state copies its value on every event; here the values stay where they are, in a store
of bounded size that forgets the session that was used longest ago.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock, RLock

from als.inference import Predictor
from als.ui.gallery import Gallery, Photograph
from als.views.photo_study import Choice, Settings, Study

MAX_BYTES = 1_000_000_000


@dataclass
class Session:
    """One browser tab: the photo, the second model and its view of the photo, the last 'what if'.

    `lock` holds while one event changes this session, so that two never mix.
    """

    model: str | None = None  # by name; None for the one that the page begins with
    photo: Study | None = None
    second: Predictor | None = None
    compared: Study | None = None
    changed: Study | None = None
    on_canvas: Study | None = None
    gallery: Gallery | None = None
    gallery_place: str = ""  # of the page, whose files it has
    listed: Photograph | None = None  # of the gallery: the one that is the photo
    opening: Photograph | None = None  # the one that becomes it
    corners: list[tuple[float, float]] | None = None  # of a box that is being drawn, so far
    asked: Choice | None = None  # by the address, of the photo that comes next
    drawn: Settings | None = None  # how the pictures were drawn last
    # When the page sent the last event of each kind that was handled, in milliseconds of its own.
    sent: dict[str, float] = field(default_factory=dict)
    tab: str = "Explain"  # the one that is open
    refused: bool = False  # the last photo could not be read
    lock: RLock = field(default_factory=RLock)

    def open(self, study: Study | None) -> None:
        """Take a new photo (or none) and forget what was made of the last one."""
        self.photo, self.compared, self.changed, self.on_canvas = study, None, None, None
        self.listed = self.corners = None

    def bytes(self) -> int:
        studies = (self.photo, self.compared, self.changed)
        taken = sum(study.bytes() for study in studies if study is not None)
        second = self.second  # another thread may drop it meanwhile
        if second is not None:
            taken += sum(p.nbytes for p in second.detector.parameters())
        gallery = self.gallery
        return taken + (gallery.bytes() if gallery is not None else 0)


class SessionStore:
    """Sessions by Gradio's session hash, least recently used first out."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_sessions: int = 64):
        self.max_bytes, self.max_sessions = max_bytes, max_sessions
        self.sessions: OrderedDict[str, Session] = OrderedDict()
        self.lock = Lock()

    def get(self, key: str | None) -> Session:
        """The session of a tab, a new one where there is none; makes room for it."""
        with self.lock:
            session = self.sessions.setdefault(key or "", Session())
            self.sessions.move_to_end(key or "")
            while len(self.sessions) > 1 and self._too_much():
                self.sessions.popitem(last=False)
            return session

    def drop(self, key: str | None) -> None:
        """Forget a tab that was closed."""
        with self.lock:
            self.sessions.pop(key or "", None)

    def _too_much(self) -> bool:
        total = sum(session.bytes() for session in self.sessions.values())
        return total > self.max_bytes or len(self.sessions) > self.max_sessions
