"""A headless Chromium and what it does that no page of ours may: other hosts, violations of the policy, errors."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving.page.stand_in import MODEL, StandIn, found, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
REPORTER = """
addEventListener('securitypolicyviolation', (event) => console.error('policy: ' + event.violatedDirective));
"""


@pytest.fixture(scope="package")
def browser() -> Iterator["Browser"]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright, with which the page is tested, is missing")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"the page is tested in a browser, and there is none of {', '.join(NAMES)}")
    api.expect.set_options(timeout=15_000)
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with api.sync_playwright() as playwright:  # not longer: its event loop bars asyncio.run() from the thread
        opened = playwright.chromium.launch(executable_path=path, args=camera)
        yield opened
        opened.close()


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with serving() as opened:
        yield opened


@pytest.fixture
def beach(stand_in: StandIn) -> None:
    """Gives the stand-in an index of thirty photographs, which can be compared."""
    stand_in.model = MODEL | {"search": True, "similar": True}
    stand_in.index = [found(number) for number in range(1, 31)]


@dataclass
class Watch:
    """What went wrong in the browser; `expected` holds parts of messages that a test asks for."""

    expected: tuple[str, ...] = ()
    faults: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def add(self, page: "Page") -> None:
        page.on("console", self.hear)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("request", lambda request: self.addresses.append(request.url))

    def hear(self, message: "ConsoleMessage") -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def verify(self, url: str) -> None:
        assert [fault for fault in self.faults if not any(part in fault for part in self.expected)] == []
        assert [each for each in self.addresses if not each.startswith((url, f"blob:{url}", "data:"))] == []


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def open_page(browser: "Browser", watch: Watch) -> Iterator[Callable[..., "Page"]]:
    """Opens an address in a fresh profile, with options of a playwright context. Verifies the watch at the end."""
    contexts: list[tuple[BrowserContext, str]] = []

    def opened(url: str, **settings: Any) -> "Page":
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **settings})
        contexts.append((context, url))
        context.set_default_timeout(15_000)
        context.add_init_script(REPORTER)
        page = context.new_page()
        watch.add(page)
        page.goto(url)
        return page

    yield opened
    for context, url in contexts:
        context.close()
        watch.verify(url.partition("#")[0])


@pytest.fixture
def page(open_page: Callable[..., "Page"], stand_in: StandIn) -> "Page":
    """The page of the stand-in service, open."""
    return open_page(stand_in.url)
