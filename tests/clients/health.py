"""Asks the standard health service of HOST:PORT, without a token.

Usage: health.py HOST:PORT SERVICE... Prints the status of each service as one JSON object; the empty name
asks for the server as a whole. A name that is not known is shown with its gRPC code.
"""

import json
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def status(stub, service):
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30)
    except grpc.RpcError as error:
        return error.code().name
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def main():
    address, *services = sys.argv[1:]
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        print(json.dumps({service: status(stub, service) for service in services}))


main()
