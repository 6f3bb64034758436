"""Reads exports of spans, one a line in base64, with OpenTelemetry's own classes, and writes each as a line of JSON."""

import base64
import json
import sys

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def unknown_fields(message):
    """Whether bytes are left that the message has no field for: those would be numbered wrong."""
    # What is not known is kept, so that a copy of the known fields alone is shorter.
    known = ExportTraceServiceRequest()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return known.ByteSize() != message.ByteSize()


for line in sys.stdin:
    export = ExportTraceServiceRequest()
    export.ParseFromString(base64.b64decode(line))
    assert not unknown_fields(export)
    print(json.dumps(MessageToDict(export)))
