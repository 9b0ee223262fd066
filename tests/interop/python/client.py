"""A service of Python: finds others, calls them, and is called. client.py NAME PORT EUREKA_URL"""

import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import py_eureka_client.eureka_client as eureka_client

name, port, eureka = sys.argv[1:]


def instances(service):
    application = eureka_client.get_client().applications.get_application(service.upper())
    return [f"http://{up.hostName}:{up.port.port}" for up in application.up_instances]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        _, what, *service = self.path.split("/")
        status, body = 200, f"hello from {name}"
        try:
            if what == "instances":
                body = json.dumps(instances(*service))
            elif what == "call":
                body = eureka_client.do_service(*service, "/hello")
        except Exception as error:
            status, body = 503, repr(error)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())


server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
eureka_client.init(
    eureka_server=eureka,
    app_name=name,
    instance_id=f"{name}:{port}",
    instance_host="127.0.0.1",
    instance_ip="127.0.0.1",
    instance_port=int(port),
    renewal_interval_in_secs=1,
    duration_in_secs=10,
    should_discover=True,
)
stopped.wait()
eureka_client.stop()
