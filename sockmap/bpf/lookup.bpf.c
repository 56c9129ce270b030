/*
 * sk_lookup: what arrives at an enforced endpoint's namespace, before a listener is chosen.
 *
 * One copy of the program is attached to each namespace, with the endpoint's number put in place of
 * ENDPOINT_HERE: the program cannot ask which namespace it runs in, and an address is no proof of one.
 *
 * It is asked where no established or connected socket takes a packet: for a SYN, but also for a stray segment of a
 * connection that is gone. So what it counts are packets that looked for a listener, near to connections.
 */

#define ENDPOINT_HERE "0x6b70726f78790001" /* replaced at load; sockmap/program.py knows the same pattern */

static inline int deny(struct bpf_sk_lookup *ctx, u32 endpoint, u32 identity, const struct address *peer) {
    count_verdict(endpoint, INGRESS, DENY);
    tell_denied(endpoint, INGRESS, identity, ctx->protocol, ctx->local_port, peer);
    return SK_DROP; /* Safe: no socket has seen the packet; a TCP client is reset at once. */
}

/* Hand the packet to a listener of kproxy's; false: there is none. */
static inline bool steer(struct bpf_sk_lookup *ctx, u32 endpoint, u32 direction) {
    u32 index = 4 * endpoint + 2 * direction + (ctx->family == FAMILY_IPV6 ? 1 : 0);
    struct bpf_sock *listener = (struct bpf_sock *)steering.lookup(&index);
    if (!listener) {
        count(COUNT_LISTENER_MISSING);
        return false;
    }
    long failed = bpf_sk_assign(ctx, listener, 0);
    bpf_sk_release(listener);
    if (failed)
        count(COUNT_LISTENER_MISSING);
    return !failed;
}

static inline int to_proxy(struct bpf_sk_lookup *ctx, u32 endpoint) {
    if (!steer(ctx, endpoint, INGRESS))
        return SK_DROP; /* Safe: it needs judging and nobody is there to judge. */
    /* Safe: only kproxy holds that listener, and it judges before it forwards. */
    count(COUNT_REDIRECTED);
    count_verdict(endpoint, INGRESS, REDIRECT);
    return SK_PASS;
}

/*
 * The namespace talking to itself, TCP: to whom it likes, but what the connect hooks have redirected goes to kproxy.
 * Its listener is found here and not by its address, since a redirected call may be to any of 127.128.0.0/9, or to
 * the pod's own address (connect.bpf.c says when).
 */
