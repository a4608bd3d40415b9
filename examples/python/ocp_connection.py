"""A callout server without an SDK, after docs/ocp-smtp.md, sections in brackets: connections, negotiation, groups and questions [A1 … A3,
A7]. A service is an object with `product`, `wants` and answer(start, parameters) → Outcome; it is called by several threads at once."""
import signal
from concurrent import futures

import grpc
from ocp_transactions import CREDIT, ID_MAX, TRANSACTIONS_MAX, Broken, Transactions, failed, require
from opes.ocp.v1 import callout_pb2 as ocp, callout_pb2_grpc as rpc
from opes.smtp.v1 import profile_pb2 as smtp

PROFILE, GROUPS_MAX, CONNECTIONS_MAX = "https://opes.dev/ns/ocp/smtp/v1", 256, 64


class Connection:
    """One stream. hear() takes one message and gives the messages to send, in order."""

    kinds = {"connection_start", "connection_end", "negotiation_offer", "service_group_created", "service_group_destroyed",
             "ability_query", "ability_answer", "progress_query"}

    def __init__(self, service):
        self.service, self.started, self.agreed, self.over = service, False, False, False
        self.groups, self.last_group = {}, -1
        self.transactions = Transactions(self.groups, service.answer)

    def hear(self, message):
        kind = message.WhichOneof("kind")
        try:
            require(self.started or kind == "connection_start", "the first message is not CS", Broken)
            if kind in self.transactions.kinds:
                return self.transactions.hear(kind, getattr(message, kind))
            if kind in self.kinds:
                return getattr(self, kind)(getattr(message, kind)) or []
            return []  # [A8] Unknown, or of no meaning here: ignored.
        except Broken as broken:
            self.over = True
            return [ocp.Message(connection_end=ocp.ConnectionEnd(result=failed(broken)))]

    def connection_start(self, _):  # [A1] A second one changes nothing.
        self.started = True

    def connection_end(self, _):
        self.over = True

    def negotiation_offer(self, m):  # [A2] Every NO gets its NR before anything else is looked at.
        response = ocp.NegotiationResponse()
        if m.HasField("sg_id"):
            require(m.sg_id in self.groups, "NO for a group that does not exist", Broken)
            response.sg_id = m.sg_id
        for feature in m.features:
            if feature.uri != PROFILE:
                response.unknowns.append(ocp.Feature(uri=feature.uri))
            elif self.agreed or m.HasField("sg_id"):
                response.rejects.append(ocp.Feature(uri=PROFILE))
            else:
                self.agreed = True
                selection = smtp.ProfileSelection(product=self.service.product, initial_credit=CREDIT, command=smtp.Wants(),
                                                  message=self.service.wants, max_transactions=TRANSACTIONS_MAX)
                response.feature.CopyFrom(ocp.Feature(uri=PROFILE, parameters=selection.SerializeToString()))
        return [ocp.Message(negotiation_response=response)]

    def service_group_created(self, m):  # [A3] The rule on whose behalf transactions run.
        require(self.agreed and self.last_group < m.sg_id <= ID_MAX, "SGC before the profile, or its id is not new", Broken)
        require(len(m.services) == 1 and len(self.groups) < GROUPS_MAX, "not one service, or too many groups", Broken)
        self.last_group = m.sg_id
        self.groups[m.sg_id] = smtp.ServiceParameters.FromString(m.services[0].parameters).parameters_json

    def service_group_destroyed(self, m):
        require(self.groups.pop(m.sg_id, None) is not None, "SGD for a group that does not exist", Broken)

    def ability_query(self, m):  # [A7]
        return [ocp.Message(ability_answer=ocp.AbilityAnswer(supported=m.feature.uri == PROFILE))]

    def ability_answer(self, _):
        raise Broken("AA without AQ")

    def progress_query(self, m):
        answer, transaction = ocp.ProgressAnswer(), self.transactions.open.get(m.xid) if m.HasField("xid") else None
        if transaction:
            answer.xid = m.xid
            if transaction.start is not None:
                answer.org_data = transaction.octets
        return [ocp.Message(progress_answer=answer)]


class Callout(rpc.CalloutServicer):
    def __init__(self, service):
        self.service = service

    def Connect(self, frames, context):
        connection = Connection(self.service)
        yield ocp.Frame(messages=[ocp.Message(connection_start=ocp.ConnectionStart())])  # [A1] before anything else, also before CE
        for frame in frames:
            answers = []
            for message in frame.messages:
                answers += connection.hear(message)
                if connection.over:
                    break
            if answers:
                yield ocp.Frame(messages=answers)
            if connection.over:
                return


def serve(service, listen):
    """Serves on HOST:PORT or unix:PATH until SIGTERM or SIGINT."""
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before threads start, so that sigwait() below gets them
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=CONNECTIONS_MAX))  # one thread for each connection
    rpc.add_CalloutServicer_to_server(Callout(service), server)
    port = server.add_insecure_port(listen)
    server.start()
    print("listening on", listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}", flush=True)
    signal.sigwait(ends)
    server.stop(grace=5).wait()
