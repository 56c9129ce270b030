/* Datagrams have no connection: an allowed one lets its answers pass for a while, as connection tracking would. */

/* Linux' nf_conntrack_udp_timeout_stream default is 120 s; a resolver's answer comes within 30. */
#define DATAGRAM_FLOW_NS (120ULL * 1000000000ULL)
#define DATAGRAM_REFRESH_NS (10ULL * 1000000000ULL) /* an entry this young is not written again */

static inline struct datagram_flow datagram_flow(u32 endpoint, const struct address *remote, u16 remote_port,
                                                 u16 local_port) {
    struct datagram_flow flow = {};
    flow.endpoint = endpoint;
    flow.remote = *remote;
    flow.remote_port = remote_port;
    flow.local_port = local_port;
    return flow;
}

static inline void remember_datagram(struct datagram_flow *flow, u32 direction, u32 audited) {
    struct datagram_memory now = {.since = bpf_ktime_get_ns(), .direction = direction, .audited = audited};
    struct datagram_memory *known = datagrams.lookup(flow);
    if (!known || known->direction != direction || known->audited != audited ||
        now.since - known->since > DATAGRAM_REFRESH_NS)
        datagrams.update(flow, &now);
}

static inline bool is_remembered(struct datagram_flow *flow, u32 direction, u32 audited) {
    struct datagram_memory *known = datagrams.lookup(flow);
    return known && known->direction == direction && known->audited >= audited &&
           bpf_ktime_get_ns() - known->since < DATAGRAM_FLOW_NS;
}

/* Whether this is, going in `direction`, the answer to a datagram that the policy let pass the other way. */
static inline bool is_answer(struct datagram_flow *flow, u32 direction) {
    return is_remembered(flow, direction == INGRESS ? EGRESS : INGRESS, 0);
}

/*
 * A datagram that passes only as a policy is tried: each is counted, the first of a flow is told. Its answers pass
 * like anybody's, as they would without that policy.
 */
static inline void audit_datagram(struct datagram_flow *flow, u32 direction, u32 identity, u16 port) {
    if (!is_remembered(flow, direction, 1))
        tell_audited(flow->endpoint, direction, identity, PROTOCOL_UDP, port, &flow->remote);
    remember_datagram(flow, direction, 1);
}
