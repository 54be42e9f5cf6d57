"""Downloads published files with pooch, which checks their SHA-256."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests
import urllib3

from jaxnets.base.bar import progress_bar
from jaxnets.base.errors import UserError, before_end, first_line
from jaxnets.data.idx import PublishedFile

TIMEOUT = (5.0, 20.0)  # Seconds to wait for a connection, and for the next bytes.
RETRIES = 1  # Further requests to a mirror for a file that came damaged or incomplete.

pooch.get_logger().setLevel("ERROR")  # The progress bar says enough.


def download(
    files: Sequence[PublishedFile], mirrors: Sequence[str], folder: Path, dataset: str
) -> None:
    """Downloads the files of a data set from the first mirror that has them.

    If none has, the UserError says which files to place where.
    """
    registry = {file.name: file.sha256 for file in files}
    failures = []
    for mirror in mirrors:
        source = pooch.create(folder, f"{mirror}/", registry=registry, retry_if_failed=RETRIES)
        try:
            for file in files:
                # pooch declares a downloader's parameters as a processor's.
                source.fetch(file.name, downloader=_save)  # pyright: ignore[reportArgumentType]
            return
        except requests.RequestException as error:
            failures.append(f"{urlsplit(mirror).hostname}: {type(error).__name__}")
        except ValueError as error:  # Another SHA-256.
            failures.append(f"{urlsplit(mirror).hostname}: {str(error).partition('. ')[0]}")
        except OSError as error:
            raise UserError("{}: cannot be written: {}", folder, first_line(error)) from error
    raise UserError(
        "{}: not on this machine, and cannot be downloaded ({}); place {} in {}, as "
        "published at {}/",
        dataset,
        "; ".join(failures),
        ", ".join(registry),
        folder,
        mirrors[0],
    )


def _save(url: str, path: str, source: pooch.Pooch) -> None:
    """Saves what a mirror sends, like pooch's downloader but without decoding it.

    Some servers declare a file's .gz as an encoding, which pooch's own downloader would undo.
    """
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, timeout=TIMEOUT, stream=True) as response:
        response.raise_for_status()
        size = int(response.headers.get("Content-Length", 0)) or None
        bar = progress_bar(size, desc=Path(url).name, unit="B", unit_scale=True)
        with (
            before_end(Path(path).unlink),
            bar,
            open(path, "wb") as whole,
            # The connection broke: pooch finds another SHA-256, and asks again.
            contextlib.suppress(urllib3.exceptions.HTTPError),
        ):
            for piece in response.raw.stream(1 << 20, decode_content=False):
                bar.update(whole.write(piece))
