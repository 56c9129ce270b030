/* Datagrams have no connection: an allowed one lets its answers pass for a while, as connection tracking would. */

/* Linux' nf_conntrack_udp_timeout_stream default is 120 s; a resolver's answer comes within 30. */
#define DATAGRAM_FLOW_NS (120ULL * 1000000000ULL)
#define DATAGRAM_REFRESH_NS (10ULL * 1000000000ULL) /* an entry this young is not written again */

static inline void expect_answer(u32 endpoint, const struct address *remote, u16 remote_port, u16 local_port) {
    struct datagram_flow flow = {};
    flow.endpoint = endpoint;
    flow.remote = *remote;
    flow.remote_port = remote_port;
    flow.local_port = local_port;
    u64 now = bpf_ktime_get_ns();
    u64 *since = datagrams.lookup(&flow);
    if (!since || now - *since > DATAGRAM_REFRESH_NS)
        datagrams.update(&flow, &now);
}

/* A socket bound to a device cannot reach lo; the redirect stays in the namespace, so lo is where it must go. */
static inline void stay_in_namespace(struct bpf_sock_addr *ctx, struct bpf_sock *sk) {
    if (!sk->bound_dev_if)
        return;
    int lo = 1; /* LOOPBACK_IFINDEX, include/net/net_namespace.h: the same in every namespace */
    bpf_setsockopt(ctx, 1 /* SOL_SOCKET */, 62 /* SO_BINDTOIFINDEX */, &lo, sizeof(lo));
}
