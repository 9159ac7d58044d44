"""Whether what pip has installed is what `.ci/requirements.lock` names, by its hashes.

`python .ci/audit.py REPORT…`, with the reports that `pip install --report` wrote: a file of a locked version
with another hash is an error, another version is only said. `--write` makes the lock of the reports.
"""

import json
import platform
import re
import sys
from pathlib import Path

LOCK = Path(__file__).with_name("requirements.lock")
LINE = re.compile(r"^(\S+)==(\S+) \\\n    --hash=sha256:([0-9a-f]{64})$", re.MULTILINE)
HEAD = f"# For Python {sys.version_info[0]}.{sys.version_info[1]} on {sys.platform} {platform.machine()}.\n"
USE = "# pip install --require-hashes -r .ci/requirements.lock; made by .ci/audit.py --write.\n"
Files = dict[str, tuple[str, str]]
"""Version and SHA-256 of the file, by the package's name."""


def installed(reports: list[str]) -> Files:
    """What the reports tell of all packages that came from a registry."""
    items = [item for report in reports for item in json.loads(Path(report).read_text())["install"]]
    return {
        re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(): (
            item["metadata"]["version"],
            item["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for item in items
        if "dir_info" not in item["download_info"]  # the project itself
    }


def write(found: Files) -> None:
    lines = [
        f"{name}=={version} \\\n    --hash=sha256:{hashed}\n" for name, (version, hashed) in found.items()
    ]
    LOCK.write_text(HEAD + USE + "".join(sorted(lines)))


def problems(found: Files) -> list[str]:
    """Packages whose file is another than the lock's, though its version is the same."""
    text = LOCK.read_text()
    if not text.startswith(HEAD):
        print("the lock is for another platform:", text.splitlines()[0])
        return []
    locked = {name: (version, hashed) for name, version, hashed in LINE.findall(text)}
    for name, (version, _) in sorted(found.items()):
        if locked.get(name, ("",))[0] != version:
            print(f"{name} {version}, and the lock has {locked.get(name, ('none of it',))[0]}")
    return [name for name, file in found.items() if name in locked and _is_other(file, locked[name])]


def _is_other(file: tuple[str, str], locked: tuple[str, str]) -> bool:
    return file[0] == locked[0] and file[1] != locked[1]


if __name__ == "__main__":
    found = installed([name for name in sys.argv[1:] if name != "--write"])
    if "--write" in sys.argv:
        write(found)
    if other := problems(found):
        sys.exit(f"not the files that the lock names: {', '.join(other)}")
    print(f"{len(found)} packages compared with the lock")
