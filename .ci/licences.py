"""List the licence of motionlib and of every package that it needs, directly or through others.

``make licences`` prints a table; the status is 1 where a package does not state its licence.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(name: str) -> dict[str, metadata.Distribution]:
    """Installed packages that a package needs, itself included, by canonical name."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [name]
    while waiting:
        one = canonicalize_name(waiting.pop())
        if one in found:
            continue
        try:
            found[one] = metadata.distribution(one)
        except metadata.PackageNotFoundError:  # for another system
            continue
        for line in found[one].requires or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                waiting.append(wanted.name)
    return found


def licence(distribution: metadata.Distribution) -> str:
    """Licence as the package states it: an SPDX expression, a short text or a classifier."""
    facts = distribution.metadata
    if facts.get("License-Expression"):
        return facts["License-Expression"]
    classes = [c.rpartition(" :: ")[2] for c in facts.get_all("Classifier") or ()
               if c.startswith("License ::") and not c.endswith(":: OSI Approved")]  # fmt: skip
    if classes:
        return ", ".join(sorted(set(classes)))
    lines = [line.strip() for line in (facts.get("License") or "").splitlines() if line.strip()]
    return lines[0] if lines and len(lines[0]) <= 60 else ""


def family(name: str) -> str:
    """Group licences that say the same in other words."""
    if re.search("AGPL|Affero", name):
        return "AGPL"
    if re.search("LGPL|Lesser General", name):
        return "LGPL"
    if re.search(r"(?<!L)GPL|GNU General", name):
        return "GPL"
    for word, said in (("MPL", "MPL|Mozilla"), ("Apache-2.0", "Apache"), ("BSD", "BSD"),
                       ("MIT", "MIT|Expat"), ("PSF", "PSF|Python Software")):  # fmt: skip
        if re.search(said, name):
            return word
    return "other" if name else "not stated"


def main() -> int:
    """Print the table and the counts."""
    found = needed("motionlib")
    rows = [(name, one.version, licence(one)) for name, one in sorted(found.items())]
    print("| package | version | licence |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    counts = Counter(family(row[2]) for row in rows)
    said = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    print(f"\n{len(rows)} packages: {said}")
    return 1 if counts["not stated"] else 0


if __name__ == "__main__":
    sys.exit(main())
