"""The rule language: values and functions, no I/O, no clock.

`load` reads texts into rules, `compile` resolves rules, workloads and the node into one immutable revision,
whose `DirectionPolicy.decide` answers for connections and `HttpRules.judge` for requests.
"""

from policy.candidates import Candidate
from policy.comparison import Change, Difference, Verdict, diff
from policy.compilation import ALLOW_LOCALHOST, EndpointPolicy, NodePolicy, compile
from policy.directions import DirectionPolicy, L4Entry, NotJudged
from policy.errors import AddressConflict, CompileError, PolicyError, Problem, UnknownEndpoint
from policy.explanation import Explanation, Party, Side, UnknownParty, explain, party
from policy.header_matches import Edited, secrets_named
from policy.http_fields import MAX_HEADER_VALUE, value_fault
from policy.httprules import AuditedRules, HttpRules
from policy.identities import Identity, Node, Prefix, Workload
from policy.learning import Evidence, Learned, learn
from policy.lint import lint_world
from policy.loading import Loaded, Rules, load
from policy.model import TCP, UDP, Policy
from policy.reaching import Reach, Requests, reach
from policy.records import Record, Records
from policy.records import read as read_records
from policy.schema import rules_schema
from policy.verdicts import Action, HeaderEdit, Judgement, L4Verdict, Request

__all__ = [
    "ALLOW_LOCALHOST",
    "MAX_HEADER_VALUE",
    "TCP",
    "UDP",
    "Action",
    "AddressConflict",
    "AuditedRules",
    "Candidate",
    "Change",
    "CompileError",
    "Difference",
    "DirectionPolicy",
    "Edited",
    "EndpointPolicy",
    "Evidence",
    "Explanation",
    "HeaderEdit",
    "HttpRules",
    "Identity",
    "Judgement",
    "L4Entry",
    "L4Verdict",
    "Learned",
    "Loaded",
    "Node",
    "NodePolicy",
    "NotJudged",
    "Party",
    "Policy",
    "PolicyError",
    "Prefix",
    "Problem",
    "Reach",
    "Record",
    "Records",
    "Request",
    "Requests",
    "Rules",
    "Side",
    "UnknownEndpoint",
    "UnknownParty",
    "Verdict",
    "Workload",
    "compile",
    "diff",
    "explain",
    "learn",
    "lint_world",
    "load",
    "party",
    "reach",
    "read_records",
    "rules_schema",
    "secrets_named",
    "value_fault",
]
