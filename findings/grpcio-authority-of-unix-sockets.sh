#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# grpcio (gRPC's C core) sends the percent-encoded path of a unix socket as `:authority`; other clients send `localhost`.
#
# RFC 3986 allows percent-encoding in a host, but a host with an encoded slash is refused by several HTTP/2 servers
# (the h2 crate among them: RST_STREAM with PROTOCOL_ERROR), so that a service that works with grpc-go's clients on a
# unix socket works with no client in Python, C++, Ruby, PHP.
#
# Expected below: one request whose :authority is the socket's path with %2F for each slash after the first.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" -q install grpcio==1.76.0 h2==4.3.0
cat > "$dir/see.py" <<'PY'
import socket, sys, threading
import grpc, h2.config, h2.connection, h2.events

path = sys.argv[1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
seen = []

def serve():
    stream, _ = listener.accept()
    stream.settimeout(10)
    settings = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_inbound_headers=False)
    http = h2.connection.H2Connection(settings)
    http.initiate_connection()
    stream.sendall(http.data_to_send())
    while not seen:
        for event in http.receive_data(stream.recv(65536)):
            if isinstance(event, h2.events.RequestReceived):
                seen.append(dict(event.headers)[":authority"])
        stream.sendall(http.data_to_send())

thread = threading.Thread(target=serve, daemon=True)
thread.start()
channel = grpc.insecure_channel("unix:" + path)
call = channel.unary_unary("/x.Y/Z", request_serializer=bytes, response_deserializer=bytes)
pending = call.future(b"", timeout=10)
thread.join(15)
print(grpc.__version__, seen)
encoded = path.replace("/", "%2F")
good = seen and seen[0] in (encoded, encoded[3:], path, path[1:])
sys.exit(0 if good and "%2F" in seen[0] else 1)
PY
"$dir/venv/bin/python" "$dir/see.py" "$dir/x.sock" || { echo "changed: :authority is another" >&2; exit 1; }
