"""Whether what pip has installed is what `.ci/requirements.lock` names, by its hashes.

`python .ci/audit.py REPORT…`, with the reports that `pip install --report` wrote: a file of a locked version
with another hash is an error, another version is only said. `--write` makes the lock of the reports.
`python .ci/audit.py --advisories PIP_AUDIT` has pip-audit compare the lock with the known vulnerabilities.
"""

import json
import platform
import re
import subprocess
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


def advisories(pip_audit: str) -> None:
    """Exit with what is vulnerable; say so where pip-audit cannot reach its service."""
    command = [pip_audit, "--require-hashes", "--disable-pip", "--requirement", str(LOCK)]
    done = subprocess.run(
        [*command, "--format", "json", "--progress-spinner", "off", "--timeout", "5"],
        capture_output=True,
        text=True,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        packages = []
    known = [package for package in packages if "skip_reason" not in package]
    if bad := [package for package in known if package["vulns"]]:
        sys.exit("\n".join(f"{one['name']} {one['version']}: {one['vulns']}" for one in bad))
    if known:
        print(f"{len(known)} packages without known vulnerability; {len(packages) - len(known)} unknown")
    else:
        print("the advisories cannot be reached from here: only the hashes were compared")


def _is_other(file: tuple[str, str], locked: tuple[str, str]) -> bool:
    return file[0] == locked[0] and file[1] != locked[1]


if __name__ == "__main__":
    if "--advisories" in sys.argv:
        advisories(sys.argv[-1])
        sys.exit()
    found = installed([name for name in sys.argv[1:] if name != "--write"])
    if "--write" in sys.argv:
        write(found)
    if other := problems(found):
        sys.exit(f"not the files that the lock names: {', '.join(other)}")
    print(f"{len(found)} packages compared with the lock")
