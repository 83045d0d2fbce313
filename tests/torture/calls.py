# SPDX-License-Identifier: Apache-2.0
"""gRPC as a caller sees it, directly and through the gateway: the same outcomes of every kind of call."""

import time
from concurrent import futures

import grpc

LARGE_BYTES = 10 << 20
OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]
SERVICE = "/torture.Echo/"


def same(value):
    """Messages are bytes as they are."""
    return value


class Echo(grpc.GenericRpcHandler):
    """Every kind of method."""

    def service(self, handler_call_details):
        """The method of this name; none if there is none."""
        method = handler_call_details.method.removeprefix(SERVICE)
        kinds = {
            "Echo": grpc.unary_unary_rpc_method_handler(_echo, same, same),
            "Stream": grpc.unary_stream_rpc_method_handler(lambda _r, _c: (b"%d" % n for n in range(500)), same, same),
            "Bidi": grpc.stream_stream_rpc_method_handler(lambda messages, _c: iter(messages), same, same),
            "Fail": grpc.unary_unary_rpc_method_handler(_fail, same, same),
            "Slow": grpc.unary_unary_rpc_method_handler(_slow, same, same),
        }
        return kinds.get(method)


def _echo(message, context):
    context.set_trailing_metadata((("x-trailer", "1"),))
    return message


def _fail(_message, context):
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota é")


def _slow(message, _context):
    time.sleep(2)
    return message


def serve():
    """Starts a server at a free port; the server and the port."""
    server = grpc.server(futures.ThreadPoolExecutor(16), options=OPTIONS)
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def outcomes(port):
    """What each kind of call comes to at a port."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        unary = lambda name: channel.unary_unary(SERVICE + name, same, same)  # noqa: E731
        calls = {
            "echo": lambda: unary("Echo")(b"hi") == b"hi",
            "trailers": lambda: ("x-trailer", "1")
            in [tuple(pair) for pair in unary("Echo").with_call(b"a")[1].trailing_metadata()],
            "large": lambda: len(unary("Echo")(b"x" * LARGE_BYTES)) == LARGE_BYTES,
            "stream": lambda: len(list(channel.unary_stream(SERVICE + "Stream", same, same)(b""))) == 500,
            "both ways": lambda: len(list(channel.stream_stream(SERVICE + "Bidi", same, same)(iter([b"x"] * 200))))
            == 200,
            "status": lambda: unary("Fail")(b""),
            "deadline": lambda: unary("Slow")(b"", timeout=0.5),
            "unknown": lambda: unary("Nope")(b""),
        }
        return {name: _outcome(call) for name, call in calls.items()}


def _outcome(call):
    try:
        return str(call())
    except grpc.RpcError as error:
        return f"{error.code().name} {error.details() if error.code().name == 'RESOURCE_EXHAUSTED' else ''}".strip()
