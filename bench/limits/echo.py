"""A bare server of grpc.aio that answers each call with the same message.

Started as ``python -m bench.limits.echo ANSWER``, a GetBatchResponse in hexadecimal digits. It
answers to the name of GetBatch, so that the same client measures both; it reads and writes the
same messages, and has no interceptor, no log and nothing to look up.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc
from batchwork.v1.batch_service_pb2 import GetBatchRequest, GetBatchResponse


async def main(encoded_answer: bytes) -> None:
    answer = GetBatchResponse.FromString(encoded_answer)

    async def get_batch(request: GetBatchRequest, context: Any) -> GetBatchResponse:
        return answer

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handler = grpc.unary_unary_rpc_method_handler(
        get_batch,
        request_deserializer=GetBatchRequest.FromString,
        response_serializer=GetBatchResponse.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler(
        "batchwork.v1.BatchService", {"GetBatch": handler}
    )
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await stop.wait()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(bytes.fromhex(sys.argv[1])))
