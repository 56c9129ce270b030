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

static inline void remember_datagram(struct datagram_flow *flow) {
    u64 now = bpf_ktime_get_ns();
    u64 *since = datagrams.lookup(flow);
    if (!since || now - *since > DATAGRAM_REFRESH_NS)
        datagrams.update(flow, &now);
}

/* Whether this is the answer to a datagram that the policy let pass the other way. */
static inline bool is_answer(struct datagram_flow *flow) {
    u64 *since = datagrams.lookup(flow);
    return since && bpf_ktime_get_ns() - *since < DATAGRAM_FLOW_NS;
}
