#!/usr/bin/env python3
"""Headless Chromium opens a page, clicks on its download button and says what it got.

    download.py URL FOLDER

Speaks the DevTools protocol over a pipe (--remote-debugging-pipe): no port, no driver. The click is one of a mouse, not of a script: the
page allows no scripts. Prints one JSON object: the page's text, the file's name, and how the download ended.
"""

import json
import os
import subprocess
import sys
import tempfile

# Seconds for the browser to end.
PATIENCE = 60


class Browser:
    def __init__(self, profile):
        to_browser, self.commands = os.pipe()
        self.answers, from_browser = os.pipe()
        # The browser reads from 3 and writes to 4, whatever numbers the pipes have here.
        shell = f"exec 3<&{to_browser} 4>&{from_browser}; exec chromium \"$@\""
        self.process = subprocess.Popen(
            ["sh", "-c", shell, "sh", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
             f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.reader = os.fdopen(self.answers, "rb")
        self.count = 0
        self.events = []
        self.session = None

    def receive(self):
        message = bytearray()
        while (octet := self.reader.read(1)) != b"\0":
            if not octet:
                raise SystemExit("the browser is gone")
            message += octet
        return json.loads(message)

    def call(self, method, **params):
        self.count += 1
        command = {"id": self.count, "method": method, "params": params}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.commands, json.dumps(command).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, is_wanted):
        seen = 0
        while True:
            for event in self.events[seen:]:
                if is_wanted(event):
                    return event["params"]
            seen = len(self.events)
            self.events.append(self.receive())


def main(url, folder):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            print(json.dumps(download(browser, url, folder)))
        finally:
            browser.process.terminate()
            browser.process.wait(PATIENCE)


def download(browser, url, folder):
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=folder, eventsEnabled=True)
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    browser.call("Page.enable")
    browser.call("Network.enable")
    browser.call("Page.navigate", url=url)
    browser.wait(lambda event: event["method"] == "Page.loadEventFired")
    responses = [event["params"]["response"]["status"] for event in browser.events if event["method"] == "Network.responseReceived"]
    root = browser.call("DOM.getDocument", depth=-1)["root"]
    found = {"text": text(root), "status": responses[0] if responses else 0}
    button = browser.call("DOM.querySelector", nodeId=root["nodeId"], selector="#download")["nodeId"]
    if not button:
        return found
    x1, y1, _, _, x2, y2, *_ = browser.call("DOM.getBoxModel", nodeId=button)["model"]["content"]
    at = {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "button": "left", "clickCount": 1}
    for kind in ["mousePressed", "mouseReleased"]:
        browser.call("Input.dispatchMouseEvent", type=kind, **at)
    begun = browser.wait(lambda event: event["method"] == "Browser.downloadWillBegin")
    ended = browser.wait(lambda event: event["method"] == "Browser.downloadProgress" and event["params"]["state"] != "inProgress")
    return found | {"name": begun["suggestedFilename"], "state": ended["state"]}


def text(node):
    if node["nodeName"] in ("STYLE", "HEAD"):
        return ""
    return node.get("nodeValue", "") + " ".join(text(child) for child in node.get("children", []))


if __name__ == "__main__":
    main(*sys.argv[1:])
