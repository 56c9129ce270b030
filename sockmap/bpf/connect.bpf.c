/*
 * connect(), sendmsg() and getpeername() of the sockets on this node.
 *
 * The connect hooks ask the policy map before a SYN leaves: PASS lets the call go on, DENY ends it with EPERM,
 * REDIRECT points it at kproxy's listener in the caller's own network namespace and remembers, on the socket
 * itself, whom it called. Sockets of namespaces that are no endpoint are left as they are.
 */

static inline void forget(struct bpf_sock *sk) {
    /* A socket may connect() again: what an earlier call left must not speak for this one. */
    sockets.sk_storage_delete(sk);
}

/*
 * Where a redirected call goes: one of 127.128.0.0/9 by destination, because one source port may be used to two
 * destinations at once, and the kernel would refuse the second as a duplicate if both went to one address.
 */
static inline u32 spread(const struct address *destination, u16 port) {
    u32 mix = (bpf_ntohl(destination->word[3]) ^ bpf_ntohl(destination->word[1])) * 2654435761u + port;
    return bpf_htonl(0x7f800000 | ((mix >> 8) & 0x7fffff));
}

static inline bool remember_destination(struct bpf_sock_addr *ctx, struct bpf_sock *sk, u32 endpoint,
                                        const struct address *destination, u16 port) {
    struct socket_state fresh = {};
    struct socket_state *state = sockets.sk_storage_get(sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
    if (!state)
        return false;
    state->role = CLIENT;
    state->endpoint = endpoint;
    state->direction = EGRESS;
    state->shown = *destination;
    state->shown_port = port;
    state->slot = NO_SLOT;
    state->paired = 0;
    state->handshake = 0;
    state->peer_cookie = 0;
    state->announced = 0;
    return true;
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
    if (is_loopback(destination))
        return PASS;
    u32 *owner = own_addresses.lookup(destination);
    if (owner && *owner == *endpoint)
        return PASS;
    u8 protocol = ctx->protocol; /* others than TCP and UDP have no entries: the default decides */
    u32 generation = generation_in_force();
    u32 identity = identity_of(generation, destination);
    u32 action = decide(generation, *endpoint, EGRESS, identity, protocol, port);
    if (protocol == PROTOCOL_UDP && action != PASS) {
        /* An answer to a datagram that was let in. */
        struct datagram_flow flow = {};
        flow.endpoint = *endpoint;
        flow.remote = *destination;
        flow.remote_port = port;
        flow.local_port = sk->src_port;
        u64 *since = datagrams.lookup(&flow);
        if (since && bpf_ktime_get_ns() - *since < DATAGRAM_FLOW_NS)
            return PASS;
        action = DENY; /* Safe: datagrams are never redirected, so what is not allowed is refused. */
    }
    if (action == DENY)
        tell_denied(*endpoint, EGRESS, identity, protocol, port, destination);
    else if (action == PASS && protocol == PROTOCOL_UDP)
        expect_answer(*endpoint, destination, port, sk->src_port);
    count_verdict(*endpoint, EGRESS, action);
    return action;
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
    struct endpoint *endpoint = endpoints.lookup(&id);
    if (!endpoint || !endpoint->egress_port4 || !remember_destination(ctx, sk, id, &destination, port)) {
        /* Safe: without a listener or a memory of the destination nobody could judge it. */
        count(COUNT_STORAGE_FULL);
        return REFUSE_CALL;
    }
    if (endpoint->source4.word[3] && !sk->src_ip4) {
        struct sockaddr_in own = {};
        own.sin_family = FAMILY_IPV4;
        own.sin_addr = endpoint->source4.word[3];
        /* Fails where the application has bound a port to no address: it then sees 127.x as its own. */
        bpf_bind(ctx, (struct sockaddr *)&own, sizeof(own));
    }
    stay_in_namespace(ctx, sk);
    ctx->user_ip4 = spread(&destination, port);
    ctx->user_port = bpf_htons(endpoint->egress_port4);
    /* Safe: the listener takes only what carries this memory, and judges before it forwards. */
    count(COUNT_REDIRECTED);
    return ALLOW_CALL;
}

int kproxy_connect6(struct bpf_sock_addr *ctx) {
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return ALLOW_CALL;
    struct address destination;
    destination.word[0] = READ(ctx, user_ip6[0]);
    destination.word[1] = READ(ctx, user_ip6[1]);
    destination.word[2] = READ(ctx, user_ip6[2]);
    destination.word[3] = READ(ctx, user_ip6[3]);
    u16 port = bpf_ntohs(READ(ctx, user_port));
    u32 id = 0;
    u32 action = judge_call(ctx, sk, &destination, port, &id);
    if (action == DENY)
        return REFUSE_CALL; /* Safe: as in connect4. */
    forget(sk);
    if (action == PASS)
        return ALLOW_CALL;
    struct endpoint *endpoint = endpoints.lookup(&id);
    bool mapped = is_ipv4(&destination);
    u32 listener_port = 0;
    if (endpoint)
        listener_port = mapped ? endpoint->egress_port4 : endpoint->egress_port6;
    if (!endpoint || !listener_port || !remember_destination(ctx, sk, id, &destination, port)) {
        /* Safe: as in connect4; an endpoint without IPv6 has no IPv6 listener. */
        count(COUNT_STORAGE_FULL);
        return REFUSE_CALL;
    }
    struct address *source = mapped ? &endpoint->source4 : &endpoint->source6;
    bool unbound = !sk->src_ip6[0] && !sk->src_ip6[1] && !sk->src_ip6[2] && !sk->src_ip6[3];
    if (source->word[3] && unbound) {
        struct sockaddr_in6 own = {};
        own.sin6_family = FAMILY_IPV6;
        own.sin6_addr[0] = source->word[0];
        own.sin6_addr[1] = source->word[1];
        own.sin6_addr[2] = source->word[2];
        own.sin6_addr[3] = source->word[3];
        bpf_bind(ctx, (struct sockaddr *)&own, sizeof(own));
    }
    stay_in_namespace(ctx, sk);
    if (mapped) {
        ctx->user_ip6[3] = spread(&destination, port);
    } else {
        ctx->user_ip6[0] = 0;
        ctx->user_ip6[1] = 0;
        ctx->user_ip6[2] = 0;
        ctx->user_ip6[3] = bpf_htonl(1);
    }
    ctx->user_port = bpf_htons(listener_port);
    /* Safe: as in connect4. */
    count(COUNT_REDIRECTED);
    return ALLOW_CALL;
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
    destination.word[0] = READ(ctx, user_ip6[0]);
    destination.word[1] = READ(ctx, user_ip6[1]);
    destination.word[2] = READ(ctx, user_ip6[2]);
    destination.word[3] = READ(ctx, user_ip6[3]);
    u32 id = 0;
    u32 action = judge_call(ctx, sk, &destination, bpf_ntohs(READ(ctx, user_port)), &id);
    return action == PASS ? ALLOW_CALL : REFUSE_CALL; /* Safe: the datagram has not left. */
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
