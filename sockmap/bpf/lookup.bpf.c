/*
 * sk_lookup: what arrives at an enforced endpoint's namespace, before a listener is chosen.
 *
 * One copy of the program is attached to each namespace, with the endpoint's number put in place of
 * ENDPOINT_HERE: the program cannot ask which namespace it runs in, and an address is no proof of one.
 */

#define ENDPOINT_HERE "0x6b70726f78790001" /* replaced at load; sockmap/lookup.py knows the same pattern */

static inline int deny(struct bpf_sk_lookup *ctx, u32 endpoint, u32 identity, const struct address *peer) {
    count_verdict(endpoint, INGRESS, DENY);
    tell_denied(endpoint, INGRESS, identity, ctx->protocol, ctx->local_port, peer);
    return SK_DROP; /* Safe: no socket has seen the packet; a TCP client is reset at once. */
}

static inline int to_proxy(struct bpf_sk_lookup *ctx, u32 endpoint) {
    u32 index = 2 * endpoint + (ctx->family == FAMILY_IPV6 ? 1 : 0);
    struct bpf_sock *listener = (struct bpf_sock *)ingress.lookup(&index);
    if (!listener) {
        count(COUNT_LISTENER_MISSING);
        return SK_DROP; /* Safe: it needs judging and nobody is there to judge. */
    }
    long failed = bpf_sk_assign(ctx, listener, 0);
    bpf_sk_release(listener);
    if (failed) {
        count(COUNT_LISTENER_MISSING);
        return SK_DROP; /* Safe: as above. */
    }
    /* Safe: only kproxy holds that listener, and it judges before it forwards. */
    count(COUNT_REDIRECTED);
    count_verdict(endpoint, INGRESS, REDIRECT);
    return SK_PASS;
}

/* 0 where nobody announced it, else what was announced. */
static inline u32 announced_as(struct bpf_sk_lookup *ctx, const struct address *remote,
                               const struct address *local) {
    struct tuple t = {};
    t.source = *remote;
    t.destination = *local;
    t.source_port = bpf_ntohs(ctx->remote_port);
    t.destination_port = ctx->local_port;
    struct announcement *a = announced.lookup(&t);
    return a ? a->kind : 0;
}

int kproxy_lookup(struct bpf_sk_lookup *ctx) {
    u64 constant;
    asm volatile("%0 = " ENDPOINT_HERE " ll" : "=r"(constant));
    u32 endpoint = constant;
    struct address local, remote;
    if (ctx->family == FAMILY_IPV4) {
        set_ipv4(&local, READ(ctx, local_ip4));
        set_ipv4(&remote, READ(ctx, remote_ip4));
    } else {
        local.word[0] = READ(ctx, local_ip6[0]);
        local.word[1] = READ(ctx, local_ip6[1]);
        local.word[2] = READ(ctx, local_ip6[2]);
        local.word[3] = READ(ctx, local_ip6[3]);
        remote.word[0] = READ(ctx, remote_ip6[0]);
        remote.word[1] = READ(ctx, remote_ip6[1]);
        remote.word[2] = READ(ctx, remote_ip6[2]);
        remote.word[3] = READ(ctx, remote_ip6[3]);
    }
    /*
     * Safe: the namespace talks to itself. Nobody outside can: the kernel drops 127/8 and ::1 that arrive on a
     * device, and the answers to a forged own address never leave the namespace, so no handshake ends.
     */
    if (is_loopback(&local) || same_address(&local, &remote))
        return SK_PASS;

    u8 protocol = ctx->protocol;
    u32 generation = generation_in_force();
    u32 identity = identity_of(generation, &remote);
    if (protocol == PROTOCOL_TCP) {
        u32 kind = announced_as(ctx, &remote, &local);
        /* Safe: this very flow has been judged for this endpoint too, and the entry dies with its socket. */
        if (kind == ANNOUNCED_UPSTREAM)
            return SK_PASS;
        u32 zero = 0;
        struct control *c = control.lookup(&zero);
        if (kind == ANNOUNCED_HOST && c)
            identity = c->host_identity;
    }
    u16 port = ctx->local_port;
    u32 action = decide(generation, endpoint, INGRESS, identity, protocol, port);
    if (protocol == PROTOCOL_TCP) {
        if (action == REDIRECT)
            return to_proxy(ctx, endpoint);
        if (action == DENY)
            return deny(ctx, endpoint, identity, &remote);
        count_verdict(endpoint, INGRESS, PASS);
        return SK_PASS; /* Safe: L3/L4 policy allows it and asks for no more. */
    }
    u16 remote_port = bpf_ntohs(ctx->remote_port);
    if (action == PASS) {
        expect_answer(endpoint, &remote, remote_port, port);
        count_verdict(endpoint, INGRESS, PASS);
        return SK_PASS; /* Safe: as above. */
    }
    struct datagram_flow flow = {};
    flow.endpoint = endpoint;
    flow.remote = remote;
    flow.remote_port = remote_port;
    flow.local_port = port;
    u64 *since = datagrams.lookup(&flow);
    if (since && bpf_ktime_get_ns() - *since < DATAGRAM_FLOW_NS)
        return SK_PASS; /* Safe: the answer to a datagram that egress policy let out. */
    return deny(ctx, endpoint, identity, &remote);
}
