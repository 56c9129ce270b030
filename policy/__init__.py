"""The rule language: values and functions, no I/O, no clock.

`load` reads texts into rules, `compile` resolves rules, workloads and the node into one immutable revision,
whose `DirectionPolicy.decide` answers for connections and `HttpRules.judge` for requests.
"""

from policy.compilation import ALLOW_LOCALHOST, EndpointPolicy, NodePolicy, compile
from policy.directions import DirectionPolicy, L4Entry, NotJudged
from policy.errors import AddressConflict, CompileError, PolicyError, Problem, UnknownEndpoint
from policy.httprules import AuditedRules, HttpRules
from policy.identities import Identity, Node, Prefix, Workload
from policy.load import Loaded, Rules, load
from policy.model import TCP, UDP, Policy
from policy.verdicts import Action, HeaderEdit, Judgement, L4Verdict, Request

__all__ = [
    "ALLOW_LOCALHOST",
    "TCP",
    "UDP",
    "Action",
    "AddressConflict",
    "AuditedRules",
    "CompileError",
    "DirectionPolicy",
    "EndpointPolicy",
    "HeaderEdit",
    "HttpRules",
    "Identity",
    "Judgement",
    "L4Entry",
    "L4Verdict",
    "Loaded",
    "Node",
    "NodePolicy",
    "NotJudged",
    "Policy",
    "PolicyError",
    "Prefix",
    "Problem",
    "Request",
    "Rules",
    "UnknownEndpoint",
    "Workload",
    "compile",
    "load",
]
