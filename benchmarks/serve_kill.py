"""Kills `jaxnets serve` (SIGKILL) under load, again and again, and counts the feedback.

    python benchmarks/serve_kill.py [RUN] [--kills=20] [--users=16] [--seed=0]

Users ask for predictions and give feedback, each after the answer to the last request. At a random
moment the server is killed, and started again on the same log. A feedback counts as accepted when
its user has read "saved". Exit status 1 if one of them is not in the log, if one is there twice, or
if the log cannot be read.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from jaxnets.deploy.server.feedback import read

HERE = Path(__file__).parent


async def user(client: httpx.AsyncClient, accepted: list[str]) -> None:
    """Asks and answers until the server is gone."""
    image = {"image": [0] * 784}
    with contextlib.suppress(httpx.TransportError):
        while True:
            reply = await client.post("/predict", json=image)
            token = reply.raise_for_status().json()["pictures"][0]["answer"]
            reply = await client.post("/feedback", json={"answer": token, "correct": True})
            reply.raise_for_status()
            accepted.append(json.loads(base64.urlsafe_b64decode(token)[16:])[0])


async def until_killed(url: str, process: Any, users: int, seconds: float) -> list[str]:
    """The requests whose feedback was accepted before the kill."""
    accepted: list[str] = []
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        tasks = [asyncio.create_task(user(client, accepted)) for _ in range(users)]
        while not accepted:
            await asyncio.sleep(0.01)
        await asyncio.sleep(seconds)
        process.kill()
        await asyncio.gather(*tasks)
    return accepted


def main() -> int:
    """Kills, counts, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, accepted = random.Random(given.seed), []
    with tempfile.TemporaryDirectory() as folder:
        run, log = given.run or f"{folder}/softmax", Path(folder, "log.sqlite")
        if not given.run:
            flags = ["--model=softmax", "--epochs=1", "--limit=2000", f"--workdir={run}"]
            train = [sys.executable, str(HERE.parent / "train.py"), *flags]
            subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
        serve = [sys.executable, "-m", "jaxnets", "serve", run, "--port=0", "--json"]
        for kill in range(given.kills):
            command = [*serve, f"--feedback={log}"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                url = json.loads(process.stdout.readline())["url"]
                seconds = rng.uniform(0, 1)
                accepted += asyncio.run(until_killed(url, process, given.users, seconds))
            found = [row.request for row in read(log)]
            lost, twice = set(accepted) - set(found), len(found) - len(set(found))
            print(
                f"kill {kill + 1}: {len(accepted):,} accepted, {len(found):,} in the log, "
                f"{len(lost)} lost, {twice} twice",
                flush=True,
            )
            if lost or twice:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
