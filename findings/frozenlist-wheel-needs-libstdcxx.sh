#!/bin/sh
# frozenlist 1.8.0 (PyPI, manylinux wheel for CPython 3.11): its extension module is linked with
# libstdc++.so.6, and without that library the package goes on in pure Python and says nothing.
#
# manylinux allows the library (PEP 513), so the wheel is right. A small image has none: Debian's
# python3 and all that it depends on leave it out, as C++ is not what CPython is written in.
# multidict, propcache, yarl and uvloop of the same lock ask for no C++. The library is kept out
# here by an empty file of its name, which the loader takes first.
#
# Expected output:
#   frozenlist libstdc++.so.6
#   multidict -
#   propcache -
#   uvloop -
#   yarl -
#   with it: frozenlist._frozenlist
#   without: frozenlist, no warning
# Exits non-zero if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install -qq --disable-pip-version-check --root-user-action=ignore --no-deps \
    --only-binary :all: --implementation cp --python-version 3.11 --abi cp311 \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --target "$folder/packages" frozenlist==1.8.0 multidict==7.2.1 propcache==0.5.4 uvloop==0.23.0 \
    yarl==1.25.1 typing_extensions==4.16.0
mkdir "$folder/empty"
: > "$folder/empty/libstdc++.so.6"
cat > "$folder/program.py" <<'PROGRAM'
import os
import pathlib
import subprocess
import sys

folder = pathlib.Path(sys.argv[1])
packages = folder / "packages"
said = []
for name in ("frozenlist", "multidict", "propcache", "uvloop", "yarl"):
    modules = [path.read_bytes() for path in (packages / name).rglob("*.so")]
    assert modules, name
    linked = any(b"\0libstdc++.so.6\0" in content for content in modules)
    said.append(f"{name} {'libstdc++.so.6' if linked else '-'}")
ASK = "import frozenlist; print(frozenlist.FrozenList.__module__)"
for title, library in (("with it", ""), ("without", str(folder / "empty"))):
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", ASK],
        env={**os.environ, "PYTHONPATH": str(packages), "LD_LIBRARY_PATH": library},
        capture_output=True, text=True, check=True,
    )
    said.append(f"{title}: {done.stdout.strip()}{'' if done.stderr else ', no warning'}")
said[-2] = said[-2].removesuffix(", no warning")
print("\n".join(said))
sys.exit(
    said != [
        "frozenlist libstdc++.so.6", "multidict -", "propcache -", "uvloop -", "yarl -",
        "with it: frozenlist._frozenlist", "without: frozenlist, no warning",
    ]
)
PROGRAM
python3.11 "$folder/program.py" "$folder"
