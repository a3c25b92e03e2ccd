#!/usr/bin/env bash
# Uses the wheel as a stranger would: client_check.sh PYTHON
#
# Builds it, installs it alone into an empty environment, once with the lowest versions that it
# says it supports and once with the newest, and looks at what came along.
set -euo pipefail
python=$(command -v "$1")
cd "$(dirname "$0")/.."
root=.client-check
mkdir -p "$root"

uv=$(dirname "$python")/uv
[ -x "$uv" ] || uv=

install() {  # install ENVIRONMENT ARGUMENT...
  local environment=$1
  shift
  if [ -n "$uv" ]; then
    "$uv" pip install --quiet --python "$environment/bin/python" "$@"
  else
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
  fi
}

build_wheel() {
  rm -rf "$root/dist"
  if [ -n "$uv" ]; then
    "$uv" build --quiet --wheel --python "$python" --out-dir "$root/dist" .
  else
    "$python" -m build --wheel --outdir "$root/dist" . >"$root/build.log" || {
      cat "$root/build.log" >&2
      return 1
    }
  fi
}

requirements() {  # requirements lowest|newest: what the wheel asks for without an extra
  "$python" - "$root"/dist/*.whl "$1" <<'PYTHON'
import re
import sys
from email.parser import Parser
from zipfile import ZipFile

wheel, end = sys.argv[1:]
with ZipFile(wheel) as archive:
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(archive.read(name).decode())
for requirement in metadata.get_all("Requires-Dist", []):
    if "extra ==" in requirement:
        continue
    floor = re.fullmatch(r"([A-Za-z0-9._-]+).*>=\s*([0-9.]+).*", requirement)
    if floor is None:
        sys.exit(f"{requirement!r} has no floor")
    print(f"{floor[1]}=={floor[2]}" if end == "lowest" else requirement)
PYTHON
}

fresh_environment() {  # fresh_environment PATH: kept while the wheel asks for the same
  local environment=$1 wanted=$1.wanted
  if [ -x "$environment/bin/python" ] && cmp -s "$wanted" "$environment/installed.txt"; then
    return
  fi
  rm -rf "$environment"
  if [ -n "$uv" ]; then
    "$uv" venv --quiet --python "$python" "$environment"
  else
    "$python" -m venv "$environment"
  fi
  install "$environment" --requirement "$wanted"
  cp "$wanted" "$environment/installed.txt"
}

check_environment() {  # check_environment lowest|newest
  local environment=$root/$1
  requirements "$1" >"$environment.wanted"
  fresh_environment "$environment"
  # Nothing but the wheel: what it does not ask for must not come along.
  if [ -n "$uv" ]; then
    install "$environment" --no-deps --reinstall "$root"/dist/*.whl
    "$uv" pip check --quiet --python "$environment/bin/python"
  else
    install "$environment" --no-deps --force-reinstall "$root"/dist/*.whl
    "$environment/bin/python" -m pip check --disable-pip-version-check >&2
  fi
  look_around "$environment" "$1"
}

look_around() {  # look_around ENVIRONMENT NAME
  # Elsewhere, so that nothing is imported from the checkout.
  local environment
  environment=$(cd "$1" && pwd)
  (cd / && "$environment/bin/python" -I -W error - "$2" <<'PYTHON'
import asyncio
import importlib.util
import sys
from importlib.metadata import version

SERVER_ONLY = (
    "aiosqlite alembic apscheduler asyncpg grpc_health grpc_reflection grpc_tools jinja2 mako "
    "apprise httpx2 jsonschema marshmallow orjson pebble prometheus_client rich sqlalchemy "
    "stamina standardwebhooks structlog typer tzdata yaml"
).split()
came_along = [name for name in SERVER_ONLY if importlib.util.find_spec(name)]
assert not came_along, f"the client brings {', '.join(came_along)}"

import batchwork_client

for name in batchwork_client.__all__:
    assert getattr(batchwork_client, name) is not None, name
assert "batchwork_server" not in sys.modules


async def connect() -> None:
    async with batchwork_client.connect("localhost:1") as client:
        assert client.batches and client.jobs and client.preferences and client.validation


asyncio.run(connect())
names = "grpcio", "grpcio-status", "googleapis-common-protos", "protobuf"
print(f"{sys.argv[1]}:", ", ".join(f"{name} {version(name)}" for name in names))
PYTHON
  )
  local said code=0
  said=$("$environment/bin/batchwork" --help 2>&1) || code=$?
  if [ "$code" != 2 ] || [ "$(wc -l <<<"$said")" != 1 ] || [[ "$said" != *"batchwork[cli]"* ]]; then
    echo "client-check: without its extra the command line said (exit $code): $said" >&2
    return 1
  fi
}

build_wheel
check_environment lowest
check_environment newest
echo "client-check: the wheel works alone"
