/*
 * sockops: who is who among the sockets of this node, and which two are the ends of one connection.
 *
 * Two local ends are known to be a pair by their sequence numbers: when both are ESTABLISHED, what one will send
 * next is what the other expects next. That holds across namespaces and address translation, where tuples lie.
 * The active end gets there first, leaves a handshake under its numbers, and the passive end picks it up.
 * Sockets that belong to no flow of kproxy are looked at and left alone.
 */

static inline void name_ends(struct bpf_sock_ops *ctx, struct address *local, struct address *remote) {
    if (ctx->family == FAMILY_IPV4) {
        set_ipv4(local, READ(ctx, local_ip4));
        set_ipv4(remote, READ(ctx, remote_ip4));
        return;
    }
    local->word[0] = READ(ctx, local_ip6[0]);
    local->word[1] = READ(ctx, local_ip6[1]);
    local->word[2] = READ(ctx, local_ip6[2]);
    local->word[3] = READ(ctx, local_ip6[3]);
    remote->word[0] = READ(ctx, remote_ip6[0]);
    remote->word[1] = READ(ctx, remote_ip6[1]);
    remote->word[2] = READ(ctx, remote_ip6[2]);
    remote->word[3] = READ(ctx, remote_ip6[3]);
}

static inline void call_me_on_close(struct bpf_sock_ops *ctx) {
    bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/* Once a second at most, as user space then looks through all namespaces of the node. */
static inline void tell_stranger(void) {
    u32 zero = 0;
    u64 *told = strangers_told.lookup(&zero);
    u64 second = bpf_ktime_get_ns() / 1000000000;
    if (!told || *told == second)
        return;
    *told = second;
    struct event e = {.kind = EVENT_STRANGER};
    if (events.ringbuf_output(&e, sizeof(e), 0))
        count(COUNT_EVENTS_LOST);
}

/*
 * May a socket of this namespace be spliced? Not where the endpoint has it off, and only where user space can see
 * how much the socket holds unread, through sock_diag inside that namespace.
 */
static inline bool may_splice_here(u64 netns) {
    u32 *id = namespaces.lookup(&netns);
    if (id) {
        struct endpoint *endpoint = endpoints.lookup(id);
        return endpoint && endpoint->splice;
    }
    if (neighbours.lookup(&netns))
        return true;
    tell_stranger();
    return false;
}

static inline bool endpoint_splices(u32 id) {
    struct endpoint *endpoint = endpoints.lookup(&id);
    return endpoint && endpoint->splice;
}

/* A slot and a place in the sockhash for this socket; false: it stays plain TCP. */
static inline bool enter_map(struct bpf_sock_ops *ctx, struct socket_state *state, u64 netns) {
    u32 index = 0;
    if (free_slots.pop(&index)) {
        count(COUNT_NO_SLOT);
        return false;
    }
    struct slot *slot = slots.lookup(&index);
    if (!slot)
        return false;
    u64 cookie = bpf_get_socket_cookie(ctx);
    u32 generation = slot->mode_generation & 0xffffffff;
    slot->bytes = 0;
    slot->messages = 0;
    slot->settled_bytes = 0;
    slot->settled_messages = 0;
    slot->tcp_bytes = 0;
    slot->grant_seen = 0;
    slot->ask_at = 0;
    slot->granted = ((u64)generation << GENERATION_SHIFT) | FIRST_GRANT;
    slot->reopen = ~0ULL; /* no total is ever this */
    slot->peer_cookie = 0;
    slot->peer_slot = NO_SLOT;
    slot->cookie = cookie;
    slot->netns = netns;
    slot->family = ctx->family;
    slot->role = state->role;
    slot->local_port = ctx->local_port;
    slot->remote_port = bpf_ntohl(READ(ctx, remote_port));
    name_ends(ctx, &slot->local, &slot->remote);
    slot->mode_generation = generation; /* SPLICING */
    int failed = spliced.sock_hash_update(ctx, &cookie, BPF_ANY);
    if (failed) {
        /* Full, or a kind of socket that cannot be there (MPTCP): give the slot back. */
        slot->mode_generation = ((u64)CLOSED << 32) | (generation + 1);
        free_slots.push(&index, 0);
        count(COUNT_NOT_IN_SOCKHASH);
        return false;
    }
    state->slot = index;
    state->slot_generation = generation;
    return true;
}

static inline u64 sequence_key(u32 sent, u32 received) {
    return ((u64)sent << 32) | received;
}

static inline void leave_handshake(struct bpf_sock_ops *ctx, struct socket_state *state, u64 netns) {
    struct handshake h = {};
    h.cookie = bpf_get_socket_cookie(ctx);
    h.netns = netns;
    h.shown = state->shown;
    h.shown_port = state->shown_port;
    h.role = state->role;
    h.endpoint = state->endpoint;
    h.slot = state->slot;
    h.slot_generation = state->slot_generation;
    h.splice = state->splice;
    u64 key = sequence_key(READ(ctx, snd_nxt), READ(ctx, rcv_nxt));
    /* Not over another's: whoever could place an entry first must not take over a connection. */
    if (handshakes.insert(&key, &h)) {
        count(COUNT_HANDSHAKES_FULL);
        return;
    }
    state->handshake = key;
}

static inline struct socket_state *new_state(struct bpf_sock *sk, u32 role, u32 endpoint, u32 direction) {
    struct socket_state fresh = {};
    struct socket_state *state = sockets.sk_storage_get(sk, &fresh, BPF_SK_STORAGE_GET_F_CREATE);
    if (!state) {
        count(COUNT_STORAGE_FULL);
        return 0;
    }
    state->role = role;
    state->endpoint = endpoint;
    state->direction = direction;
    state->slot = NO_SLOT;
    return state;
}

/* Would sk_lookup send this connection, opened on this node, to kproxy's ingress listener? */
static inline bool is_redirected_ingress(struct bpf_sock_ops *ctx, u64 netns, u32 *endpoint) {
    struct address local, remote;
    name_ends(ctx, &local, &remote);
    u32 *owner = own_addresses.lookup(&remote);
    if (!owner || is_loopback(&remote) || same_address(&local, &remote))
        return false;
    *endpoint = *owner;
    u32 generation = generation_in_force();
    u32 zero = 0;
    struct control *c = control.lookup(&zero);
    u32 identity = c && c->host_netns == netns ? c->host_identity : identity_of(generation, &local);
    u16 port = bpf_ntohl(READ(ctx, remote_port));
    return decide(generation, *owner, INGRESS, identity, PROTOCOL_TCP, port) == REDIRECT;
}

static inline void announce(struct bpf_sock_ops *ctx, struct socket_state *state, u32 kind) {
    struct tuple t = {};
    name_ends(ctx, &t.source, &t.destination);
    t.source_port = ctx->local_port;
    t.destination_port = bpf_ntohl(READ(ctx, remote_port));
    struct announcement a = {.kind = kind};
    if (announced.update(&t, &a)) {
        count(COUNT_HANDSHAKES_FULL); /* Safe: it is then judged like anybody's. */
        return;
    }
    state->tuple = t;
    state->announced = 1;
    call_me_on_close(ctx);
}

/* Before the SYN leaves: say to sk_lookup at the other end who this is. */
static inline void connecting(struct bpf_sock_ops *ctx, struct bpf_sock *sk) {
    u64 netns = bpf_get_netns_cookie(ctx);
    struct upstream *up = upstreams.sk_storage_get(sk, 0, 0);
    if (up) {
        struct socket_state *state = new_state(sk, UPSTREAM, up->endpoint, EGRESS);
        if (!state)
            return;
        state->splice = up->flags & UPSTREAM_SPLICE ? 1 : 0;
        state->shown = up->client;
        state->shown_port = up->client_port;
        call_me_on_close(ctx);
        if (up->flags & UPSTREAM_ANNOUNCE)
            announce(ctx, state, ANNOUNCED_UPSTREAM);
        return;
    }
    struct socket_state *redirected = sockets.sk_storage_get(sk, 0, 0);
    if (redirected && redirected->role == CLIENT) {
        call_me_on_close(ctx); /* so that a redirect which never arrives is counted */
        return;
    }
    u32 zero = 0;
    struct control *c = control.lookup(&zero);
    if (!c || c->host_netns != netns)
        return;
    struct address local, remote;
    name_ends(ctx, &local, &remote);
    if (!own_addresses.lookup(&remote))
        return;
    struct socket_state *state = new_state(sk, 0, 0, INGRESS);
    if (state)
        announce(ctx, state, ANNOUNCED_HOST);
}

static inline void active_established(struct bpf_sock_ops *ctx, struct bpf_sock *sk) {
    u64 netns = bpf_get_netns_cookie(ctx);
    struct upstream *up = upstreams.sk_storage_get(sk, 0, 0);
    struct socket_state *state = sockets.sk_storage_get(sk, 0, 0);
    if (up) {
        if (!state)
            return; /* no memory when it connected: it stays plain TCP */
        /* It enters the map when its server is known to be here: user space does that, see splicer.py. */
        leave_handshake(ctx, state, netns);
        return;
    }
    if (state && state->role == CLIENT && state->direction == EGRESS) {
        if (endpoint_splices(state->endpoint))
            enter_map(ctx, state, netns);
        leave_handshake(ctx, state, netns);
        return;
    }
    u32 endpoint = 0;
    if (!is_redirected_ingress(ctx, netns, &endpoint))
        return;
    struct socket_state *client = state ? state : new_state(sk, CLIENT, endpoint, INGRESS);
    if (!client)
        return;
    client->role = CLIENT;
    client->endpoint = endpoint;
    client->direction = INGRESS;
    client->shown_port = 0; /* it sees the server's own address anyway */
    call_me_on_close(ctx);
    if (endpoint_splices(endpoint) && may_splice_here(netns))
        enter_map(ctx, client, netns);
    leave_handshake(ctx, client, netns);
}

/* Both slots learn of each other; the active end may have sent before this and gone by TCP. */
static inline void pair_slots(struct socket_state *own, struct handshake *active, u64 own_cookie) {
    u32 own_index = own->slot, other_index = active->slot;
    struct slot *mine = slots.lookup(&own_index);
    if (!mine)
        return;
    struct slot *other = slots.lookup(&other_index);
    if (!other || (other->mode_generation & 0xffffffff) != active->slot_generation)
        return;
    mine->peer_slot = other_index;
    other->peer_slot = own_index;
    mine->peer_cookie = active->cookie;
    other->peer_cookie = own_cookie;
    count(COUNT_PAIRED);
}

/* S enters the map, and user space is told under U's cookie, so that U can follow. */
static inline void offer_to_upstream(struct bpf_sock_ops *ctx, struct socket_state *state,
                                     struct handshake *active, u64 netns) {
    if (!active->splice || !may_splice_here(netns) || !enter_map(ctx, state, netns))
        return;
    u32 index = state->slot;
    struct slot *slot = slots.lookup(&index);
    if (!slot)
        return;
    slot->peer_cookie = active->cookie;
    u64 upstream = active->cookie;
    struct pair offer = {.server_cookie = slot->cookie, .server_slot = index};
    if (pairs.update(&upstream, &offer))
        count(COUNT_HANDSHAKES_FULL);
}

static inline void passive_established(struct bpf_sock_ops *ctx, struct bpf_sock *sk) {
    u64 key = sequence_key(READ(ctx, rcv_nxt), READ(ctx, snd_nxt));
    struct handshake active = {};
    struct handshake *found = handshakes.lookup(&key);
    if (found) {
        active = *found;
        handshakes.delete(&key);
    }
    u32 role = SERVER, expected = UPSTREAM, endpoint = active.endpoint, direction = INGRESS;
    struct listener *listener = listeners.sk_storage_get(sk, 0, 0);
    if (listener) {
        role = PROXY;
        expected = CLIENT;
        endpoint = listener->endpoint;
        direction = listener->direction;
    } else if (active.role != UPSTREAM) {
        return; /* somebody else's connection */
    }
    u64 netns = bpf_get_netns_cookie(ctx);
    struct socket_state *state = new_state(sk, role, endpoint, direction);
    if (!state)
        return;
    call_me_on_close(ctx);
    if (active.role != expected)
        return; /* a remote client, or one that came around the hooks: user space sees no destination */
    state->peer_cookie = active.cookie;
    state->peer_netns = active.netns;
    state->shown = active.shown;
    state->shown_port = active.shown_port;
    state->paired = 1;
    if (role == PROXY && direction == EGRESS)
        count(COUNT_REDIRECTS_ARRIVED);
    if (role == SERVER)
        offer_to_upstream(ctx, state, &active, netns);
    else if (active.slot != NO_SLOT && enter_map(ctx, state, netns))
        pair_slots(state, &active, bpf_get_socket_cookie(ctx));
}

/* The socket's last word: everything that was left in maps for it goes. */
static inline void closed(struct bpf_sock_ops *ctx, struct bpf_sock *sk) {
    struct socket_state *state = sockets.sk_storage_get(sk, 0, 0);
    if (!state)
        return;
    if (state->announced) {
        /* Before the port can be bound again (tcp_set_state calls us first): no stale pass is left behind. */
        struct tuple t = state->tuple;
        announced.delete(&t);
        state->announced = 0;
    }
    if (state->role == UPSTREAM) {
        u64 cookie = bpf_get_socket_cookie(ctx);
        pairs.delete(&cookie);
    }
    if (state->handshake) {
        u64 key = state->handshake;
        struct handshake *left = handshakes.lookup(&key);
        if (left && left->cookie == bpf_get_socket_cookie(ctx)) {
            handshakes.delete(&key);
            if (state->role == CLIENT && state->direction == EGRESS)
                count(COUNT_REDIRECTS_LOST);
        }
        state->handshake = 0;
    } else if (state->role == CLIENT && state->direction == EGRESS && state->slot == NO_SLOT) {
        count(COUNT_REDIRECTS_LOST);
    }
    u32 index = state->slot;
    if (index == NO_SLOT)
        return;
    state->slot = NO_SLOT;
    struct slot *slot = slots.lookup(&index);
    if (slot && (slot->mode_generation & 0xffffffff) == state->slot_generation) {
        slot->mode_generation = ((u64)CLOSED << 32) | (state->slot_generation + 1);
        free_slots.push(&index, 0);
    }
}

int kproxy_sockops(struct bpf_sock_ops *ctx) {
    struct bpf_sock *sk = ctx->sk;
    if (!sk)
        return 0;
    if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
        connecting(ctx, sk);
    else if (ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
        active_established(ctx, sk);
    else if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
        passive_established(ctx, sk);
    else if (ctx->op == BPF_SOCK_OPS_STATE_CB && ctx->args[1] == BPF_TCP_CLOSE)
        closed(ctx, sk);
    return 0;
}
