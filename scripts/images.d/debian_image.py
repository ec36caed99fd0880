# SPDX-License-Identifier: Apache-2.0
"""Images of Debian packages, in three layers as three steps would leave them.

mmdebstrap makes one root file system without needing root; its tar is then divided by package.
"""

import os
import posixpath
import re
import shlex
import subprocess
import tarfile
import tempfile

SUITE = "bookworm"
ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]

# Not installed. Licences stay.
EXCLUDED = ["/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*",
            "/usr/share/lintian/*", "/usr/share/bug/*"]
INCLUDED = ["/usr/share/doc/*/copyright"]
# Installed, for packages expect to find it, but not taken along: what only the installation needed,
# what names this host or its mirror, tests, and a second copy of NumPy's core.
DROPPED = re.compile(
    r"dev/.|etc/(apt|hostname|resolv\.conf|machine-id)(/|$)|etc/dpkg/dpkg\.cfg\.d/."
    r"|var/(cache|lib/apt|log)/.|var/lib/dpkg/[^/]*-old$"
    r"|usr/lib/python3/dist-packages/numpy/(.*/)?tests(/|$)|usr/lib/python3\.11/dist-packages/.")

NO_USRMERGE = ('printf "Package: usrmerge\\nPin: release *\\nPin-Priority: -1\\n" '
               '> "$1/etc/apt/preferences.d/no-usrmerge"')


class ImageError(Exception):
    """One sentence for the user."""


def make(folder, name, packages, program, check):
    """Writes the layers' tars into `folder`; returns the arguments of Layout.add_image.

    `packages` are two: layer 2 is what the first one needs, layer 3 the rest. `program` is what the
    image runs; the command `check` runs in the finished root file system, and the image is not made when
    it fails."""
    whole = os.path.join(folder, f"{name}.tar")
    bootstrap(whole, name, packages, check)
    paths = [os.path.join(folder, f"{name}-{number}.tar") for number in (1, 2, 3)]
    divide(whole, paths, packages[0])
    os.unlink(whole)
    config = {"Env": ENVIRONMENT, "Cmd": [program], "WorkingDir": "/"}
    steps = ["Debian " + SUITE, *packages]
    return [(path, "gzip", f"scripts/images: {step}") for path, step in zip(paths, steps)], config


# ---- One root file system.

def bootstrap(whole, name, packages, check):
    with tempfile.TemporaryDirectory(dir=os.path.dirname(whole)) as folder:
        command = ["mmdebstrap", "--architectures=amd64", "--variant=essential",
                   f"--include={','.join(packages)}",
                   # Without these two, usrmerge comes along and with it 60 MB of Perl.
                   "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", f"--setup-hook={NO_USRMERGE}",
                   *(f"--aptopt={line}" for line in apt_settings()),
                   "--dpkgopt=force-unsafe-io",  # nobody needs half of it after a power cut
                   *(f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED),
                   *(f"--dpkgopt=path-include={pattern}" for pattern in INCLUDED),
                   f'--customize-hook=chroot "$1" {shlex.join(check)}',
                   SUITE, "-", *apt_sources(folder)]
        with open(whole, "wb") as tar, open(os.path.join(folder, "log"), "w+b") as log:
            # Not in the working directory: mmdebstrap runs commands as other users.
            made = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=tar, stderr=log, cwd="/")
            try:
                made.wait()
            finally:
                if made.poll() is None:  # interrupted: it removes what it has made so far
                    made.terminate()
                    made.wait()
            if made.returncode:
                log.seek(0)
                lines = log.read().decode(errors="replace").splitlines()[-25:]
                raise ImageError(f"mmdebstrap could not make the {name} image (an ordinary user needs the "
                                 "package uidmap and a line in /etc/subuid, or run this as root). "
                                 "It said:\n" + "\n".join(lines))


def apt_settings():
    """This host's way to its package mirrors: proxies, certificates, patience."""
    dump = subprocess.run(["apt-config", "dump", "--no-empty"], capture_output=True, text=True, check=True)
    wanted = re.compile(r"Acquire::(https?|ftp|Retries|Check-Date|Check-Valid-Until|Force)", re.IGNORECASE)
    return [line for line in dump.stdout.splitlines() if wanted.match(line)]


def apt_sources(folder):
    """Files with this host's own sources of the suite; whatever else it installs from stays out."""
    suites = {SUITE, f"{SUITE}-updates", f"{SUITE}-security", f"{SUITE}/updates"}
    lines, stanzas = [], []
    for name in source_files():
        with open(name, encoding="utf-8") as file:
            text = file.read()
        if name.endswith(".list"):
            lines += [line for line in text.splitlines() if is_wanted_line(line, suites)]
        else:
            stanzas += [stanza for stanza in re.split(r"\n\s*\n", text) if is_wanted_stanza(stanza, suites)]
    files = []
    for name, content in (("host.list", "\n".join(lines)), ("host.sources", "\n\n".join(stanzas))):
        if content:
            files.append(os.path.join(folder, name))
            with open(files[-1], "w", encoding="utf-8") as file:
                file.write(content + "\n")
    if not files:
        raise ImageError(f"/etc/apt names no source of Debian {SUITE}: images are made of its "
                         "packages, so add one there.")
    return files


