"""The teaching page of this server, with both models' answers and buttons for feedback."""

import asyncio
from importlib import resources

from fastapi import HTTPException

from jaxnets.base.errors import UserError
from jaxnets.page.build import (
    MEDIA_TYPES,
    Files,
    common_files,
    facts_script,
    html,
    page_files,
    practice,
    with_texts,
)
from jaxnets.server.models import Version
from jaxnets.server.service import Service

INDEX = "index.html"
OWN = ("answers.js", "answers.css", "answers.json")
PLAIN = ("page.css", "texts.js", "switches.js", "pictures.js")  # The files of the plain page.
# No inline script, no other host, no frame around it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Page:
    """The page's files for the current version of model A."""

    headers = {
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Resource-Policy": "same-origin",  # run.js has training images.
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    def __init__(self, service: Service):
        """Builds nothing yet."""
        self._service = service
        self._built: tuple[Version | None, Files] = (None, {})
        self._building = asyncio.Lock()

    async def file(self, name: str) -> tuple[bytes, str]:
        """A file's content and media type; HTTPException with 404 if there is none."""
        async with self._building:
            version = self._service.models[0].version
            if self._built[0] is not version:
                files = await asyncio.to_thread(served_files, version)
                self._built = version, files
        if name not in self._built[1]:
            raise HTTPException(404)
        media_type, content = self._built[1][name]
        return content, media_type


def served_files(version: Version) -> Files:
    """The page's files and this server's own; a plain page if the network has no page."""
    folder = resources.files("jaxnets.server") / "assets"
    own = {name: (folder / name).read_bytes() for name in OWN}
    own["answers.js"] = with_texts(own["answers.js"], own["answers.json"])
    try:
        files = page_files(version.trained, practice(version.trained), served=True)
    except UserError:
        common = common_files()
        files = {name: common[name] for name in PLAIN}
        files["run.js"] = MEDIA_TYPES[".js"], facts_script(version.trained).encode()
        files[INDEX] = MEDIA_TYPES[".html"], html("plain.html", served=True).encode()
    for name in OWN[:2]:
        files[name] = MEDIA_TYPES[name[name.index(".") :]], own[name]
    return files
