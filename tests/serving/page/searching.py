"""The parts of the page of a service with an index that tests look at, and what they do with them."""

from typing import TYPE_CHECKING

from tests.serving.page.stand_in import StandIn

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def field(page: "Page") -> "Locator":
    return page.get_by_role("searchbox", name="Find photographs by words")


def tiles(page: "Page") -> "Locator":
    return page.locator(".tile")


def opener(page: "Page", number: int) -> "Locator":
    return page.get_by_role("button", name=f"a dog runs on beach {number} {number}.png", exact=True)


def search(page: "Page", text: str) -> None:
    field(page).fill(text)
    field(page).press("Enter")


def asked(stand_in: StandIn) -> list[dict[str, str]]:
    """Returns the queries of all searches."""
    return [query for path, query in stand_in.sought if path in ("/v1/search", "/v1/similar")]