def source_files():
    parts = "/etc/apt/sources.list.d"
    names = ["/etc/apt/sources.list"]
    if os.path.isdir(parts):
        names += [os.path.join(parts, name) for name in sorted(os.listdir(parts))
                  if name.endswith((".list", ".sources"))]
    return [name for name in names if os.path.isfile(name)]


def is_wanted_line(line, suites):
    words = re.sub(r"\[.*?\]", "", line.partition("#")[0]).split()
    return len(words) > 3 and words[0] == "deb" and words[2] in suites and "main" in words[3:]


def is_wanted_stanza(stanza, suites):
    fields = {}
    for line in stanza.splitlines():
        key, colon, value = line.partition(":")
        if colon and not line.startswith(("#", " ", "\t")):
            fields[key.strip().lower()] = value.split()
    return (fields.get("enabled", ["yes"]) != ["no"] and "deb" in fields.get("types", [])
            and bool(suites & set(fields.get("suites", []))) and "main" in fields.get("components", []))


# ---- Divided into layers.

def divide(whole, paths, first):
    with tarfile.open(whole) as tar:
        entries = {posixpath.normpath(entry.name): entry for entry in tar}
        layer_of = assign_layers(tar, entries, first)
        # What the installation itself made is as old as the newest file of a package, whenever it
        # ran, so that the same packages give the same layers.
        newest = max(int(entries[name].mtime) for name in entries
                     if name in layer_of.packaged and entries[name].isfile())
        layers = [tarfile.open(path, "w", format=tarfile.PAX_FORMAT) for path in paths]
        for name, entry in sorted(entries.items()):
            if name == "." or DROPPED.match(name):
                continue
            content = tar.extractfile(entry) if entry.isreg() else None
            entry.name = name
            if entry.islnk():
                entry.linkname = posixpath.normpath(entry.linkname)
            entry.mtime = min(int(entry.mtime), newest)
            entry.pax_headers = {key: value for key, value in entry.pax_headers.items()
                                 if key.startswith("SCHILY.xattr.")}
            entry.uname = entry.gname = ""
            layers[layer_of[name]].addfile(entry, content)
        for layer in layers:
            layer.close()


class LayerOf(dict):
    """The number of the layer, from 0, of each name; `packaged` are the names that packages own."""

    packaged = frozenset()


def assign_layers(tar, entries, first):
    def text_of(name):
        return tar.extractfile(entries[name]).read().decode()

    packages = installed_packages(text_of("var/lib/dpkg/status"))
    base = closure(packages, [name for name, fields in packages.items() if fields.get("Essential") == "yes"])
    middle = closure(packages, [first]) - base
    layer_of = LayerOf()
    for info in entries:
        matched = re.fullmatch(r"var/lib/dpkg/info/([^:/]+)(:[^/]+)?\.list", info)
        if matched:
            package = matched[1]
            number = 0 if package in base else 1 if package in middle else 2
            for path in text_of(info).splitlines():
                name = merged(path)
                # A directory of several packages belongs where it is needed first.
                layer_of[name] = min(number, layer_of.get(name, number))
    layer_of.packaged = frozenset(layer_of)
    for name in sorted(entries):
        if name not in layer_of:
            layer_of[name] = layer_of_made(name, entries, layer_of)
    # Hard links stay with the file that they are links to.
    for name, entry in entries.items():
        if entry.islnk():
            layer_of[name] = layer_of[posixpath.normpath(entry.linkname)]
    return layer_of


def layer_of_made(name, entries, layer_of):
    """The layer of what no package owns, but an installation script made."""
    if name.startswith("var/lib/dpkg/") or name == "etc/ld.so.cache":
        return 2  # each step rewrites it
    if "/__pycache__" in name:
        source = name.partition("/__pycache__")[0]
        return layer_of.get(source, 0)
    # Links of the alternatives system follow what they point to, at last.
    followed = name
    for _ in range(4):
        if followed not in entries or not entries[followed].issym():
            break
        followed = merged(posixpath.join("/", posixpath.dirname(followed), entries[followed].linkname))
    return layer_of.get(followed, 0) if followed != name else 0


def merged(path):
    """A package's path as it is in the tar: without leading slash, /bin and the like under /usr."""
    name = posixpath.normpath(path).lstrip("/") or "."
    return re.sub(r"^(bin|sbin|lib|lib32|lib64|libx32)/", r"usr/\1/", name)


def installed_packages(status):
    packages = {}
    for stanza in status.split("\n\n"):
        fields = dict(re.findall(r"^(\S+): (.*)$", stanza, re.MULTILINE))
        if "Package" in fields:
            packages[fields["Package"]] = fields
    return packages


def closure(packages, names):
    """The packages and all they depend on. Of alternatives, those that are installed."""
    providers = {}
    for name, fields in packages.items():
        for provided in [name, *names_in(fields.get("Provides", ""))]:
            providers.setdefault(provided, []).append(name)
    found, waiting = set(), list(names)
    while waiting:
        for name in providers.get(waiting.pop(), []):
            if name not in found:
                found.add(name)
                fields = packages[name]
                waiting += names_in(fields.get("Depends", "") + "," + fields.get("Pre-Depends", ""))
    return found


def names_in(relation):
    """The package names of a relation such as "libc6 (>= 2.36), mawk | gawk"."""
    return re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]*)", relation)
