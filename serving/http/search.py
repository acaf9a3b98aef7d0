"""The routes that find photographs of an index, and show them. Knows no files: the index opens them by number."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request, Response

from engine import ImageError, OptionsError, Photo, PhotoIndex, Results
from serving.http.bodies import Bodies
from serving.http.clients import while_connected
from serving.http.description import Routes
from serving.http.photo_answers import FoundPhotographs, Photograph, found, photograph
from serving.http.photo_file import PhotoFile, base_name, small_picture, unchanged
from serving.http.photographs import Photographs
from serving.http.problems import Problem
from serving.http.reports import Report

LIMIT = 20
MOST = 1000  # photographs of an answer
SIDE = 480  # pixels of a thumbnail's longer side
ID = re.compile("[1-9][0-9]{0,17}")


def add_search(app: FastAPI, photographs: Photographs | None, bodies: Bodies, routes: Routes) -> None:
    """Adds the routes. Without an index they answer so, and are not described."""
    shown: dict[str, Any] = {"include_in_schema": photographs is not None}

    def opened() -> Photographs:
        if photographs is None:
            raise Problem("index", "the service has no index of photographs: its operator can give one with --index")
        return photographs

    async def search_for(request: Request, question: Callable[[PhotoIndex], Results]) -> Response:
        report: Report = request.state.report

        def answer(index: PhotoIndex) -> bytes:
            results = question(index)
            told = found(results, index.captioner.bundle.manifest.name, report.request_id)
            return told.model_dump_json().encode()

        content = await while_connected(request, opened().ask(answer))
        return Response(content, media_type="application/json")

    @app.get("/v1/search", response_model=FoundPhotographs, **routes.search(MOST, LIMIT), **shown)
    async def search(request: Request) -> Response:
        """Find photographs by words."""
        opened()
        options = _options(request.query_params.multi_items(), "q", "limit")
        text, limit = _required(options, "q", "say what the photographs show"), _limit(options)
        return await search_for(request, lambda index: index.search(text, limit))

    @app.get("/v1/similar", response_model=FoundPhotographs, **routes.like_photo(MOST, LIMIT), **shown)
    async def like_photo(request: Request) -> Response:
        """Find photographs that are like one of the index."""
        _require_vectors(opened())
        options = _options(request.query_params.multi_items(), "id", "limit")
        given, limit = _required(options, "id", "name a photograph of the index"), _limit(options)
        if not re.fullmatch("-?[0-9]+", given):
            raise OptionsError("id must be the number of a photograph", name="id", value=given)

        def question(index: PhotoIndex) -> Results:
            return index.similar(_photo(index, given).id, limit)

        return await search_for(request, question)

    @app.post("/v1/similar", response_model=FoundPhotographs, **routes.like_image(MOST, LIMIT), **shown)
    async def like_image(request: Request) -> Response:
        """Find photographs that are like an image."""
        _require_vectors(opened())
        async with bodies.read(request) as upload:
            if len(upload.images) != 1:
                raise Problem("body", f"{len(upload.images)} images were sent, but photographs are like one")
            (image,), limit = upload.images, _limit(_options(upload.options, "limit"))
            return await search_for(request, lambda index: index.similar(image, limit))

    @app.get("/v1/photos/{id}", response_model=Photograph, **routes.photo(), **shown)
    async def record(request: Request) -> Response:
        """Describe a photograph of the index."""
        given = request.path_params["id"]
        told = await while_connected(request, opened().ask(lambda index: photograph(_photo(index, given))))
        return Response(told.model_dump_json(), media_type="application/json")

    @app.get("/v1/photos/{id}/thumbnail", **routes.picture("image/jpeg"), **shown)
    async def thumbnail(request: Request) -> Response:
        """Show a photograph of the index, small."""
        given = request.path_params["id"]

        def answer(index: PhotoIndex) -> tuple[Photo, bytes]:
            photo = _photo(index, given)
            with _explained(photo):
                return photo, index.thumbnail(photo.id, SIDE)

        photo, content = await while_connected(request, opened().ask(answer))
        tag = f'"{photo.sha256}-{SIDE}"'
        return unchanged(request.headers.get("if-none-match"), tag) or small_picture(content, tag)

    @app.get("/v1/photos/{id}/file", **routes.picture("image/*"), **shown)
    async def file(request: Request) -> Response:
        """Show a photograph of the index as it is."""
        given = request.path_params["id"]

        def answer(index: PhotoIndex) -> Response:
            photo = _photo(index, given)
            with _explained(photo):
                content = index.open_file(photo.id)
            tag = f'"{photo.sha256}"'
            if same := unchanged(request.headers.get("if-none-match"), tag):
                content.close()
                return same
            return PhotoFile(content, base_name(photo.path), tag)

        return await while_connected(request, opened().ask(answer))


def _photo(index: PhotoIndex, given: str) -> Photo:
    """Returns the photograph with the number that a client gave. Raises Problem."""
    photo = index.photo(int(given)) if ID.fullmatch(given) else None
    if photo is None:
        raise Problem("photo", f"there is no photograph {given} in the index")
    if not photo.paths:
        raise Problem("photo", f"the file of photograph {given} is gone")
    return photo


@contextmanager
def _explained(photo: Photo) -> Iterator[None]:
    """Raises what is wrong with a photograph's file as a problem, without its path."""
    try:
        yield
    except ImageError as error:
        raise Problem("photo", f"the file of photograph {photo.id} {error.reason}") from error


def _require_vectors(photographs: Photographs) -> None:
    if not photographs.compares:
        raise Problem("vectors", "the model has no vectors, so it can find photographs by words, and not by likeness")


def _options(given: Iterable[tuple[str, str]], *known: str) -> dict[str, str]:
    """Returns options by name. Raises OptionsError for one that is unknown or given twice."""
    options: dict[str, str] = {}
    for name, text in given:
        if name not in known:
            raise OptionsError(f"there is no option {name!r} here: {' and '.join(known)} are all")
        if name in options:
            raise OptionsError(f"{name} is given more than once: give it once")
        options[name] = text
    return options


def _required(options: dict[str, str], name: str, advice: str) -> str:
    if name not in options:
        raise OptionsError(f"{name} is missing: {advice}")
    return options[name]


def _limit(options: dict[str, str]) -> int:
    text = options.get("limit", str(LIMIT))
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= MOST:
        raise OptionsError(f"limit must be a whole number from 1 to {MOST:,}", name="limit", value=text[:20])
    return int(text)
