"""Transactions of one OCP connection as a server sees them: docs/ocp-smtp.md A3 … A6, sections in brackets. Every message of P is
checked; what breaks a rule ends its own transaction with TE 400 and harms nobody else."""
from dataclasses import dataclass

from opes.ocp.v1 import callout_pb2 as ocp
from opes.smtp.v1 import profile_pb2 as smtp

ID_MAX, CREDIT, PAYLOAD_MAX, TRANSACTIONS_MAX = 2**31 - 1, 64 * 1024, 1 << 20, 64


class Refused(Exception):
    """A rule of one transaction is broken: TE 400, its neighbours go on [A8]."""


class Broken(Exception):
    """A rule of the connection is broken: CE 400 [A8]."""


def require(holds, what, failure=Refused):
    if not holds:
        raise failure(what)


def failed(reason):
    return ocp.Result(code=400, reason=str(reason))


@dataclass
class Transaction:  # [A3] What is known of one original flow.
    parameters: str
    start: smtp.MessageStart = None
    am_el: int = None
    octets: int = 0
    part: int = 0


class Transactions:
    """hear() takes one message and gives the messages to send. `groups`: sg_id → parameters; `answer`: what the service says."""

    # What else may come for a transaction means nothing to a server without an adapted flow, and is ignored [A8].
    kinds = {"transaction_start", "transaction_end", "application_message_start", "application_message_end", "data_use_mine",
             "want_data_paused"}

    def __init__(self, groups, answer):
        self.groups, self.answer, self.open = groups, answer, {}
        self.last_xid = self.last_stray = -1

    def hear(self, kind, m):
        require(m.xid <= ID_MAX, "an xid above 2147483647", Broken)
        try:
            if kind == "transaction_start":
                return self.transaction_start(m)
            if m.xid in self.open:
                return getattr(self, kind)(m, self.open[m.xid]) or []
            if m.xid <= self.last_xid or m.xid <= self.last_stray or kind == "transaction_end":
                return []  # [A3] It crossed our TE. Normal.
            self.last_stray = m.xid
            raise Refused("this transaction was never started")
        except Refused as refused:
            self.open.pop(m.xid, None)
            return [ocp.Message(transaction_end=ocp.TransactionEnd(xid=m.xid, result=failed(refused)))]

    def transaction_start(self, m):
        require(m.xid > self.last_xid, "this xid is not new")
        self.last_xid = m.xid
        require(m.sg_id in self.groups, "no such group")
        require(len(self.open) < TRANSACTIONS_MAX, "too many transactions at once")
        self.open[m.xid] = Transaction(self.groups[m.sg_id])
        return []

    def transaction_end(self, m, _):
        del self.open[m.xid]

    def application_message_start(self, m, t):
        require(t.start is None, "a second AMS")
        t.start, t.am_el = smtp.MessageStart.FromString(m.profile), m.am_el if m.HasField("am_el") else None

    def data_use_mine(self, m, t):  # [A4], [A5] Counted and checked, not kept: this service needs no octet of it.
        require(t.start is not None and m.HasField("payload"), "DUM before AMS, or without payload")
        require(m.offset == t.octets, f"DUM at {m.offset}, but {t.octets} is the next octet")
        require(not m.payload or m.part >= t.part, "parts in the wrong order")
        t.octets, t.part = t.octets + len(m.payload), max(t.part, m.part)
        require(t.octets <= CREDIT and len(m.payload) <= PAYLOAD_MAX, "payload beyond the credit")

    def want_data_paused(self, m, _):  # [A5] No data was sent, so any offset but 0 is still ahead; and none will be.
        return [ocp.Message(paused_my_data=ocp.PausedMyData(xid=m.xid))] if m.offset == 0 else []

    def application_message_end(self, m, t):
        require(t.start is not None, "AME before AMS")
        require(not m.HasField("result") or m.result.code in (200, 206), "the original failed")
        partial = m.HasField("result") and m.result.code == 206
        require(partial or t.am_el in (None, t.octets), "AME 200 at another size than AM-EL")
        outcome = self.answer(t.start, t.parameters)
        del self.open[m.xid]
        # [A6] AME 206 with J = 0 and no data: "use your original", with the edits of the outcome on top.
        end = ocp.ApplicationMessageEnd(xid=m.xid, result=ocp.Result(code=206), original_offset=0, profile=outcome.SerializeToString())
        return [ocp.Message(application_message_start=ocp.ApplicationMessageStart(xid=m.xid)),
                ocp.Message(application_message_end=end), ocp.Message(transaction_end=ocp.TransactionEnd(xid=m.xid))]
