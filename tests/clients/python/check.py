"""What a Python service sees of a real broker: run by test.sh.

    tests/clients/python/run.sh tests/clients/python/check.py target/debug/token-broker
"""

import asyncio
import base64
import hashlib
import sys

import client
import grpc
from stand import WORKSPACE, Stand
from tokenbroker.v1 import token_service_pb2 as pb
from tokenbroker.v1 import token_service_pb2_grpc


def main():
    with Stand(sys.argv[1]) as stand:
        asyncio.run(check(stand.broker().grpc))
    print("the Python client gets, watches and reports")


async def check(address):
    async with grpc.aio.insecure_channel(address) as channel:
        service = token_service_pb2_grpc.TokenServiceStub(channel)
        await gets(service)
        await watches_and_reports(service)
        await is_told_why(service)


async def gets(service):
    request = pb.GetTokenRequest(workspace=WORKSPACE)
    first = await service.GetToken(request, timeout=client.DEADLINE)
    token = first.token
    assert token.workspace == WORKSPACE and token.value.count(".") == 2, "a JWT of the Workspace"
    assert (token.header_name, token.token_type) == ("authorization", "Bearer"), token.header_name
    named = base64.urlsafe_b64encode(hashlib.sha256(b"tb-fp-v1" + token.value.encode()).digest()[:16])
    assert token.fingerprint == named.rstrip(b"=").decode(), "the fingerprint can be worked out from the token"
    left = first.valid_for.ToTimedelta().total_seconds()
    assert 0 < left <= 7 * 86_400, left
    second = await client.get(service, WORKSPACE)
    assert second["fingerprint"] == token.fingerprint and second["source"] == "TOKEN_SOURCE_CACHE", second


async def watches_and_reports(service):
    unknown = "bench/unknown"
    watching = client.watch(service, WORKSPACE, unknown)
    first = {state["workspace"]: state for state in [await soon(watching), await soon(watching)]}
    assert first[unknown] == {"workspace": unknown, "withdrawn": "WORKSPACE_UNKNOWN"}, first
    rejected = first[WORKSPACE]["fingerprint"]
    replacement = await client.report(service, WORKSPACE, rejected, 401)
    assert replacement["fingerprint"] != rejected, "another token"
    seen = await soon(watching)
    assert seen["fingerprint"] == replacement["fingerprint"], "who watches sees what the report brought"
    assert seen["generation"] > first[WORKSPACE]["generation"], seen
    again = await client.report(service, WORKSPACE, rejected, 401)
    assert (again["fingerprint"], again["source"]) == (replacement["fingerprint"], "TOKEN_SOURCE_CACHE"), again


async def soon(watching):
    return await asyncio.wait_for(anext(watching), client.DEADLINE)


async def is_told_why(service):
    expected = {
        "bench/unknown": (grpc.StatusCode.NOT_FOUND, "WORKSPACE_UNKNOWN"),
        "Not A Name": (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
    }
    for workspace, told in expected.items():
        try:
            await client.get(service, workspace)
        except grpc.aio.AioRpcError as error:
            assert (error.code(), client.reason(error)) == told, (error.code(), client.reason(error))
        else:
            raise AssertionError(f"{workspace} has a token")


if __name__ == "__main__":
    main()
