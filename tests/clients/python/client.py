"""A client of token-broker in Python, generated from proto/ and written as a service would write it.

    tests/clients/python/run.sh tests/clients/python/client.py 127.0.0.1:7700 get demo/emnify
    … watch demo/emnify demo/emnify-weekly
    … report demo/emnify FINGERPRINT 401

Prints what it is told as JSON, one object per line. The token itself is left out.
"""

import argparse
import asyncio
import json
import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tokenbroker.v1 import token_service_pb2 as pb
from tokenbroker.v1 import token_service_pb2_grpc

DEADLINE = 10.0  # seconds


async def get(service, workspace):
    answer = await service.GetToken(pb.GetTokenRequest(workspace=workspace), timeout=DEADLINE)
    return {**described(answer.token), **circumstances(answer)}


async def watch(service, *workspaces):
    """The state of each Workspace, and every change of it. Each message is complete."""
    async for state in service.WatchTokens(pb.WatchTokensRequest(workspaces=workspaces)):
        if state.WhichOneof("state") == "token":
            yield described(state.token)
        else:
            yield {"workspace": state.workspace, "withdrawn": state.withdrawn.reason}


async def report(service, workspace, fingerprint, upstream_status):
    """The replacement for a token that the upstream rejected. Asks again when the broker says so, up to the deadline."""
    request = pb.ReportRejectedTokenRequest(
        workspace=workspace, fingerprint=fingerprint, upstream_status=upstream_status
    )
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                answer = await service.ReportRejectedToken(request, timeout=DEADLINE)
                return {**described(answer.token), **circumstances(answer)}
            except grpc.aio.AioRpcError as error:
                if not (wait := detail(error, error_details_pb2.RetryInfo())):
                    raise
                await asyncio.sleep(wait.retry_delay.ToTimedelta().total_seconds())


def circumstances(answer):
    return {
        "valid_for_seconds": answer.valid_for.ToTimedelta().total_seconds(),
        "source": pb.TokenSource.Name(answer.source),
    }


def described(token):
    return {
        "workspace": token.workspace,
        "header_name": token.header_name,
        "token_type": token.token_type,
        "expires_at": token.expires_at.ToJsonString(),
        "generation": token.generation,
        "fingerprint": token.fingerprint,
    }


def reason(error):
    """The machine-readable reason of a failed call, or None."""
    info = detail(error, error_details_pb2.ErrorInfo())
    return info and info.reason


def detail(error, kind):
    """What a failed call says beside its code, or None. `kind` is an empty message of google.rpc."""
    status = rpc_status.from_call(error)
    return next((kind for detail in status.details if detail.Unpack(kind)), None) if status else None


async def run(service, options):
    match options.command:
        case "get":
            print(json.dumps(await get(service, options.workspace)))
        case "watch":
            async for state in watch(service, *options.workspaces):
                print(json.dumps(state), flush=True)
        case "report":
            told = await report(service, options.workspace, options.fingerprint, options.upstream_status)
            print(json.dumps(told))


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="such as 127.0.0.1:7700")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("get").add_argument("workspace")
    commands.add_parser("watch").add_argument("workspaces", nargs="+")
    reporting = commands.add_parser("report")
    reporting.add_argument("workspace")
    reporting.add_argument("fingerprint")
    reporting.add_argument("upstream_status", type=int)
    options = parser.parse_args()
    async with grpc.aio.insecure_channel(options.address) as channel:
        service = token_service_pb2_grpc.TokenServiceStub(channel)
        try:
            await run(service, options)
        except grpc.aio.AioRpcError as error:
            sys.exit(f"{error.code().name} {reason(error)}: {error.details()}")


if __name__ == "__main__":
    asyncio.run(main())
