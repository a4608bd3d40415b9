"""A milter of libmilter (pymilter) that does what the message says: script_milter.py FOLDER [connect|silent]

It listens on FOLDER/socket. A sender or recipient STAGE-ACTION@… has ACTION done at STAGE; a subject chooses what is done at the end.
With `connect`, clients are refused at once; with `silent`, some commands are not wanted and some not replied to.
"""

import json
import os
import socket
import sys
import threading
import time

import Milter

FOLDER = sys.argv[1]
SOCKET = os.path.join(FOLDER, "socket")
REFUSE_CLIENTS = "connect" in sys.argv[2:]


@Milter.header_leading_space
class Script(Milter.Base):
    def __init__(self):
        self.connection = None
        self.wish = ("", "")
        self.seen = {}

    def act(self, stage):
        if self.wish[0] != stage:
            return Milter.CONTINUE
        action = self.wish[1]
        if action == "reply":
            self.setreply("554", "5.7.9", f"100%% refused at {stage}", "and that is all")
            return Milter.REJECT
        if action == "later":
            self.setreply("450", "4.2.1", f"busy at {stage}")
            return Milter.TEMPFAIL
        return {
            "reject": Milter.REJECT,
            "tempfail": Milter.TEMPFAIL,
            "discard": Milter.DISCARD,
            "accept": Milter.ACCEPT,
        }[action]

    def wanted(self, address):
        stage, _, action = address.strip("<>").split("@")[0].partition("-")
        if action:
            self.wish = (stage, action)

    def macros(self, *names):
        return {name: self.getsymval(name) for name in names}

    def connect(self, hostname, family, hostaddr):
        if REFUSE_CLIENTS:
            return Milter.REJECT
        self.connection = [hostname, list(hostaddr)[0], self.getsymval("{client_addr}"), self.getsymval("j")]
        return Milter.CONTINUE

    def hello(self, hostname):
        self.helo = hostname
        self.wanted(hostname.split(".")[0] if "-" in hostname else "")
        return self.act("helo")

    def envfrom(self, sender, *parameters):
        self.seen = {"connection": self.connection, "helo": self.helo, "from": [sender, *parameters], "to": []}
        self.seen["macros"] = self.macros("i", "{mail_addr}", "{daemon_name}")
        self.headers = []
        self.octets = 0
        self.subject = ""
        self.wanted(sender)
        return self.act("mail")

    def envrcpt(self, recipient, *parameters):
        self.seen["to"].append([recipient, self.getsymval("{rcpt_addr}")])
        kept = self.wish
        self.wanted(recipient)
        said = self.act("rcpt")
        self.wish = kept
        return said

    def data(self):
        return self.act("data")

    def header(self, name, value):
        self.headers.append([name, value])
        if name == "Subject":
            self.subject = value.strip()
        return self.act("header")

    def eoh(self):
        return self.act("eoh")

    def body(self, chunk):
        self.octets += len(chunk)
        if self.subject == "hang":
            open(os.path.join(FOLDER, "hangs"), "w").close()
            time.sleep(600)
        if self.subject == "enough":
            return Milter.SKIP
        return self.act("body")

    def eom(self):
        if self.subject == "fields":
            self.chgheader("X-Twice", 2, " changed")
            self.chgheader("X-Gone", 1, "")
            self.chgheader("X-Gone", 1, " the second is the first now")
            self.addheader("X-End", " one\n\ttwo")
            self.addheader("X-Top", " first", 0)
            self.addheader("X-Top", " second", 1)
            self.addheader("X-Between", " in", 4)
            self.chgheader("X-New", 1, " new")
        elif self.subject == "envelope":
            self.addrcpt("<carol@example.com>")
            self.addrcpt("<dan@example.com>", "NOTIFY=NEVER")
            self.delrcpt("<bob@example.com>")
            self.chgfrom("<other@example.org>")
        elif self.subject == "body":
            self.replacebody(b"a new\r\n")
            self.replacebody(b".body\nwithout CR\n")
            self.addheader("X-New-Body", " yes")
        elif self.subject == "large":
            self.replacebody(b"0123456789abcde\n" * (3 << 16))
        elif self.subject == "hold":
            self.quarantine("the milter wants it held")
        elif self.subject == "work":
            for _ in range(5):
                time.sleep(2)
                self.progress()
        elif self.subject == "sleep":
            time.sleep(600)
        elif self.subject in ("seen", "enough"):
            self.seen["headers"] = self.headers
            self.seen["octets"] = self.octets
            self.addheader("X-Seen", " " + json.dumps(self.seen))
        return self.act("eom")


class Silent(Script):
    helo = ""

    @Milter.nocallback
    def hello(self, hostname):
        return Milter.CONTINUE

    @Milter.noreply
    def envfrom(self, sender, *parameters):
        return super().envfrom(sender, *parameters)

    @Milter.noreply
    def header(self, name, value):
        return super().header(name, value)

    @Milter.noreply
    def eoh(self):
        return super().eoh()

    @Milter.noreply
    def body(self, chunk):
        return super().body(chunk)


def tell_when_ready():
    while True:
        probe = socket.socket(socket.AF_UNIX)
        try:
            probe.connect(SOCKET)
        except OSError:
            time.sleep(0.02)
            continue
        finally:
            probe.close()
        print("listening on", SOCKET, flush=True)
        return


Milter.factory = Silent if "silent" in sys.argv[2:] else Script
Milter.set_flags(
    Milter.ADDHDRS
    + Milter.CHGHDRS
    + Milter.CHGBODY
    + Milter.ADDRCPT
    + Milter.ADDRCPT_PAR
    + Milter.DELRCPT
    + Milter.CHGFROM
    + Milter.QUARANTINE
)
threading.Thread(target=tell_when_ready, daemon=True).start()
Milter.runmilter("script", "unix:" + SOCKET, 600)
