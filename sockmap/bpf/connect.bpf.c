/*
 * connect(), sendmsg() and getpeername() of the sockets on this node.
 *
 * The connect hooks ask the policy map before a SYN leaves: PASS lets the call go on, DENY ends it with EPERM,
 * REDIRECT points it at kproxy's listener in the caller's own network namespace and remembers, on the socket
 * itself, whom it called. Sockets of namespaces that are no endpoint are left as they are.
 */

/* A socket may connect() again: what an earlier call left must not speak for this one. */
static inline void forget(struct bpf_sock *sk) {
    struct socket_state *state = sockets.sk_storage_get(sk, 0, 0);
    if (!state)
        return;
    if (state->in_sockhash)
        state->role = 0; /* connecting() in sockops.bpf.c, which comes next, takes it out and ends the record */
    else
        sockets.sk_storage_delete(sk);
}

static inline bool remember_destination(struct bpf_sock *sk, u32 endpoint, const struct address *destination,
                                        u16 port) {
    struct socket_state fresh = {};
    struct socket_state *state = sockets.sk_storage_get(sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
    if (!state)
        return false;
    u32 in_sockhash = state->in_sockhash;
    *state = fresh;
    state->in_sockhash = in_sockhash;
    state->role = CLIENT;
    state->endpoint = endpoint;
    state->direction = EGRESS;
    state->shown = *destination;
    state->shown_port = port;
    state->slot = NO_SLOT;
    return true;
}

/* A datagram to an own address: let it in at the other side of lo, where a forged one from a device is not. */
static inline void expect_from_self(u32 endpoint, const struct address *own, u16 port) {
    struct datagram_flow flow = datagram_flow(endpoint, own, 0, port);
    remember_datagram(&flow, EGRESS, 0);
}

/* What becomes of a connection that is asked about in a call, told and counted. */
static inline u32 decided_call(u32 endpoint, struct verdict *v, const struct address *destination, u8 protocol,
                               u16 port, u16 source_port) {
    u32 action = v->action;
    /* A socket without a port is a datagram socket's connect(): its answers find it by both ends' addresses. */
    struct datagram_flow flow = datagram_flow(endpoint, destination, port, source_port);
    bool datagram = protocol == PROTOCOL_UDP && source_port;
    if (datagram && action != PASS && is_answer(&flow, EGRESS))
        return PASS;
    if (protocol != PROTOCOL_TCP && action == REDIRECT)
        action = DENY; /* Safe: datagrams are never redirected, so what is not allowed is refused. */
    count_verdict(endpoint, EGRESS, action);
    if (action == DENY)
        tell_denied(endpoint, EGRESS, v->identity, protocol, port, destination);
    else if (datagram && action == AUDIT)
        audit_datagram(&flow, EGRESS, v->identity, port);
    else if (action == AUDIT)
        tell_audited(endpoint, EGRESS, v->identity, protocol, port, destination);
    else if (datagram)
        remember_datagram(&flow, EGRESS, 0);
    return action;
}

/* PASS, DENY or REDIRECT for one call of an enforced endpoint; *endpoint_id is set where it is one. */
static inline u32 judge_call(struct bpf_sock_addr *ctx, struct bpf_sock *sk, const struct address *destination,
                             u16 port, u32 *endpoint_id) {
    /* kproxy's own: only user space with these maps' descriptors can have marked it; a SO_MARK proves nothing. */
    if (upstreams.sk_storage_get(sk, 0, 0))
        return PASS;
    u64 netns = bpf_get_netns_cookie(ctx);
    u32 *endpoint = namespaces.lookup(&netns);
    if (!endpoint)
        return PASS;
    *endpoint_id = *endpoint;
    u8 protocol = ctx->protocol; /* others than TCP and UDP have no entries: the default decides */
    /* From a socket bound to another device than lo, 127/8 is routed out of the pod like any other address. */
    if (is_loopback(destination) && sk->bound_dev_if <= LOOPBACK_IFINDEX)
        return PASS;
    u32 *owner = own_addresses.lookup(destination);
    if (owner && *owner == *endpoint) {
        if (protocol == PROTOCOL_UDP)
            expect_from_self(*endpoint, destination, port);
        return PASS;
    }
    struct verdict v = judge(*endpoint, EGRESS, destination, false, protocol, port);
    u32 action = decided_call(*endpoint, &v, destination, protocol, port, sk->src_port);
    return passes(action) ? PASS : action;
}

/*
 * Where a redirected call goes: one of 127.128.0.0/9 by destination, because one source port may be used to two
 * destinations at once, and the kernel would refuse the second as a duplicate if both went to one address.
 */
static inline u32 spread(const struct address *destination, u16 port) {
    u32 mix = (bpf_ntohl(destination->word[3]) ^ bpf_ntohl(destination->word[1])) * 2654435761u;
    mix = (mix ^ port) * 2246822519u; /* two odd constants of many bits: neighbours end far apart */
    return bpf_htonl(0x7f800000 | ((mix >> 8) & 0x7fffff));
}

/*
 * A socket that has a port but no address cannot be given one any more (bpf_bind), and one that is bound to a device
 * does not reach 127/8. Towards the pod's own address the kernel chooses that same address as the source, and such a
 * call stays inside on whatever device: so it goes there, and sk_lookup hands it to the listener.
 */
static inline bool goes_by_own_address(struct bpf_sock *sk, bool has_address, const struct address *own) {
    return own->word[3] && (sk->bound_dev_if || (sk->src_port && !has_address));
}

static inline int redirect_ipv4(struct bpf_sock_addr *ctx, struct bpf_sock *sk, struct endpoint *endpoint,
                                const struct address *destination, u16 port) {
    struct address *own = &endpoint->source4;
    if (goes_by_own_address(sk, sk->src_ip4, own)) {
        ctx->user_ip4 = own->word[3];
    } else {
        if (own->word[3] && !sk->src_ip4) {
            struct sockaddr_in source = {.sin_family = FAMILY_IPV4, .sin_addr = own->word[3]};
            bpf_bind(ctx, (struct sockaddr *)&source, sizeof(source));
        }
        ctx->user_ip4 = spread(destination, port);
    }
    ctx->user_port = bpf_htons(endpoint->egress_port4);
    return ALLOW_CALL;
}

static inline void bind_ipv6(struct bpf_sock_addr *ctx, const struct address *own) {
    struct sockaddr_in6 source = {.sin6_family = FAMILY_IPV6};
    source.sin6_addr[0] = own->word[0];
    source.sin6_addr[1] = own->word[1];
    source.sin6_addr[2] = own->word[2];
    source.sin6_addr[3] = own->word[3];
    bpf_bind(ctx, (struct sockaddr *)&source, sizeof(source));
}

static inline void call_ipv6(struct bpf_sock_addr *ctx, u32 w0, u32 w1, u32 w2, u32 w3) {
    ctx->user_ip6[0] = w0;
    ctx->user_ip6[1] = w1;
    ctx->user_ip6[2] = w2;
    ctx->user_ip6[3] = w3;
}

/* Also for IPv4-mapped destinations, which an IPv6 socket reaches by IPv4. */
static inline int redirect_ipv6(struct bpf_sock_addr *ctx, struct bpf_sock *sk, struct endpoint *endpoint,
                                const struct address *destination, u16 port) {
    bool mapped = is_ipv4(destination);
    bool has_address = sk->src_ip6[0] || sk->src_ip6[1] || sk->src_ip6[2] || sk->src_ip6[3];
    struct address *own = mapped ? &endpoint->source4 : &endpoint->source6;
    if (goes_by_own_address(sk, has_address, own)) {
        call_ipv6(ctx, own->word[0], own->word[1], own->word[2], own->word[3]);
    } else {
        if (own->word[3] && !has_address)
            bind_ipv6(ctx, own);
        if (mapped)
            call_ipv6(ctx, 0, 0, MAPPED, spread(destination, port));
        else
            call_ipv6(ctx, 0, 0, 0, bpf_htonl(1));
    }
    ctx->user_port = bpf_htons(mapped ? endpoint->egress_port4 : endpoint->egress_port6);
    return ALLOW_CALL;
}

/* The endpoint, where this call can be redirected: it has a listener, and the destination is remembered. */
static inline struct endpoint *prepare_redirect(struct bpf_sock *sk, u32 id, const struct address *destination,
                                                u16 port) {
    struct endpoint *endpoint = endpoints.lookup(&id);
    if (!endpoint || !(is_ipv4(destination) ? endpoint->egress_port4 : endpoint->egress_port6)) {
        count(COUNT_LISTENER_MISSING); /* an endpoint without IPv6 has no IPv6 listener */
        return 0;
    }
    if (!remember_destination(sk, id, destination, port)) {
        count(COUNT_STORAGE_FULL);
        return 0;
    }
    /* The listener takes only what carries this memory, and judges before it forwards. */
    count(COUNT_REDIRECTED);
    return endpoint;
}

int kproxy_connect4(struct bpf_sock_addr *ctx) {
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return ALLOW_CALL;
    struct address destination;
    set_ipv4(&destination, READ(ctx, user_ip4));
    u16 port = bpf_ntohs(READ(ctx, user_port));
    u32 id = 0;
    u32 action = judge_call(ctx, sk, &destination, port, &id);
    if (action == DENY)
        return REFUSE_CALL; /* Safe: nothing has been sent, and the caller is told at once (EPERM). */
    forget(sk);
    if (action == PASS)
        return ALLOW_CALL;
    struct endpoint *endpoint = prepare_redirect(sk, id, &destination, port);
    if (!endpoint)
        return REFUSE_CALL; /* Safe: without a listener or a memory of the destination nobody could judge it. */
    return redirect_ipv4(ctx, sk, endpoint, &destination, port);
}

int kproxy_connect6(struct bpf_sock_addr *ctx) {
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return ALLOW_CALL;
    struct address destination;
    READ_IPV6(&destination, ctx, user_ip6);
    u16 port = bpf_ntohs(READ(ctx, user_port));
    u32 id = 0;
    u32 action = judge_call(ctx, sk, &destination, port, &id);
    if (action == DENY)
        return REFUSE_CALL; /* Safe: as in connect4. */
    forget(sk);
    if (action == PASS)
        return ALLOW_CALL;
    struct endpoint *endpoint = prepare_redirect(sk, id, &destination, port);
    if (!endpoint)
        return REFUSE_CALL; /* Safe: as in connect4. */
    return redirect_ipv6(ctx, sk, endpoint, &destination, port);
}

int kproxy_sendmsg4(struct bpf_sock_addr *ctx) {
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return ALLOW_CALL;
    struct address destination;
    set_ipv4(&destination, READ(ctx, user_ip4));
    u32 id = 0;
    u32 action = judge_call(ctx, sk, &destination, bpf_ntohs(READ(ctx, user_port)), &id);
    return action == PASS ? ALLOW_CALL : REFUSE_CALL; /* Safe: the datagram has not left. */
}

int kproxy_sendmsg6(struct bpf_sock_addr *ctx) {
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return ALLOW_CALL;
    struct address destination;
    READ_IPV6(&destination, ctx, user_ip6);
    u32 id = 0;
    u32 action = judge_call(ctx, sk, &destination, bpf_ntohs(READ(ctx, user_port)), &id);
    return action == PASS ? ALLOW_CALL : REFUSE_CALL; /* Safe: as in sendmsg4. */
}

/* getpeername(), and accept(), which asks the same hook: the address that would be there without kproxy. */
int kproxy_getpeername4(struct bpf_sock_addr *ctx) {
    struct bpf_sock *sk = ctx->sk;
    struct socket_state *state = sk ? sockets.sk_storage_get(sk, 0, 0) : 0;
    if (state && (state->role == CLIENT || state->role == SERVER) && state->shown_port) {
        ctx->user_ip4 = state->shown.word[3];
        ctx->user_port = bpf_htons(state->shown_port);
    }
    return ALLOW_CALL;
}

int kproxy_getpeername6(struct bpf_sock_addr *ctx) {
    struct bpf_sock *sk = ctx->sk;
    struct socket_state *state = sk ? sockets.sk_storage_get(sk, 0, 0) : 0;
    if (state && (state->role == CLIENT || state->role == SERVER) && state->shown_port) {
        ctx->user_ip6[0] = state->shown.word[0];
        ctx->user_ip6[1] = state->shown.word[1];
        ctx->user_ip6[2] = state->shown.word[2];
        ctx->user_ip6[3] = state->shown.word[3];
        ctx->user_port = bpf_htons(state->shown_port);
    }
    return ALLOW_CALL;
}
