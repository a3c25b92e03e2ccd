#!/usr/bin/env bash
# Writes the generated packages: generate.sh PYTHON OUT
set -euo pipefail
python=$1 out=$2
PATH="$(dirname "$(command -v "$python")"):$PATH"
cd "$(dirname "$0")/.."
rm -rf "$out/batchwork"
mkdir -p "$out"
# Nouns have no services: only *_service.proto gets gRPC stubs.
"$python" -m grpc_tools.protoc -Iprotos --python_out="$out" --mypy_out=quiet:"$out" \
  protos/batchwork/v1/*.proto
"$python" -m grpc_tools.protoc -Iprotos --grpc_python_out="$out" --mypy_grpc_out=quiet:"$out" \
  protos/batchwork/v1/*_service.proto
for package in batchwork batchwork/v1; do
  : >"$out/$package/__init__.py"
done
: >"$out/batchwork/py.typed"
