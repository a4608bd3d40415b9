"""Scores the subject of each message, adds the score as a header field, and refuses a word that the rule names as its parameters:
{word: casino}. What makes it a callout server is in ocp_connection.py and ocp_transactions.py."""
import argparse
import json
from email.header import decode_header, make_header

from ocp_connection import serve
from opes.smtp.v1 import profile_pb2 as smtp


class SubjectScore:
    product = "subject-score/0.1"
    # [B2] What is not asked for is not sent: one header field, and no octet of the message.
    wants = smtp.Wants(context=[smtp.CONTEXT_FIELD_HEADERS], headers=["Subject"], content=smtp.CONTENT_WANT_NONE)

    def answer(self, start, parameters):  # [B4] An empty Outcome is "accept".
        outcome = smtp.Outcome()
        if start.point < smtp.POINT_CONTENT:
            return outcome
        raw = b" ".join(field.value for field in start.context.headers).decode("utf-8", "replace")
        try:
            subject = str(make_header(decode_header(raw))).strip()
        except (ValueError, LookupError):  # a broken encoded word: take it as it stands
            subject = raw.strip()
        word = json.loads(parameters or "{}").get("word")
        if word and word.lower() in subject.lower():
            reply = smtp.Reply(code=550, enhanced="5.7.1", lines=["The subject of this message is not welcome here"])
            outcome.verdict.CopyFrom(smtp.Verdict(action=smtp.Verdict.ACTION_REJECT, reply=reply))
            return outcome
        score = subject.count("!") + (5 if subject.isupper() else 0)
        outcome.annotations["subject.score"] = str(score)
        outcome.edits.add().header_add.CopyFrom(smtp.HeaderAdd(name="X-Subject-Score", value=str(score).encode()))
        return outcome


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--listen", default="127.0.0.1:4037", help="HOST:PORT or unix:PATH")
    serve(SubjectScore(), arguments.parse_args().listen)
