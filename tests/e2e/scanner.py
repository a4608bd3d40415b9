"""An MTA Hooks scanner of a few lines, which knows nothing of OPES: does what the subject says, and refuses one recipient."""
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def decide(request):
    if request["context"]["stage"] == "RCPT":
        if request["envelope"]["to"][-1]["address"].startswith("nobody@"):
            return {"action": "reject", "response": {"status": 550, "enhancedStatus": "5.1.1", "message": "No such person"}}
        return {"action": "accept"}
    message = request["message"]
    subject = dict(message["headers"])["Subject"]
    if subject == "reject":
        return {"action": "reject", "response": {"status": 554, "enhancedStatus": "5.6.0", "message": "Not this"}}
    if subject == "later":
        return {"action": "reject", "response": {"status": 451, "message": "Not now"}}
    if subject == "hold":
        return {"action": "quarantine"}
    if subject == "nonsense":
        return {"action": "accept", "modifications": [{"type": "addHeader", "name": "X-Half", "value": "1"}, {"type": "addFooter"}]}
    if subject == "change":
        return {"action": "accept", "modifications": [
            {"type": "addHeader", "name": "X-Sender", "value": request["envelope"]["from"]["address"]},
            {"type": "changeHeader", "index": 1, "name": "Subject", "value": "changed"},
            {"type": "deleteHeader", "index": 2, "name": "X-Twice"},
            {"type": "replaceContents", "value": message["contents"].upper().replace("\r\n", "\n")},
        ]}
    return {"action": "accept"}


class Hook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.path == "/hook" and self.headers["Authorization"] == "Bearer sesame"
        body = json.dumps(decide(request)).encode() if known else b""
        self.send_response(200 if known else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
