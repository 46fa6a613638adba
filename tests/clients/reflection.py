"""Calls the service as grpcurl does: everything it knows of the contract comes from reflection.

Usage: reflection.py HOST:PORT TOKEN DATABASE. Creates a source and an invocation, watches that to its
end and prints what it saw as one JSON object. No generated code is used.
"""

import json
import sys

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Client:
    """Makes calls from descriptors."""

    def __init__(self, channel, token):
        self.channel = channel
        self.metadata = [("x-chroma-token", token)]
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = DescriptorPool(self.database)

    def services(self):
        return sorted(self.database.get_services())

    def methods(self, service):
        descriptor = self.pool.FindServiceByName(service)
        return {
            method.name: {
                "request": method.input_type.full_name,
                "response": method.output_type.full_name,
                "server_streaming": method.server_streaming,
            }
            for method in descriptor.methods
        }

    def call(self, service, name, request):
        """Returns the messages of the answer as dictionaries with the names of the contract."""
        method = self.pool.FindServiceByName(service).FindMethodByName(name)
        request_class = message_factory.GetMessageClass(method.input_type)
        response_class = message_factory.GetMessageClass(method.output_type)
        make = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        stub = make(
            f"/{service}/{name}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )
        message = json_format.ParseDict(request, request_class(), descriptor_pool=self.pool)
        answer = stub(message, metadata=self.metadata, timeout=120)
        messages = answer if method.server_streaming else [answer]
        return [
            json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=self.pool)
            for message in messages
        ]


def main():
    address, token, database = sys.argv[1:]
    sources, invocations = "chromasync.v1.SourceService", "chromasync.v1.InvocationService"
    with grpc.insecure_channel(address) as channel:
        client = Client(channel, token)
        [source] = client.call(
            sources, "CreateSource", {"database_name": database, "github": {"repository": "owner/name"}}
        )
        [invocation] = client.call(
            invocations,
            "CreateInvocation",
            {"source_id": source["id"], "target_collection_name": "target", "github": {"branch": "main"}},
        )
        messages = client.call(invocations, "WatchInvocation", {"invocation_id": invocation["id"]})
        try:
            client.call(sources, "GetSource", {"source_id": "not-a-uuid"})
            refused = None
        except grpc.RpcError as error:
            refused = {"code": error.code().name, "message": error.details()}
        print(
            json.dumps(
                {
                    "services": client.services(),
                    "methods": {name: client.methods(name) for name in (sources, invocations)},
                    "source": source,
                    "invocation": invocation,
                    "messages": messages,
                    "refused": refused,
                }
            )
        )


main()