static inline int inside(struct bpf_sk_lookup *ctx, u32 endpoint) {
    struct endpoint *self = endpoints.lookup(&endpoint);
    u32 port = self ? (ctx->family == FAMILY_IPV6 ? self->egress_port6 : self->egress_port4) : 0;
    if (!port || ctx->local_port != port)
        return SK_PASS; /* Safe: no CNI polices it either. */
    /* Safe: kproxy serves only what carries the memory of a redirected call. */
    return steer(ctx, endpoint, EGRESS) ? SK_PASS : SK_DROP;
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

/* What both ends' policies say of one packet, by one revision. `caller`: -1 where it is no endpoint of this node. */
struct both_ends {
    struct verdict here, there;
    s64 caller;
    u32 generation;
};

/*
 * The caller's connect hook was asked before the packet left, and a revision may have come into force since. If each
 * end's policy were asked by another revision, a call could pass that neither of them allows: so who calls from an
 * endpoint of this node is asked again, by the revision that answers for this end.
 */
static inline struct both_ends judge_both(struct bpf_sk_lookup *ctx, u32 endpoint, const struct address *remote,
                                          const struct address *local, bool from_host, u8 protocol) {
    struct both_ends both = {.here = {.action = DENY}, .caller = -1};
    u32 *owner = own_addresses.lookup(remote);
    if (owner && *owner != endpoint)
        both.caller = *owner;
    u32 generation = generation_in_force();
    for (int i = 0; i < REVISIONS_WAITED_FOR; i++) {
        both.here = ask(generation, endpoint, INGRESS, remote, from_host, protocol, ctx->local_port);
        if (both.caller >= 0)
            both.there = ask(generation, both.caller, EGRESS, local, false, protocol, ctx->local_port);
        u32 now = generation_in_force();
        if (now == generation) {
            both.generation = generation;
            if (!both.here.by_policy)
                count(COUNT_NO_POLICY);
            return both;
        }
        generation = now;
    }
    both.here = (struct verdict){.action = DENY};
    return both; /* Safe: no revision stood still long enough to be asked. */
}

static inline int deny_caller(struct bpf_sk_lookup *ctx, const struct both_ends *both, const struct address *local) {
    count_verdict(both->caller, EGRESS, DENY);
    tell_denied(both->caller, EGRESS, both->there.identity, ctx->protocol, ctx->local_port, local);
    return SK_DROP; /* Safe: the caller's policy does not let it call here by itself. */
}

static inline int judge_connection(struct bpf_sk_lookup *ctx, u32 endpoint, const struct address *remote,
                                   const struct address *local) {
    u32 kind = announced_as(ctx, remote, local);
    /* Safe: this very flow has been judged for this endpoint too, and the entry dies with its socket. */
    if (kind == ANNOUNCED_UPSTREAM)
        return SK_PASS;
    bool from_host = kind == ANNOUNCED_HOST;
    struct both_ends both = judge_both(ctx, endpoint, remote, local, from_host, PROTOCOL_TCP);
    struct verdict v = both.here;
    if (both.caller >= 0 && !from_host && both.there.action == DENY)
        return deny_caller(ctx, &both, local);
    if (v.action == REDIRECT)
        return to_proxy(ctx, endpoint);
    if (v.action == DENY)
        return deny(ctx, endpoint, v.identity, remote);
    count_verdict(endpoint, INGRESS, v.action);
    if (v.action == AUDIT)
        tell_audited(endpoint, INGRESS, v.identity, PROTOCOL_TCP, ctx->local_port, remote);
    return SK_PASS; /* Safe: L3/L4 policy, as far as it is in force, allows it and asks for no more. */
}

/* Whether the caller answers what came to it from here. */
static inline bool is_callers_answer(const struct both_ends *both, const struct address *local, u16 port,
                                     u16 remote_port) {
    struct datagram_flow flow = datagram_flow(both->caller, local, port, remote_port);
    return is_answer(&flow, EGRESS);
}

static inline int judge_datagram(struct bpf_sk_lookup *ctx, u32 endpoint, const struct address *remote,
                                 const struct address *local) {
    u16 port = ctx->local_port, remote_port = bpf_ntohs(ctx->remote_port);
    if (same_address(local, remote)) {
        struct datagram_flow from_self = datagram_flow(endpoint, local, 0, port);
        if (datagrams.lookup(&from_self))
            return SK_PASS; /* Safe: this pod has sent to that port of its own. */
    }
    struct datagram_flow flow = datagram_flow(endpoint, remote, remote_port, port);
    struct both_ends both = judge_both(ctx, endpoint, remote, local, false, PROTOCOL_UDP);
    struct verdict v = both.here;
    if (v.action != PASS && is_answer(&flow, INGRESS))
        return SK_PASS; /* Safe: the answer to a datagram that egress policy let out. */
    if (both.caller >= 0 && !passes(both.there.action) && !is_callers_answer(&both, local, port, remote_port))
        return deny_caller(ctx, &both, local);
    if (!passes(v.action))
        return deny(ctx, endpoint, v.identity, remote);
    count_verdict(endpoint, INGRESS, v.action);
    if (v.action == AUDIT)
        audit_datagram(&flow, INGRESS, v.identity, port);
    else if (ask(both.generation, endpoint, EGRESS, remote, false, PROTOCOL_UDP, remote_port).action != PASS)
        remember_datagram(&flow, INGRESS, 0); /* else its answers need no leave */
    return SK_PASS; /* Safe: L3/L4 policy, as far as it is in force, allows it. */
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
        READ_IPV6(&local, ctx, local_ip6);
        READ_IPV6(&remote, ctx, remote_ip6);
        if (is_ipv4(&local) || is_ipv4(&remote))
            return deny(ctx, endpoint, 0, &remote); /* Safe: no IPv6 packet has such an address by right. */
    }
    bool tcp = ctx->protocol == PROTOCOL_TCP;
    if (is_loopback(&local) && ctx->ingress_ifindex == LOOPBACK_IFINDEX)
        return tcp ? inside(ctx, endpoint) : SK_PASS; /* Safe: from lo; where 127/8 is routed it may be another. */
    if (!tcp)
        return judge_datagram(ctx, endpoint, &remote, &local);
    /*
     * Safe: the namespace talks to itself. IPv6 takes a packet with our own source from a device too, but the answer
     * to it stays inside, where nobody waits for it: no such handshake ends.
     */
    if (same_address(&local, &remote))
        return inside(ctx, endpoint);
    return judge_connection(ctx, endpoint, &remote, &local);
}
